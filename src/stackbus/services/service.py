"""What stackbus knows of one OpenStack service: a value.

The ten of them stand in files beside this one, listed in ``__init__.py``. ``expose/`` reads the
configuration part, ``relay/`` the reading part. A new service is a new file and a new line there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import msgspec

Payload = Mapping[str, object]
Attributes = Mapping[str, str | int | float | bool]

SHARED_EXCHANGE = "openstack"
"""oslo.messaging's default ``control_exchange``: Cinder and Manila share it in many clouds."""


@dataclass(frozen=True, slots=True)
class Option:
    """One option of an oslo.config file, with the reason why it is set."""

    section: str
    name: str
    value: str
    why: str


class Resource(msgspec.Struct, frozen=True, gc=False):
    """One resource as a notification tells it; what is not told is empty.

    ``attributes`` are what counts for capacity and what explains an outcome: single values only.
    """

    id: str = ""
    name: str = ""
    project_id: str = ""
    attributes: Attributes = msgspec.field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Service:
    """One OpenStack service that emits notifications.

    ``event_types`` are the first words of its event types: they tell its notifications apart
    on the shared exchange. ``project`` gives the owner's project id of a notification, or None;
    ``resource`` the id of what it is about, or None where it tells none, or of many;
    ``read`` all the resources that it tells of. ``resources`` names the kind of resource, in
    openstacksdk's word, by the first words of the event type (of two that fit, the longer one);
    ``actions`` translates what then follows, without the phase, or the whole event type, into
    stackbus' vocabulary, where ``events/actions.py`` does not do so for all services.
    ``is_report`` tells of a notification that is named like an action whether it only reports on
    what was done before. ``secrets`` names fields that are secret in this service's events alone:
    first words of the event type, and the field's name. ``place`` says where its drop-in is read.
    """

    name: str
    type: str
    exchange: str
    event_types: tuple[str, ...]
    project: Callable[[str, Payload], str | None]
    resource: Callable[[str, Payload], str | None]
    read: Callable[[str, Payload], Sequence[Resource]]
    resources: Mapping[str, str]
    actions: Mapping[str, str] = field(default_factory=dict)
    is_report: Callable[[Payload], bool] = lambda _: False
    aliases: tuple[str, ...] = ()
    options: tuple[Option, ...] = ()
    exchange_why: str = "its own default, said so that nothing else moves it"
    secrets: tuple[tuple[str, str], ...] = ()
    place: str = "a file in the folder of its --config-dir, or the end of its configuration file"


def text(value: object) -> str | None:
    """Give ``value`` if it is a text that is not empty, else None."""
    return value if isinstance(value, str) and value else None


def actor(notification: Mapping[str, object]) -> str | None:
    """Read the id of the user who caused a notification: its context's, or CADF's initiator.

    oslo.context writes ``user_id`` (``user`` before 3.0); CADF's ``initiator.id`` may be hashed, so
    it is not read.
    """
    context = text(notification.get("_context_user_id")) or text(notification.get("_context_user"))
    payload = notification.get("payload")
    return (
        context
        or text(inside(payload, "initiator", "user_id"))
        or text(inside(payload, "nova_object.data", "action_initiator_user"))
    )


def several(value: object) -> Iterable[Payload]:
    """Give the objects in ``value``, if it is a list of objects."""
    if isinstance(value, list):
        for member in value:
            if isinstance(member, dict):
                yield member


_SINGLE = (str, int, float)
_LARGEST = 1 << 63


def picked(data: object, names: Mapping[str, str]) -> dict[str, str | int | float | bool]:
    """Take the members of ``data`` that ``names`` lists, under the names that it gives.

    Only single values that say something: no null, no empty text, no list, no object, and no
    number beyond 64 bits.
    """
    found: dict[str, str | int | float | bool] = {}
    if isinstance(data, dict):
        for name, told in names.items():
            value = data.get(name)
            if value is None or value == "" or not isinstance(value, _SINGLE):
                continue
            if isinstance(value, int) and not -_LARGEST <= value < _LARGEST:
                continue
            found[told] = value
    return found


AUDIT_PERIOD = {
    "audit_period_beginning": "audit_period_beginning",
    "audit_period_ending": "audit_period_ending",
}
"""What every ``*.exists`` says of the time that it speaks about."""


def inside(value: object, *path: str) -> object:
    """Walk ``path`` through nested objects; None where the path ends early."""
    for key in path:
        if not isinstance(value, dict):
            return None
        value = value.get(key)
    return value
