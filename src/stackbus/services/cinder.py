"""Cinder, block storage: volumes, snapshots, backups, groups and volume types.

- Publishes plain JSON objects under ``notifications``. Its default exchange is the shared
  ``openstack``; the drop-in gives it one of its own.
- Needs no option. ``cinder-volume-usage-audit`` in cron sends the periodic ``*.exists``.
- Payload: ``<resource>_id`` and ``tenant_id`` (cinder/volume/volume_utils.py). Volume types carry
  an object of their own; the scheduler's events carry the whole request instead.
"""

from __future__ import annotations

from stackbus.services.service import (
    AUDIT_PERIOD,
    Payload,
    Resource,
    Service,
    as_text,
    get_nested,
    iterate_objects,
    pick_values,
)


def read_project_id(event_type: str, payload: Payload) -> str:
    """Read ``tenant_id`` or ``project_id``, in the scheduler's events from the request."""
    del event_type
    spec = payload.get("request_spec")
    return (
        as_text(payload.get("tenant_id"))
        or as_text(payload.get("project_id"))
        or as_text(get_nested(spec, "volume", "project_id"))
        or as_text(get_nested(spec, "volume_properties", "project_id"))
    )


def read_resource_id(event_type: str, payload: Payload) -> str:
    """Read ``<resource>_id``, or ``id``; a volume type's id is inside its object."""
    kind = event_type.partition(".")[0]
    kind = {"scheduler": "volume", "volume_type_extra_specs": "type"}.get(kind, kind)
    kind = kind.removesuffix("_project")
    own_object = payload.get(f"{kind}s")
    return (
        as_text(payload.get(f"{kind}_id"))
        or as_text(get_nested(own_object, "id"))
        or as_text(payload.get("id"))
    )


_ATTRIBUTES = {
    "size": "size_gb",
    "volume_size": "size_gb",
    "volume_type": "volume_type",
    "volume_type_id": "volume_type",
    "group_type": "group_type",
    "status": "state",
    "state": "state",
    "availability_zone": "availability_zone",
    "host": "host",
    "volume_id": "volume_id",
    "snapshot_id": "snapshot_id",
    "reason": "reason",
    "fail_reason": "reason",
    **AUDIT_PERIOD,
}


def read_resources(event_type: str, payload: Payload) -> list[Resource]:
    """Read the resource; for an attached volume also its server's id."""
    identifier = read_resource_id(event_type, payload)
    own_object = payload.get(f"{event_type.partition('.')[0]}s")
    attributes = {
        **pick_values(payload.get("volume_properties"), _ATTRIBUTES),
        **pick_values(payload, _ATTRIBUTES),
    }
    attributes = {name: value for name, value in attributes.items() if value != identifier}
    for attachment in iterate_objects(payload.get("volume_attachment")):
        if server := as_text(attachment.get("instance_uuid")):
            attributes["server_id"] = server
    name = (
        as_text(payload.get("display_name"))
        or as_text(payload.get("name"))
        or as_text(get_nested(own_object, "name"))
    )
    return [
        Resource(
            id=identifier,
            name=name,
            project_id=read_project_id(event_type, payload),
            attributes=attributes,
        )
    ]


def is_report(payload: Payload) -> bool:
    """Return whether ``cinder-volume-usage-audit --send_actions`` sent this.

    It sends the creations and deletions of a period once more, under the same event types. Only
    its notifications name the period (cinder/cmd/volume_usage_audit.py).
    """
    return "audit_period_beginning" in payload


CINDER = Service(
    name="cinder",
    type="block-storage",
    aliases=("volume", "volumev2", "volumev3"),
    exchange="cinder",
    event_types=(
        "volume",
        "snapshot",
        "backup",
        "group",
        "group_snapshot",
        "group_type",
        "group_type_specs",
        "consistencygroup",
        "cgsnapshot",
        "capacity",
        "volume_type",
        "volume_type_project",
        "volume_type_extra_specs",
        "volume_type_encryption",
        "qos_specs",
        "scheduler",
    ),
    read_project_id=read_project_id,
    read_resource_id=read_resource_id,
    read_resources=read_resources,
    is_report=is_report,
    resource_types={
        "volume": "volume",
        "snapshot": "snapshot",
        "backup": "backup",
        "group": "group",
        "group_snapshot": "group_snapshot",
        "group_type": "group_type",
        "group_type_specs": "group_type",
        "consistencygroup": "consistency_group",
        "cgsnapshot": "consistency_group_snapshot",
        "capacity": "backend_pool",
        "volume_type": "volume_type",
        "volume_type_project": "volume_type",
        "volume_type_extra_specs": "volume_type",
        "volume_type_encryption": "volume_type",
        "qos_specs": "qos_specs",
        "scheduler": "volume",
    },
    actions={
        "resize": "extend",  # cinder's volumes only grow
        "create_volume": "create",
        "volume_type_extra_specs.create": "update",
        "volume_type_extra_specs.delete": "update",
        "group_type_specs.create": "update",
        "group_type_specs.delete": "update",
        "access_add": "add_access",
        "access_remove": "remove_access",
    },
    exchange_reason=(
        "an exchange of its own; the default, openstack, is shared with Manila. "
        "This moves Cinder's RPC too: set it on all of Cinder's processes at once"
    ),
)
