"""Normalise: turn one notification into events, each with actor, action, resource and outcome.

Pure. The recorder hands over each body that a channel delivered; the events go on to the history.
This file reads the parts that are the same for all services: actor, time, priority, outcome. The
service's file (``services/<service>.py``) reads the resources, ``actions.py`` translates actions.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache

import msgspec

from stackbus.errors import Unreadable
from stackbus.events import cadf_http
from stackbus.events.actions import EXISTS, NO_PHASE, PHASES, SYNONYMS
from stackbus.events.envelope import ContextNotification, decode_with_context, read_priority
from stackbus.events.model import Event
from stackbus.services import BY_NAME, find_service
from stackbus.services.neutron import NEUTRON
from stackbus.services.service import (
    SHARED_EXCHANGE,
    Payload,
    Resource,
    Service,
    as_text,
    get_nested,
)

_EMPTY: Payload = {}
_OUTCOMES = {"success": "success", "failure": "failure"}
_PUBLISHER = re.compile(r"[^.:]*[.:]([^@]*)")
_FIRST_YEAR, _END_YEAR = 1970, 2200
"""The years of which the history can sort a time (ClickHouse's DateTime64 and its dates)."""


@dataclass(frozen=True, slots=True)
class _Kind:
    """The parts of an event type."""

    resource_type: str
    action: str
    phase: str


def normalise(body: bytes, channel: str, received: datetime, service_name: str = "") -> list[Event]:
    """Return one event for each resource that a notification names, and at least one.

    ``service_name`` is the service that published it, if the channel knows. An event that stackbus
    does not recognise keeps its payload; its ``service`` or its ``resource_type`` is empty.

    Raises Unreadable; its reason quotes nothing of the body.
    """
    notification = decode_with_context(body)
    try:
        payload = msgspec.json.decode(notification.payload)
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
        raise Unreadable(f"its payload cannot be read: {type(error).__name__}") from error
    fields: Payload = payload if isinstance(payload, dict) else _EMPTY
    service = BY_NAME.get(service_name) or _guess_service(notification.event_type, fields)
    if notification.event_type.startswith(cadf_http.EVENT_TYPE_PREFIX):
        name = cadf_http.read_service(fields)
        kind = _read_http_kind(notification.event_type, fields)
        resources = [cadf_http.read_resource(fields)]
    elif service is not None:
        name = service.name
        kind = _read_kind(service.name, notification.event_type)
        if service.is_report(fields):
            kind = _Kind(kind.resource_type, EXISTS, NO_PHASE)
        resources = list(service.read_resources(notification.event_type, fields))
        if isinstance(payload, str):  # a failed image.upload of Glance
            resources = [Resource(attributes={"reason": payload})]
    else:
        name, kind, resources = "", _split("", "", notification.event_type), [Resource()]
    return _build_events(notification, name, kind, resources, fields, channel, received)


def _build_events(
    notification: ContextNotification,
    service: str,
    kind: _Kind,
    resources: list[Resource],
    payload: Payload,
    channel: str,
    received: datetime,
) -> list[Event]:
    priority = read_priority(notification)
    time = _parse_time(notification.timestamp)
    actor = _read_actor(notification, payload)
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
            outcome=_decide_outcome(kind, priority, payload, resource),
            priority=priority,
            publisher=notification.publisher_id,
            host=_read_host(notification.publisher_id),
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
    """The user who caused a notification, the request, and the address it came from."""

    user_id: str
    user_name: str
    project_id: str
    request_id: str
    global_request_id: str
    address: str


def _read_actor(notification: ContextNotification, payload: Payload) -> _Actor:
    """Read the actor from the request context, else CADF's initiator, else a versioned payload.

    Keystone may hash CADF's ``initiator.id``, so it counts only for keystonemiddleware's audit
    filter, which has no other user id.
    """
    initiator = payload.get("initiator")
    data = payload.get("nova_object.data")
    is_http = notification.event_type.startswith(cadf_http.EVENT_TYPE_PREFIX)
    return _Actor(
        user_id=as_text(notification.context_user_id)
        or as_text(notification.context_user)
        or as_text(get_nested(initiator, "user_id"))
        or as_text(get_nested(data, "action_initiator_user"))
        or (as_text(get_nested(initiator, "id")) if is_http else ""),
        user_name=as_text(notification.context_user_name)
        or as_text(get_nested(initiator, "username"))
        or as_text(get_nested(initiator, "name")),
        project_id=as_text(notification.context_project_id)
        or as_text(notification.context_tenant)
        or as_text(get_nested(initiator, "project_id"))
        or as_text(get_nested(data, "action_initiator_project")),
        request_id=as_text(notification.context_request_id)
        or as_text(get_nested(initiator, "request_id"))
        or as_text(get_nested(data, "request_id")),
        global_request_id=as_text(notification.context_global_request_id)
        or as_text(get_nested(initiator, "global_request_id")),
        address=as_text(get_nested(initiator, "host", "address"))
        or as_text(notification.context_remote_address),
    )


def _decide_outcome(kind: _Kind, priority: str, payload: Payload, resource: Resource) -> str:
    """Return CADF's outcome if there is one, else decide by phase, priority and state.

    The end of a creation whose resource is in state ``error`` is a failure: Cinder's backups fail
    with an event ``backup.create.end``.
    """
    if outcome := as_text(payload.get("outcome")):
        return _OUTCOMES.get(outcome, "unknown")
    has_exception = isinstance(payload.get("exception"), str)
    if kind.phase == "error" or priority in {"error", "critical"} or has_exception:
        return "failure"
    if kind.phase == "start" or kind.action in {"", EXISTS}:
        return "unknown"
    if kind.action == "create" and resource.attributes.get("state") == "error":
        return "failure"
    return "success"


def _guess_service(event_type: str, payload: Payload) -> Service | None:
    """Find the service by the event type. Masakari and Neutron both have segments."""
    if event_type.startswith("segment.") and "masakari_object.data" not in payload:
        return NEUTRON
    return find_service(SHARED_EXCHANGE, event_type)


def _read_http_kind(event_type: str, payload: Payload) -> _Kind:
    action = cadf_http.read_action(payload)
    return _Kind(
        resource_type=cadf_http.read_resource_type(payload),
        action=SYNONYMS.get(action, action),
        phase="start" if event_type.endswith(".request") else "end",
    )


@lru_cache(maxsize=4096)
def _read_kind(service_name: str, event_type: str) -> _Kind:
    """Split an event type at the longest prefix that the service lists as a resource type."""
    service = BY_NAME[service_name]
    words = event_type.split(".")
    for count in range(len(words), 0, -1):
        prefix = ".".join(words[:count])
        if resource_type := service.resource_types.get(prefix):
            return _split(resource_type, prefix, event_type, service)
    return _split("", words[0], event_type, service)


def _split(
    resource_type: str, prefix: str, event_type: str, service: Service | None = None
) -> _Kind:
    """Split the words after ``prefix`` into action and phase."""
    words = [word for word in event_type.removeprefix(prefix).split(".") if word]
    phase = NO_PHASE
    if words and words[-1] in PHASES:
        phase = PHASES[words.pop()]
    action = "_".join(words)
    translation = None
    if service is not None:
        translation = service.actions.get(event_type) or service.actions.get(action)
    return _Kind(resource_type, translation or SYNONYMS.get(action, action), phase)


def _read_host(publisher: str) -> str:
    """Read the host of ``compute.host-1``, ``nova-compute:host-1`` or ``volume.host-1@lvm#pool``.

    Nova's legacy ``aggregate.1`` names no host.
    """
    match = _PUBLISHER.match(publisher)
    return "" if match is None or match[1].isdecimal() else match[1]


def _parse_time(timestamp: str) -> datetime:
    """Parse oslo's timestamp, naive UTC.

    Raises Unreadable for anything else, and for a year that the history cannot sort: an event is
    stored in the order of its time.
    """
    try:
        moment = datetime.fromisoformat(timestamp)
        moment = moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    except (ValueError, OverflowError):
        raise Unreadable("no notification: its timestamp is not a time") from None
    if not _FIRST_YEAR <= moment.year < _END_YEAR:
        raise Unreadable("no notification: its timestamp is before 1970 or after 2199")
    return moment
