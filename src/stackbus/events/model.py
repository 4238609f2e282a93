"""Event: a notification in stackbus' own shape, and the only list of its fields.

``normalise.py`` makes events, ``history/`` stores them, ``query/`` and the doors return them. The
table's columns, filters, options of the command line, printed columns and the reference page follow
from this list. To add a field, append it to ``Event`` and to a new version of HASHED_FIELDS (which
``history/chain.py`` hashes), and add its column by a migration (``history/schema/``).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any, get_args, get_type_hints

import msgspec

from stackbus.bus.names import PRIORITIES
from stackbus.events.actions import NO_PHASE, OUTCOMES, PHASES
from stackbus.services import SERVICES
from stackbus.services.service import Attributes

BUS = "bus"
"""The channel of notifications that came over the bus."""


def _field(description: str, *words: str) -> msgspec.Meta:
    """Describe a field; ``words`` are all its values, where there are few."""
    return msgspec.Meta(
        description=description, extra_json_schema={"enum": list(words)} if words else None
    )


class Event(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What one notification says about one resource; an unknown text is empty.

    ``id`` and ``index`` together are the event's identity. Names and their order are a contract: a
    new field is appended, so that programs can read the CSV output by position, and each version of
    the hashed form begins with the one before.
    """

    id: Annotated[str, _field("the notification's message_id: the same over every channel")]
    index: Annotated[
        int, _field("number of the resource within the notification, from 0: one event for each")
    ]
    time: Annotated[datetime, _field("time at which the service sent it, UTC, to the microsecond")]
    received: Annotated[datetime, _field("time at which the recorder received it")]
    service: Annotated[
        str,
        _field(
            "OpenStack service: nova, keystone, ...; empty if it is none of the ten",
            *(service.name for service in SERVICES),
            "",
        ),
    ]
    type: Annotated[str, _field("event type, as the service sent it, for example `instance.*`")]
    action: Annotated[
        str, _field("action, in one vocabulary for all services: create, delete, login, ...")
    ]
    phase: Annotated[
        str,
        _field(
            f"part of the action: start, end, error, or {NO_PHASE} of one that is not divided",
            *dict.fromkeys(PHASES.values()),
            NO_PHASE,
        ),
    ]
    outcome: Annotated[
        str, _field("success, failure, or unknown, as that of every start", *OUTCOMES)
    ]
    priority: Annotated[
        str, _field("priority in oslo.messaging, in lower case: info, error, ...", *PRIORITIES)
    ]
    publisher: Annotated[str, _field("publisher_id, as the service sent it")]
    host: Annotated[str, _field("host in the publisher_id")]
    resource_type: Annotated[
        str,
        _field(
            "type of the resource, in openstacksdk's words: server, volume, ...; empty if stackbus "
            "does not know the event type"
        ),
    ]
    resource_id: Annotated[str, _field("id of the resource")]
    resource_name: Annotated[str, _field("name of the resource")]
    project_id: Annotated[str, _field("id of the project that owns the resource")]
    user_id: Annotated[str, _field("id of the user who acted")]
    user_name: Annotated[str, _field("name of that user, if the notification has it")]
    actor_project_id: Annotated[
        str,
        _field("id of the project in which the user acted; often not the owner of the resource"),
    ]
    request_id: Annotated[str, _field("id of the request to the service")]
    global_request_id: Annotated[str, _field("id of the request that caused it in another service")]
    address: Annotated[str, _field("address from which the user acted, if the notification has it")]
    attributes: Annotated[
        Attributes,
        _field(
            "what counts for capacity and what explains an outcome: vcpus, memory_mb, disk_gb, "
            "size_gb, flavor, volume_type, state, availability_zone, reason, ..."
        ),
    ]
    payload: Annotated[msgspec.Raw, _field("payload of the notification, whole, scrubbed")]
    channels: Annotated[
        tuple[str, ...], _field("channels over which it came: bus, log, opensearch")
    ]
    region: Annotated[
        str, _field("region of the cloud, as the recorder's setting `region` names it")
    ] = ""

    def encode_json(self) -> str:
        """Return the event as one line of JSON."""
        return msgspec.json.encode(self).decode()


@dataclass(frozen=True, slots=True)
class FieldInfo:
    """One field of an event: its type, its meaning, and its values if they are few."""

    name: str
    type: Any
    description: str
    words: tuple[str, ...]


def _field_info(name: str, hint: Any) -> FieldInfo:
    field_type, meta = get_args(hint)
    words = (meta.extra_json_schema or {}).get("enum", ())
    return FieldInfo(name, field_type, meta.description, tuple(words))


FIELD_INFO: Mapping[str, FieldInfo] = {
    name: _field_info(name, hint)
    for name, hint in get_type_hints(Event, include_extras=True).items()
}
"""The fields by name, in the order in which they are printed."""

FIELDS = tuple(FIELD_INFO)
"""The fields' names, in that order."""

HASHED_FIELDS: Mapping[int, tuple[str, ...]] = {
    1: (
        "id", "index", "time", "received", "service", "type", "action", "phase", "outcome",
        "priority", "publisher", "host", "resource_type", "resource_id", "resource_name",
        "project_id", "user_id", "user_name", "actor_project_id", "request_id",
        "global_request_id", "address", "attributes", "payload", "channels",
    ),
    2: (
        "id", "index", "time", "received", "service", "type", "action", "phase", "outcome",
        "priority", "publisher", "host", "resource_type", "resource_id", "resource_name",
        "project_id", "user_id", "user_name", "actor_project_id", "request_id",
        "global_request_id", "address", "attributes", "payload", "channels", "region",
    ),
}  # fmt: skip
"""The fields that an event's hash covers, in order, by version of the hashed form.

A version that was released never changes: events recorded with it could no longer be verified. A
new field of ``Event`` is a new version whose list extends the one before.
"""

TEXT_FIELDS = tuple(name for name, info in FIELD_INFO.items() if info.type is str)
"""The fields that are texts. A question can filter and group events by each of them."""
