"""Cinder, block storage: unversioned dicts; by default on the shared exchange ``openstack``."""

from __future__ import annotations

from stackbus.services.service import (
    AUDIT_PERIOD,
    Payload,
    Resource,
    Service,
    inside,
    picked,
    several,
    text,
)


def project(event_type: str, payload: Payload) -> str | None:
    """Read the owner's project: ``tenant_id`` (cinder/volume/volume_utils.py).

    The scheduler's events carry the whole request instead.
    """
    del event_type
    spec = payload.get("request_spec")
    return (
        text(payload.get("tenant_id"))
        or text(payload.get("project_id"))
        or text(inside(spec, "volume", "project_id"))
        or text(inside(spec, "volume_properties", "project_id"))
    )


def resource(event_type: str, payload: Payload) -> str | None:
    """Read the id: ``<kind>_id`` (cinder/volume/volume_utils.py), a type's inside its object."""
    kind = event_type.partition(".")[0]
    kind = {"scheduler": "volume", "volume_type_extra_specs": "type"}.get(kind, kind)
    kind = kind.removesuffix("_project")
    inner = payload.get(f"{kind}s")
    return text(payload.get(f"{kind}_id")) or text(inside(inner, "id")) or text(payload.get("id"))


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


def read(event_type: str, payload: Payload) -> list[Resource]:
    """Read the resource; of a volume in use, which server uses it; of the scheduler, its wish."""
    identifier = resource(event_type, payload) or ""
    inner = payload.get(f"{event_type.partition('.')[0]}s")
    attributes = {
        **picked(payload.get("volume_properties"), _ATTRIBUTES),
        **picked(payload, _ATTRIBUTES),
    }
    attributes = {name: value for name, value in attributes.items() if value != identifier}
    for attachment in several(payload.get("volume_attachment")):
        if server := text(attachment.get("instance_uuid")):
            attributes["server_id"] = server
    name = (
        text(payload.get("display_name"))
        or text(payload.get("name"))
        or text(inside(inner, "name"))
    )
    return [Resource(identifier, name or "", project(event_type, payload) or "", attributes)]


def is_report(payload: Payload) -> bool:
    """Tell what ``cinder-volume-usage-audit --send_actions`` sends again from what happens.

    Only there creations and removals name the period that was audited
    (cinder/cmd/volume_usage_audit.py).
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
    project=project,
    resource=resource,
    read=read,
    is_report=is_report,
    resources={
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
    exchange_why=(
        "an exchange of its own; the default, openstack, is shared with Manila. "
        "It moves Cinder's RPC too: set it on all of Cinder's processes at once"
    ),
)
