"""Glance, image: images, their members, tasks and metadata definitions.

- Publishes plain JSON objects under ``notifications`` on exchange ``glance``.
- Needs no option. Its context is empty, so its events have no actor.
- Payload: ``id`` and ``owner`` (glance/notifier.py). The payload of a failed ``image.upload`` is a
  bare string, which ``events/normalise.py`` reads.
"""

from __future__ import annotations

from stackbus.services.service import Payload, Resource, Service, as_text, pick_values


def read_project_id(event_type: str, payload: Payload) -> str:
    """Read ``owner``; in ``image.send`` it is ``owner_id``."""
    del event_type
    return as_text(payload.get("owner")) or as_text(payload.get("owner_id"))


def read_resource_id(event_type: str, payload: Payload) -> str:
    """Read ``id`` or ``image_id``; a metadata definition is identified by its name."""
    if event_type.startswith("metadef_"):
        return as_text(payload.get("name")) or as_text(payload.get("namespace"))
    return as_text(payload.get("id")) or as_text(payload.get("image_id"))


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


def read_resources(event_type: str, payload: Payload) -> list[Resource]:
    """Read the resource."""
    return [
        Resource(
            id=read_resource_id(event_type, payload),
            name=as_text(payload.get("name")),
            project_id=read_project_id(event_type, payload),
            attributes=pick_values(payload, _ATTRIBUTES),
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
    read_project_id=read_project_id,
    read_resource_id=read_resource_id,
    read_resources=read_resources,
    resource_types={
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
    # glance/common/wsgi_app.py reads this file only.
    drop_in_location="the end of glance-api.conf: its WSGI application reads no other file",
)
