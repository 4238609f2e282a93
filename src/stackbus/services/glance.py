"""Glance, image: unversioned dicts on exchange ``glance``; no actor, and an error is a text."""

from __future__ import annotations

from stackbus.services.service import Payload, Service, text


def project(event_type: str, payload: Payload) -> str | None:
    """Read the owner's project: ``owner``, ``owner_id`` in ``image.send`` (glance/notifier.py)."""
    del event_type
    return text(payload.get("owner")) or text(payload.get("owner_id"))


def resource(event_type: str, payload: Payload) -> str | None:
    """Read the id; definitions of metadata are known by their names."""
    if event_type.startswith("metadef_"):
        return text(payload.get("name")) or text(payload.get("namespace"))
    return text(payload.get("id")) or text(payload.get("image_id"))


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
    # glance/common/wsgi_app.py: no other file of the folder is read.
    place="the end of glance-api.conf: its WSGI application reads no file beside it",
)
