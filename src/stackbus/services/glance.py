"""Glance, image: unversioned dicts on exchange ``glance``; no actor, and an error is a text."""

from __future__ import annotations

from stackbus.services.service import Payload, Resource, Service, picked, text


def project(event_type: str, payload: Payload) -> str | None:
    """Read the owner's project: ``owner``, ``owner_id`` in ``image.send`` (glance/notifier.py)."""
    del event_type
    return text(payload.get("owner")) or text(payload.get("owner_id"))


def resource(event_type: str, payload: Payload) -> str | None:
    """Read the id; definitions of metadata are known by their names."""
    if event_type.startswith("metadef_"):
        return text(payload.get("name")) or text(payload.get("namespace"))
    return text(payload.get("id")) or text(payload.get("image_id"))


_ATTRIBUTES = {
    "status": "state",
    "size": "size_bytes",
    "virtual_size": "virtual_size_bytes",
    "disk_format": "disk_format",
    "container_format": "container_format",
    "visibility": "visibility",
    "min_disk": "min_disk_gb",
    "min_ram": "min_ram_mb",
    "bytes_sent": "bytes_sent",
    "member_id": "member_project_id",
    "receiver_tenant_id": "receiver_project_id",
    "receiver_user_id": "receiver_user_id",
    "namespace": "namespace",
    "type": "type",
    "message": "reason",
}


def read(event_type: str, payload: Payload) -> list[Resource]:
    """Read the resource; a definition of metadata has a name alone."""
    return [
        Resource(
            resource(event_type, payload) or "",
            text(payload.get("name")) or "",
            project(event_type, payload) or "",
            picked(payload, _ATTRIBUTES),
        )
    ]


GLANCE = Service(
    name="glance",
    type="image",
    exchange="glance",
    event_types=(
        "image",
        "task",
        "metadef_namespace",
        "metadef_object",
        "metadef_property",
        "metadef_resource_type",
        "metadef_tag",
    ),
    project=project,
    resource=resource,
    read=read,
    resources={
        "image": "image",
        "task": "task",
        "metadef_namespace": "metadef_namespace",
        "metadef_object": "metadef_object",
        "metadef_property": "metadef_property",
        "metadef_resource_type": "metadef_resource_type",
        "metadef_tag": "metadef_tag",
    },
    actions={
        "member_create": "add_member",
        "member_update": "update_member",
        "member_delete": "remove_member",
        "send": "download",
        "processing": "run",
        "": "run",
    },
    # glance/common/wsgi_app.py: no other file of the folder is read.
    place="the end of glance-api.conf: its WSGI application reads no file beside it",
)
