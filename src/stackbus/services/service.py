"""One OpenStack service as a value, and the helpers with which the ten files beside it read events.

``expose/`` uses a service's exchange and options, ``relay/`` its exchange and project id,
``events/normalise.py`` the rest. A new service is a new file here, a line in ``__init__.py`` and a
file in ``tests/golden-events/``.
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
    reason: str


class Resource(msgspec.Struct, frozen=True, gc=False):
    """One resource named by a notification. A field is empty if the notification does not have it.

    ``attributes`` hold the sizes and states that capacity and audit need: single values only.
    """

    id: str = ""
    name: str = ""
    project_id: str = ""
    attributes: Attributes = msgspec.field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Service:
    """One OpenStack service that emits notifications.

    Configuration:

    - ``name``, ``type``, ``aliases``: the project's name, the service type of the catalogue, and
      the type's other spellings.
    - ``exchange``: the control exchange; ``exchange_reason`` explains it in the drop-in.
    - ``options``: options without which the service emits nothing, or too little.
    - ``drop_in_location``: where the service reads its drop-in.

    Reading:

    - ``event_types``: first words of its event types, by which its notifications are recognised
      on the shared exchange.
    - ``read_project_id(event_type, payload)``: the project that owns the resource, or "".
    - ``read_resource_id(event_type, payload)``: the resource's id, or "" (also for a bulk create,
      which has many).
    - ``read_resources(event_type, payload)``: every resource that the notification names.
    - ``resource_types``: resource type, in openstacksdk's words, by the first words of the event
      type; the longest match wins.
    - ``actions``: stackbus' action by the service's own word (the event type between resource and
      phase), or by the whole event type. ``events/actions.py`` has those of all services.
    - ``is_report(payload)``: whether a notification named like an action only reports a state.
    - ``secrets``: (beginning of the event type, field name) of fields that are secret in this
      service's notifications only.
    """

    name: str
    type: str
    exchange: str
    event_types: tuple[str, ...]
    read_project_id: Callable[[str, Payload], str]
    read_resource_id: Callable[[str, Payload], str]
    read_resources: Callable[[str, Payload], Sequence[Resource]]
    resource_types: Mapping[str, str]
    actions: Mapping[str, str] = field(default_factory=dict)
    is_report: Callable[[Payload], bool] = lambda _: False
    aliases: tuple[str, ...] = ()
    options: tuple[Option, ...] = ()
    exchange_reason: str = "the service's default, set here so that no other file changes it"
    secrets: tuple[tuple[str, str], ...] = ()
    drop_in_location: str = (
        "a file in the folder of its --config-dir, or the end of its configuration file"
    )


def as_text(value: object) -> str:
    """Return ``value`` if it is a string, else ""."""
    return value if isinstance(value, str) else ""


def get_nested(value: object, *path: str) -> object:
    """Return the value at ``path`` in nested objects, None if the path ends early."""
    for key in path:
        if not isinstance(value, dict):
            return None
        value = value.get(key)
    return value


def iterate_objects(value: object) -> Iterable[Payload]:
    """Yield the objects in ``value`` if it is a list; skip everything else in it."""
    if isinstance(value, list):
        for member in value:
            if isinstance(member, dict):
                yield member


_SINGLE_VALUE = (str, int, float)
_INTEGER_LIMIT = 1 << 63


def pick_values(data: object, names: Mapping[str, str]) -> dict[str, str | int | float | bool]:
    """Return the members of ``data`` that ``names`` lists, renamed as it says.

    Skip null, empty strings, lists, objects, and integers that do not fit into 64 bits.
    """
    values: dict[str, str | int | float | bool] = {}
    if isinstance(data, dict):
        for name, new_name in names.items():
            value = data.get(name)
            if value is None or value == "" or not isinstance(value, _SINGLE_VALUE):
                continue
            if isinstance(value, int) and not -_INTEGER_LIMIT <= value < _INTEGER_LIMIT:
                continue
            values[new_name] = value
    return values


AUDIT_PERIOD = {
    "audit_period_beginning": "audit_period_beginning",
    "audit_period_ending": "audit_period_ending",
}
"""The period that a periodic report (``*.exists``) covers."""
