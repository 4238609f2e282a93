"""Masakari, instance high availability: segments, hosts and failure notifications.

- Publishes versioned objects (``masakari_object.*``) on exchange ``masakari``, under
  ``versioned_notifications``, which is fixed in its code.
- Needs no option.
- Payload: ``uuid`` or ``notification_uuid`` in ``masakari_object.data`` (masakari/objects). No
  event names a project.
"""

from __future__ import annotations

from stackbus.services.service import Payload, Resource, Service, as_text, get_nested, pick_values


def read_project_id(event_type: str, payload: Payload) -> str:
    """Return "": Masakari's resources belong to no project."""
    del event_type, payload
    return ""


def read_resource_id(event_type: str, payload: Payload) -> str:
    """Read ``notification_uuid`` or ``uuid``; the start of a creation has neither."""
    del event_type
    data = payload.get("masakari_object.data")
    return as_text(get_nested(data, "notification_uuid")) or as_text(get_nested(data, "uuid"))


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


def read_resources(event_type: str, payload: Payload) -> list[Resource]:
    """Read the resource, and for a failure the server and the reason why recovery failed."""
    data = payload.get("masakari_object.data")
    attributes = pick_values(data, _ATTRIBUTES)
    if server := as_text(get_nested(data, "payload", "instance_uuid")):
        attributes["server_id"] = server
    fault = get_nested(data, "fault", "masakari_object.data", "exception_message")
    if reason := as_text(fault):
        attributes["reason"] = reason
    segment = get_nested(data, "failover_segment", "masakari_object.data", "uuid")
    if segment_id := as_text(segment):
        attributes["segment_id"] = segment_id
    return [
        Resource(
            id=read_resource_id(event_type, payload),
            name=as_text(get_nested(data, "name")),
            attributes=attributes,
        )
    ]


MASAKARI = Service(
    name="masakari",
    type="instance-ha",
    aliases=("ha",),
    exchange="masakari",
    event_types=("segment", "host", "notification"),
    read_project_id=read_project_id,
    read_resource_id=read_resource_id,
    read_resources=read_resources,
    resource_types={"segment": "segment", "host": "host", "notification": "notification"},
)
