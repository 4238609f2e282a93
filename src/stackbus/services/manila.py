"""Manila, shared file systems: unversioned dicts; by default on the shared exchange."""

from __future__ import annotations

from stackbus.services.service import Payload, Resource, Service, inside, picked, text


def project(event_type: str, payload: Payload) -> str | None:
    """Read the owner's project: ``project_id`` (manila/share/share_utils.py).

    The scheduler's events carry the whole request instead.
    """
    del event_type
    return text(payload.get("project_id")) or text(
        inside(payload, "request_spec", "share_properties", "project_id")
    )


def resource(event_type: str, payload: Payload) -> str | None:
    """Read the id: ``<kind>_id``, a type's inside its own object."""
    kind = event_type.partition(".")[0]
    kind = {"scheduler": "share", "share_type_extra_specs": "type"}.get(kind, kind)
    return text(payload.get(f"{kind}_id")) or text(inside(payload.get(f"{kind}s"), "id"))


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


def read(event_type: str, payload: Payload) -> list[Resource]:
    """Read the resource; of the scheduler, the share that was wished for."""
    wish = inside(payload, "request_spec", "share_properties")
    inner = payload.get(f"{event_type.partition('.')[0]}s")
    return [
        Resource(
            resource(event_type, payload) or "",
            text(payload.get("name")) or text(inside(inner, "name")) or "",
            project(event_type, payload) or "",
            {**picked(wish, _ATTRIBUTES), **picked(payload, _ATTRIBUTES)},
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
    project=project,
    resource=resource,
    read=read,
    resources={
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
    exchange_why=(
        "an exchange of its own; the default, openstack, is shared with Cinder. "
        "It moves Manila's RPC too: set it on all of Manila's processes at once"
    ),
)
