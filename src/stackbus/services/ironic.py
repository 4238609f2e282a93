"""Ironic, bare metal: ``ironic_object.*`` on exchange ``ironic``, under a topic of its own."""

from __future__ import annotations

from stackbus.services.service import Option, Payload, Service, inside, text


def project(event_type: str, payload: Payload) -> str | None:
    """Read the owner's project: ``owner``, else ``lessee`` (ironic/objects/node.py).

    Ports and chassis have neither; sensor data (unversioned) has no project.
    """
    del event_type
    data = payload.get("ironic_object.data")
    return text(inside(data, "owner")) or text(inside(data, "lessee"))


def resource(event_type: str, payload: Payload) -> str | None:
    """Read ``uuid`` of the object, a node's for sensor data."""
    del event_type
    data = payload.get("ironic_object.data", payload)
    return text(inside(data, "uuid")) or text(inside(data, "node_uuid"))


IRONIC = Service(
    name="ironic",
    type="baremetal",
    aliases=("bare-metal",),
    exchange="ironic",
    event_types=("baremetal", "hardware"),
    project=project,
    resource=resource,
    options=(
        Option("DEFAULT", "notification_level", "info", "unset, Ironic sends nothing at all"),
    ),
)
