"""The label that a notification bears on the outer bus. Pure.

Called by ``relay/relay.py`` with what was decoded and scrubbed; ``expose/topology.py`` binds the
topics by the routing keys made here: ``<priority>.<service>.<project>.<event_type>``.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime

import msgspec

from stackbus.events.envelope import Notification, read_priority
from stackbus.services import find_service
from stackbus.services.service import PROJECT_ID, UNKNOWN

_SHORT_STRING = 255
"""Bytes of a routing key and of a property at most (AMQP 0-9-1, section 4.2.5.3)."""


@dataclass(frozen=True, slots=True)
class Label:
    """Where a notification goes on the outer bus, and what its properties say."""

    routing_key: str
    service: str
    message_id: str
    event_type: str
    timestamp: int | None


def label(exchange: str, notification: Notification) -> Label:
    """Label a notification that came over the control exchange ``exchange``.

    Raises Unreadable for a priority that is none of oslo.messaging's seven.
    """
    priority = read_priority(notification)
    service = find_service(exchange, notification.event_type)
    name, project = UNKNOWN, None
    if service is not None:
        name = service.name
        payload = _payload(notification)
        if isinstance(payload, dict):
            project = service.read_project_id(notification.event_type, payload)
    if project is None or not PROJECT_ID.fullmatch(project):
        project = UNKNOWN
    return Label(
        routing_key=_short(f"{priority}.{name}.{project}.{notification.event_type}"),
        service=name,
        message_id=_short(notification.message_id),
        event_type=_short(notification.event_type),
        timestamp=_seconds(notification.timestamp),
    )


def _payload(notification: Notification) -> object:
    try:
        return msgspec.json.decode(notification.payload)
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        return None


def _short(text: str) -> str:
    """Cut ``text`` to what a short string of AMQP holds, at a character's end."""
    raw = text.encode("utf-8", "replace")
    return text if len(raw) <= _SHORT_STRING else raw[:_SHORT_STRING].decode("utf-8", "ignore")


def _seconds(timestamp: str) -> int | None:
    """Read oslo's naive UTC timestamp as seconds since 1970; None if it is none or before."""
    try:
        moment = datetime.fromisoformat(timestamp)
    except ValueError:
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    seconds = int(moment.timestamp())
    return seconds if seconds >= 0 else None
