"""Masakari, instance high availability: ``masakari_object.*`` under a topic fixed in its code."""

from __future__ import annotations

from stackbus.services.service import Payload, Service, inside, text


def project(event_type: str, payload: Payload) -> str | None:
    """Give None: segments, hosts and their failures belong to no project (masakari/objects)."""
    del event_type, payload
    return None


def resource(event_type: str, payload: Payload) -> str | None:
    """Read ``uuid`` of the object, or ``notification_uuid``; a start of a creation has none."""
    del event_type
    data = payload.get("masakari_object.data")
    return text(inside(data, "notification_uuid")) or text(inside(data, "uuid"))


MASAKARI = Service(
    name="masakari",
    type="instance-ha",
    aliases=("ha",),
    exchange="masakari",
    event_types=("segment", "host", "notification"),
    project=project,
    resource=resource,
)
