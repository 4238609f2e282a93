"""Ironic, bare metal: nodes, ports, allocations and the rest of its API.

- Publishes versioned objects (``ironic_object.*``) under ``ironic_versioned_notifications``, and
  sensor data as plain JSON objects under ``notifications``, on exchange ``ironic``.
- Needs ``notification_level``: without it, Ironic sends nothing.
- Payload: ``uuid``, ``owner`` and ``lessee`` in ``ironic_object.data`` (ironic/objects/node.py).
"""

from __future__ import annotations

from stackbus.services.service import (
    Option,
    Payload,
    Resource,
    Service,
    as_text,
    get_nested,
    pick_values,
)


def read_project_id(event_type: str, payload: Payload) -> str:
    """Read ``owner``, else ``lessee``; ports, chassis and sensor data have neither."""
    del event_type
    data = payload.get("ironic_object.data")
    return as_text(get_nested(data, "owner")) or as_text(get_nested(data, "lessee"))


def read_resource_id(event_type: str, payload: Payload) -> str:
    """Read the object's ``uuid``; sensor data has its node's ``node_uuid``."""
    del event_type
    data = payload.get("ironic_object.data", payload)
    return as_text(get_nested(data, "uuid")) or as_text(get_nested(data, "node_uuid"))


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


def read_resources(event_type: str, payload: Payload) -> list[Resource]:
    """Read the resource; a node's properties give its size."""
    data = payload.get("ironic_object.data", payload)
    identifier = read_resource_id(event_type, payload)
    attributes = {
        **pick_values(get_nested(data, "properties"), _HARDWARE),
        **pick_values(data, _ATTRIBUTES),
    }
    return [
        Resource(
            id=identifier,
            name=as_text(get_nested(data, "name")),
            project_id=read_project_id(event_type, payload),
            attributes={name: value for name, value in attributes.items() if value != identifier},
        )
    ]


IRONIC = Service(
    name="ironic",
    type="baremetal",
    aliases=("bare-metal",),
    exchange="ironic",
    event_types=("baremetal", "hardware"),
    read_project_id=read_project_id,
    read_resource_id=read_resource_id,
    read_resources=read_resources,
    resource_types={
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
        Option(
            "DEFAULT", "notification_level", "info", "without it, Ironic sends no notifications"
        ),
    ),
)
