"""Cinder, block storage: unversioned dicts; by default on the shared exchange ``openstack``."""

from __future__ import annotations

from stackbus.services.service import Payload, Service, inside, text


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
    inner = payload.get(f"{kind}s")
    return text(payload.get(f"{kind}_id")) or text(inside(inner, "id")) or text(payload.get("id"))


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
    exchange_why=(
        "an exchange of its own; the default, openstack, is shared with Manila. "
        "It moves Cinder's RPC too: set it on all of Cinder's processes at once"
    ),
)
