"""Glance: the life of an image, sharing, imports, refused requests, metadata definitions."""

from __future__ import annotations

from typing import Any

from tests.cloud.scenario.run import Actor, ScenarioRun

_STREAM: dict[str, Any] = {"Content_Type": "application/octet-stream"}


def image(actor: Actor, name: str, **extra: object) -> str:
    """Create an image with some content; return its id."""
    body = {"name": name, "disk_format": "raw", "container_format": "bare", **extra}
    resource = actor.do("glance.image.create", actor.rest, "image", "POST", "/v2/images", body)
    path = f"/v2/images/{resource['id']}/file"
    actor.do("glance.image.upload", actor.rest, "image", "PUT", path, b"content" * 300, **_STREAM)
    return str(resource["id"])


def glance(run: ScenarioRun) -> None:
    """Take an image through its life and share it; stage and import others as a second user."""
    alice, bob, carol, admin = (
        *(run.person(name) for name in ("alice", "bob", "carol")),
        run.admin(),
    )
    image_id = image(alice, f"image-{run.tag}", min_disk=1)
    api = alice.cloud.image
    own_id: dict[str, Any] = {"id_of": lambda _: image_id}
    alice.do("glance.image.update", api.update_image, image_id, name="renamed", os_distro="debian")
    alice.do("glance.image.add_tag", api.add_tag, image_id, "gold", **own_id)
    alice.do("glance.image.remove_tag", api.remove_tag, image_id, "gold", **own_id)
    admin.do("glance.image.deactivate", admin.cloud.image.deactivate_image, image_id, **own_id)
    path = f"/v2/images/{image_id}/file"
    alice.do("glance.image.download_deactivated", alice.rest, "image", "GET", path, refused=True)
    admin.do("glance.image.reactivate", admin.cloud.image.reactivate_image, image_id, **own_id)
    alice.do("glance.image.download", alice.rest, "image", "GET", path)
    alice.do("glance.image.update", api.update_image, image_id, visibility="shared")
    member = run.projects["beta"]
    alice.do("glance.member.create", api.add_member, image_id, member_id=member, **own_id)
    accept = bob.cloud.image.update_member
    bob.do("glance.member.update", accept, member, image_id, status="accepted", **own_id)
    alice.do("glance.member.delete", api.remove_member, member, image_id, **own_id)
    delete = carol.cloud.image.delete_image
    carol.do(
        "glance.image.delete_forbidden",
        delete,
        image_id,
        ignore_missing=False,
        refused=True,
        **own_id,
    )
    alice.do("glance.image.update", api.update_image, image_id, is_protected=True)
    alice.do(
        "glance.image.delete_protected",
        api.delete_image,
        image_id,
        ignore_missing=False,
        refused=True,
    )
    alice.do("glance.image.update", api.update_image, image_id, is_protected=False)
    alice.do("glance.image.delete", api.delete_image, image_id, ignore_missing=False, **own_id)
    alice.do(
        "glance.image.delete_gone",
        api.delete_image,
        image_id,
        ignore_missing=False,
        refused=True,
        **own_id,
    )
    for disk_format in ("raw", "qcow2"):  # the second is none: its import fails
        _import(bob, disk_format)
    _fail_upload(run, admin, bob)
    _definitions(run, admin)


def _import(bob: Actor, disk_format: str) -> None:
    body = {"name": "staged", "disk_format": disk_format, "container_format": "bare"}
    resource = bob.do("glance.image.create", bob.rest, "image", "POST", "/v2/images", body)
    path = f"/v2/images/{resource['id']}"
    bob.do("glance.image.stage", bob.rest, "image", "PUT", f"{path}/stage", b"x" * 1000, **_STREAM)
    import_body = {"method": {"name": "glance-direct"}}
    call = "glance.image.import" if disk_format == "raw" else "glance.image.import_failing"
    bob.do(call, bob.rest, "image", "POST", f"{path}/import", import_body)
    if disk_format == "raw":
        bob.until(lambda: str(bob.rest("image", "GET", path)["status"]), "active")
    else:
        bob.until(lambda: _import_status(bob, path), "failure")
    bob.do(
        "glance.image.delete", bob.cloud.image.delete_image, resource["id"], ignore_missing=False
    )


def _import_status(bob: Actor, path: str) -> str:
    """Return the status of the image's import, which is a task of Glance."""
    (task,) = bob.rest("image", "GET", f"{path}/tasks")["tasks"]
    return str(task["status"])


def _fail_upload(run: ScenarioRun, admin: Actor, bob: Actor) -> None:
    """Fail an upload that is longer than its stated size."""
    del run, admin
    body = {"name": "nothing", "disk_format": "raw", "container_format": "bare"}
    resource = bob.do("glance.image.create", bob.rest, "image", "POST", "/v2/images", body)
    path = f"/v2/images/{resource['id']}"
    stated: dict[str, Any] = {**_STREAM, "x_openstack_image_size": "5"}
    bob.do(
        "glance.image.upload_failing",
        bob.rest,
        "image",
        "PUT",
        f"{path}/file",
        b"more than five",
        refused=True,
        **stated,
    )
    bob.do(
        "glance.image.delete", bob.cloud.image.delete_image, resource["id"], ignore_missing=False
    )


def _definitions(run: ScenarioRun, admin: Actor) -> None:
    """Create, change and delete the parts of a metadata definition."""
    space = f"Cloud::{run.tag}"
    base = "/v2/metadefs/namespaces"

    def call(name: str, method: str, path: str, body: object = None) -> None:
        admin.do(
            f"glance.metadef_{name}",
            admin.rest,
            "image",
            method,
            f"{base}{path}",
            body,
            id_of=lambda _: space,
        )

    call("namespace.create", "POST", "", {"namespace": space, "visibility": "public"})
    changed = {"namespace": space, "description": "changed"}
    call("namespace.update", "PUT", f"/{space}", changed)
    call("object.create", "POST", f"/{space}/objects", {"name": "one", "properties": {}})
    call("object.delete", "DELETE", f"/{space}/objects/one")
    call("tag.create", "POST", f"/{space}/tags/gold")
    call("tag.delete", "DELETE", f"/{space}/tags/gold")
    size = {"name": "size", "title": "size", "type": "integer"}
    call("property.create", "POST", f"/{space}/properties", size)
    call("property.delete", "DELETE", f"/{space}/properties/size")
    call("namespace.delete", "DELETE", f"/{space}")
