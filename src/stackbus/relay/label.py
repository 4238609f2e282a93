"""The label of a notification on the outer bus, read from the notification. Pure.

``relay.py`` calls ``label`` after decoding and scrubbing, and publishes with the result. Topics are
bound by the routing keys that are made here.
"""

from __future__ import annotations

from datetime import UTC, datetime

import msgspec

from stackbus.bus.message import Label
from stackbus.bus.routing import PROJECT_ID, UNKNOWN, RoutingKey, short_string
from stackbus.events.envelope import Notification, read_priority
from stackbus.services import find_service


def label(exchange: str, notification: Notification) -> Label:
    """Return the label of a notification that arrived over the control exchange ``exchange``.

    Raises Unreadable for a priority that is not one of oslo.messaging's seven.
    """
    priority = read_priority(notification)
    event_type = notification.event_type
    service = find_service(exchange, event_type)
    project = ""
    if service is not None:
        payload = _decode_payload(notification)
        if isinstance(payload, dict):
            project = service.read_project_id(event_type, payload)
    if not PROJECT_ID.fullmatch(project):
        project = UNKNOWN
    name = service.name if service else UNKNOWN
    return Label(
        routing_key=str(RoutingKey(priority, name, project, event_type)),
        service=name,
        message_id=short_string(notification.message_id),
        event_type=short_string(event_type),
        timestamp=_unix_seconds(notification.timestamp),
    )


def _decode_payload(notification: Notification) -> object:
    try:
        return msgspec.json.decode(notification.payload)
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        return None


def _unix_seconds(timestamp: str) -> int | None:
    """Return oslo's naive UTC timestamp as seconds since 1970; None if AMQP cannot carry it."""
    try:
        moment = datetime.fromisoformat(timestamp)
    except ValueError:
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    seconds = int(moment.timestamp())
    return seconds if seconds >= 0 else None
