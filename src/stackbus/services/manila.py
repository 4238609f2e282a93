"""Manila, shared file systems: unversioned dicts; by default on the shared exchange."""

from __future__ import annotations

from stackbus.services.service import Payload, Service, inside, text


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
    exchange_why=(
        "an exchange of its own; the default, openstack, is shared with Cinder. "
        "It moves Manila's RPC too: set it on all of Manila's processes at once"
    ),
)
