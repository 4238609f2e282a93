"""Notification to events: who did what to which resource, with which result. Pure.

Called by ``record/recorder.py`` with each body that came over a channel; the events go on to
``history/``. What all services have in common is read here; what is a service's own, in its file
(``services/<service>.py``); the vocabulary is in ``actions.py``.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache

import msgspec

from stackbus.bus.routing import parse_priority
from stackbus.errors import Unreadable
from stackbus.events import audit
from stackbus.events.actions import EXISTS, NO_PHASE, PHASES, SYNONYMS
from stackbus.events.envelope import Told, told
from stackbus.events.model import Event
from stackbus.services import BY_NAME, emitter
from stackbus.services.neutron import NEUTRON
from stackbus.services.service import (
    SHARED_EXCHANGE,
    Payload,
    Resource,
    Service,
    inside,
    text,
)

_NOTHING: Payload = {}
_OUTCOMES = {"success": "success", "failure": "failure"}
_PUBLISHER = re.compile(r"[^.:]*[.:]([^@]*)")
_EARLIEST, _LATEST = 1970, 2200
"""The years between which the history can sort a time (ClickHouse's DateTime64 and its dates)."""


@dataclass(frozen=True, slots=True)
class _Kind:
    """What an event type says by itself."""

    resource_type: str
    action: str
    phase: str


def normalise(body: bytes, channel: str, received: datetime, emitted_by: str = "") -> list[Event]:
    """Read one body: one event for each resource it tells of, at least one.

    ``emitted_by`` is the service's name, where the channel knows it. What no service is known to
    send stays whole: its ``service`` or its ``resource_type`` is empty. Raises Unreadable with a
    reason that quotes nothing of the body.
    """
    notification = told(body)
    try:
        payload = msgspec.json.decode(notification.payload)
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
        raise Unreadable(f"its payload cannot be read: {type(error).__name__}") from error
    fields: Payload = payload if isinstance(payload, dict) else _NOTHING
    service = BY_NAME.get(emitted_by) or _emitter(notification.event_type, fields)
    if notification.event_type.startswith(audit.TYPE):
        name = audit.service(fields)
        kind = _Kind(
            audit.resource_type(fields),
            SYNONYMS.get(audit.action(fields), audit.action(fields)),
            "start" if notification.event_type.endswith(".request") else "end",
        )
        resources = [audit.read(fields)]
    elif service is not None:
        name = service.name
        kind = _kind(service.name, notification.event_type)
        if service.is_report(fields):
            kind = _Kind(kind.resource_type, EXISTS, NO_PHASE)
        resources = list(service.read(notification.event_type, fields))
        if isinstance(payload, str):  # Glance's failed upload
            resources = [Resource(attributes={"reason": payload})]
    else:
        name, kind, resources = "", _split("", "", notification.event_type), [Resource()]
    return _events(notification, name, kind, resources, fields, channel, received)


def _events(
    notification: Told,
    service: str,
    kind: _Kind,
    resources: list[Resource],
    payload: Payload,
    channel: str,
    received: datetime,
) -> list[Event]:
    priority = _priority(notification.priority)
    time = _time(notification.timestamp)
    actor = _actor(notification, payload)
    told_outcome = text(payload.get("outcome"))
    error = isinstance(payload.get("exception"), str)
    return [
        Event(
            id=notification.message_id,
            index=index,
            time=time,
            received=received,
            service=service,
            type=notification.event_type,
            action=kind.action,
            phase=kind.phase,
            outcome=_outcome(kind, priority, told_outcome, resource, error=error),
            priority=priority,
            publisher=notification.publisher_id,
            host=_host(notification.publisher_id),
            resource_type=kind.resource_type,
            resource_id=resource.id,
            resource_name=resource.name,
            project_id=resource.project_id,
            user_id=actor.user_id,
            user_name=actor.user_name,
            actor_project_id=actor.project_id,
            request_id=actor.request_id,
            global_request_id=actor.global_request_id,
            address=actor.address,
            attributes=resource.attributes,
            payload=notification.payload,
            channels=(channel,),
        )
        for index, resource in enumerate(resources)
    ]


class _Actor(msgspec.Struct, frozen=True, gc=False):
    """Who did it, from where, in which request."""

    user_id: str
    user_name: str
    project_id: str
    request_id: str
    global_request_id: str
    address: str


def _actor(notification: Told, payload: Payload) -> _Actor:
    """Read the actor: the request context's, CADF's initiator, or what a versioned payload says.

    CADF's ``initiator.id`` may be hashed where Keystone told it, so it counts for
    keystonemiddleware alone, which gives no other.
    """
    initiator = payload.get("initiator")
    data = payload.get("nova_object.data")
    audited = notification.event_type.startswith(audit.TYPE)
    return _Actor(
        user_id=text(notification.context_user_id)
        or text(notification.context_user)
        or text(inside(initiator, "user_id"))
        or text(inside(data, "action_initiator_user"))
        or (text(inside(initiator, "id")) if audited else None)
        or "",
        user_name=text(notification.context_user_name)
        or text(inside(initiator, "username"))
        or text(inside(initiator, "name"))
        or "",
        project_id=text(notification.context_project_id)
        or text(notification.context_tenant)
        or text(inside(initiator, "project_id"))
        or text(inside(data, "action_initiator_project"))
        or "",
        request_id=text(notification.context_request_id)
        or text(inside(initiator, "request_id"))
        or text(inside(data, "request_id"))
        or "",
        global_request_id=text(notification.context_global_request_id)
        or text(inside(initiator, "global_request_id"))
        or "",
        address=text(inside(initiator, "host", "address"))
        or text(notification.context_remote_address)
        or "",
    )


def _outcome(
    kind: _Kind, priority: str, told_outcome: str | None, resource: Resource, *, error: bool
) -> str:
    """Tell how it went: what is told counts, then the phase, then the priority.

    The end of a creation that left its resource in state ``error`` is a failure, whatever it is
    called: Cinder's backups end so.
    """
    if told_outcome is not None:
        return _OUTCOMES.get(told_outcome, "unknown")
    if kind.phase == "error" or priority in {"error", "critical"} or error:
        return "failure"
    if kind.phase == "start" or kind.action in {"", EXISTS}:
        return "unknown"
    if kind.action == "create" and resource.attributes.get("state") == "error":
        return "failure"
    return "success"


def _emitter(event_type: str, payload: Payload) -> Service | None:
    """Tell the service by the event type. Masakari and Neutron both have segments."""
    if event_type.startswith("segment.") and "masakari_object.data" not in payload:
        return NEUTRON
    return emitter(SHARED_EXCHANGE, event_type)


@lru_cache(maxsize=4096)
def _kind(service_name: str, event_type: str) -> _Kind:
    service = BY_NAME[service_name]
    words = event_type.split(".")
    for count in range(len(words), 0, -1):
        prefix = ".".join(words[:count])
        if resource_type := service.resources.get(prefix):
            return _split(resource_type, prefix, event_type, service)
    return _split("", words[0], event_type, service)


def _split(
    resource_type: str, prefix: str, event_type: str, service: Service | None = None
) -> _Kind:
    """Split what follows ``prefix`` into action and phase."""
    rest = event_type.removeprefix(prefix).removeprefix(".")
    words = [word for word in rest.split(".") if word]
    phase = NO_PHASE
    if words and words[-1] in PHASES:
        phase = PHASES[words.pop()]
    action = "_".join(words)
    own = (service.actions.get(event_type) or service.actions.get(action)) if service else None
    return _Kind(resource_type, own or SYNONYMS.get(action, action), phase)


def _priority(told_priority: str) -> str:
    priority = parse_priority(told_priority)
    if priority is None:
        raise Unreadable("no notification: its priority is none of oslo.messaging's seven")
    return priority


def _host(publisher: str) -> str:
    """Give the host in ``compute.host-1``, ``nova-compute:host-1``, ``volume.host-1@lvm#pool``.

    Nova's legacy ``aggregate.1`` names no host.
    """
    match = _PUBLISHER.match(publisher)
    return "" if match is None or match[1].isdecimal() else match[1]


def _time(timestamp: str) -> datetime:
    """Read oslo's naive UTC timestamp.

    Raises Unreadable for what is none, or lies outside the years that the history can sort: the
    time is part of an event's place in it.
    """
    try:
        moment = datetime.fromisoformat(timestamp)
        moment = moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    except (ValueError, OverflowError):
        raise Unreadable("no notification: its timestamp is none") from None
    if not _EARLIEST <= moment.year < _LATEST:
        raise Unreadable("no notification: its timestamp is before 1970 or after 2199")
    return moment
