"""Masakari, instance high availability: ``masakari_object.*`` under a topic fixed in its code."""

from __future__ import annotations

from stackbus.services.service import Payload, Resource, Service, inside, picked, text


def project(event_type: str, payload: Payload) -> str | None:
    """Give None: segments, hosts and their failures belong to no project (masakari/objects)."""
    del event_type, payload
    return None


def resource(event_type: str, payload: Payload) -> str | None:
    """Read ``uuid`` of the object, or ``notification_uuid``; a start of a creation has none."""
    del event_type
    data = payload.get("masakari_object.data")
    return text(inside(data, "notification_uuid")) or text(inside(data, "uuid"))


_ATTRIBUTES = {
    "status": "state",
    "type": "type",
    "service_type": "service_type",
    "recovery_method": "recovery_method",
    "enabled": "enabled",
    "reserved": "reserved",
    "on_maintenance": "on_maintenance",
    "source_host_uuid": "host_id",
}


def read(event_type: str, payload: Payload) -> list[Resource]:
    """Read the resource, the server that a failure is about, and why its recovery failed."""
    data = payload.get("masakari_object.data")
    attributes = picked(data, _ATTRIBUTES)
    if server := text(inside(data, "payload", "instance_uuid")):
        attributes["server_id"] = server
    fault = inside(data, "fault", "masakari_object.data", "exception_message")
    if reason := text(fault):
        attributes["reason"] = reason
    segment = inside(data, "failover_segment", "masakari_object.data", "uuid")
    if identifier := text(segment):
        attributes["segment_id"] = identifier
    return [
        Resource(
            resource(event_type, payload) or "",
            text(inside(data, "name")) or "",
            "",
            attributes,
        )
    ]


MASAKARI = Service(
    name="masakari",
    type="instance-ha",
    aliases=("ha",),
    exchange="masakari",
    event_types=("segment", "host", "notification"),
    project=project,
    resource=resource,
    read=read,
    resources={"segment": "segment", "host": "host", "notification": "notification"},
)
