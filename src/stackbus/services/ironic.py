"""Ironic, bare metal: ``ironic_object.*`` on exchange ``ironic``, under a topic of its own."""

from __future__ import annotations

from stackbus.services.service import (
    Option,
    Payload,
    Resource,
    Service,
    inside,
    picked,
    text,
)


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


_ATTRIBUTES = {
    "provision_state": "state",
    "state": "state",
    "power_state": "power_state",
    "to_power": "target_power_state",
    "target_provision_state": "target_state",
    "previous_provision_state": "old_state",
    "maintenance": "maintenance",
    "maintenance_reason": "maintenance_reason",
    "resource_class": "resource_class",
    "driver": "driver",
    "instance_uuid": "server_id",
    "node_uuid": "node_id",
    "address": "mac_address",
    "last_error": "reason",
}
_HARDWARE = {"cpus": "vcpus", "memory_mb": "memory_mb", "local_gb": "disk_gb", "cpu_arch": "arch"}


def read(event_type: str, payload: Payload) -> list[Resource]:
    """Read the resource, with what a node's properties say of its size."""
    data = payload.get("ironic_object.data", payload)
    identifier = resource(event_type, payload) or ""
    attributes = {**picked(inside(data, "properties"), _HARDWARE), **picked(data, _ATTRIBUTES)}
    return [
        Resource(
            identifier,
            text(inside(data, "name")) or "",
            project(event_type, payload) or "",
            {name: value for name, value in attributes.items() if value != identifier},
        )
    ]


IRONIC = Service(
    name="ironic",
    type="baremetal",
    aliases=("bare-metal",),
    exchange="ironic",
    event_types=("baremetal", "hardware"),
    project=project,
    resource=resource,
    read=read,
    resources={
        "baremetal.node": "node",
        "baremetal.port": "port",
        "baremetal.portgroup": "port_group",
        "baremetal.chassis": "chassis",
        "baremetal.allocation": "allocation",
        "baremetal.deploytemplate": "deploy_template",
        "baremetal.runbook": "runbook",
        "baremetal.volumeconnector": "volume_connector",
        "baremetal.volumetarget": "volume_target",
        "hardware": "node",
    },
    actions={
        "maintenance_set": "set_maintenance",
        "console_set": "set_console",
        "power_set": "set_power",
        "provision_set": "set_provision_state",
        "power_state_corrected": "correct_power",
    },
    options=(
        Option("DEFAULT", "notification_level", "info", "unset, Ironic sends nothing at all"),
    ),
)
