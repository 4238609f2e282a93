"""Manila, shared file systems: shares and share types.

- Publishes plain JSON objects under ``notifications``. Its default exchange is the shared
  ``openstack``; the drop-in gives it one of its own.
- Needs no option. It has no periodic report.
- Payload: ``share_id`` and ``project_id`` (manila/share/share_utils.py). The scheduler's events
  carry the whole request instead.
"""

from __future__ import annotations

from stackbus.services.service import Payload, Resource, Service, as_text, get_nested, pick_values


def read_project_id(event_type: str, payload: Payload) -> str:
    """Read ``project_id``, in the scheduler's events from the request."""
    del event_type
    return as_text(payload.get("project_id")) or as_text(
        get_nested(payload, "request_spec", "share_properties", "project_id")
    )


def read_resource_id(event_type: str, payload: Payload) -> str:
    """Read ``<resource>_id``; a share type's id is inside its object."""
    kind = event_type.partition(".")[0]
    kind = {"scheduler": "share", "share_type_extra_specs": "type"}.get(kind, kind)
    return as_text(payload.get(f"{kind}_id")) or as_text(get_nested(payload.get(f"{kind}s"), "id"))


_ATTRIBUTES = {
    "size": "size_gb",
    "share_type": "share_type",
    "proto": "protocol",
    "share_proto": "protocol",
    "status": "state",
    "state": "state",
    "availability_zone": "availability_zone",
    "host": "host",
    "share_group_id": "share_group_id",
    "snapshot_id": "snapshot_id",
    "reason": "reason",
}


def read_resources(event_type: str, payload: Payload) -> list[Resource]:
    """Read the resource; a scheduler's event names the share that was requested."""
    requested_share = get_nested(payload, "request_spec", "share_properties")
    own_object = payload.get(f"{event_type.partition('.')[0]}s")
    return [
        Resource(
            id=read_resource_id(event_type, payload),
            name=as_text(payload.get("name")) or as_text(get_nested(own_object, "name")),
            project_id=read_project_id(event_type, payload),
            attributes={
                **pick_values(requested_share, _ATTRIBUTES),
                **pick_values(payload, _ATTRIBUTES),
            },
        )
    ]


MANILA = Service(
    name="manila",
    type="shared-file-system",
    aliases=("share", "sharev2"),
    exchange="manila",
    event_types=(
        "share",
        "share_type",
        "share_type_extra_specs",
        "share_group",
        "share_server",
        "scheduler.create_share",
        "scheduler.migrate_share",
        "scheduler.manage_share",
        "scheduler.extend_share",
        "scheduler.create_share_group",
    ),
    read_project_id=read_project_id,
    read_resource_id=read_resource_id,
    read_resources=read_resources,
    resource_types={
        "share": "share",
        "share_type": "share_type",
        "share_type_extra_specs": "share_type",
        "share_group": "share_group",
        "share_server": "share_server",
        "scheduler.create_share_group": "share_group",
        "scheduler": "share",
    },
    actions={
        "create_share": "create",
        "migrate_share": "migrate",
        "manage_share": "manage",
        "extend_share": "extend",
        "share_type_extra_specs.create": "update",
        "share_type_extra_specs.delete": "update",
        "scheduler.create_share_group": "create",
    },
    exchange_reason=(
        "an exchange of its own; the default, openstack, is shared with Cinder. "
        "This moves Manila's RPC too: set it on all of Manila's processes at once"
    ),
)
