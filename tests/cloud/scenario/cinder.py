"""Cinder: volumes, snapshots, groups, transfers, types; its driver only writes down what it is asked."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tests.cloud.scenario.walk import Actor, Walk


def volume(actor: Actor, size: int = 1, **more: Any) -> Any:
    """Make a volume and wait for it."""
    api = actor.cloud.block_storage
    made = actor.do("cinder.volume.create", api.create_volume, size=size, **more)
    actor.until(lambda: api.get_volume(made.id).status, "available", bad=("error",))
    return made


def volume_type(walk: Walk, admin: Actor) -> Any:
    """Give the type that the driver serves, made once."""
    del walk
    api = admin.cloud.block_storage
    return api.find_type("fake") or admin.do(
        "cinder.volume_type.create",
        api.create_type,
        name="fake",
        extra_specs={"volume_backend_name": "fake"},
    )


def cinder(walk: Walk) -> None:
    """A volume's whole life for one, a transfer to the other, and the scheduler's refusals."""
    admin, alice, bob = walk.admin(), walk.person("alice"), walk.person("bob")
    kind = volume_type(walk, admin)
    other = _types(walk, admin)
    do, api = alice.do, alice.cloud.block_storage

    def status(one: Any) -> str:
        return str(api.get_volume(one.id).status)

    def action(actor: Actor, name: str, one: Any, body: Mapping[str, object], version: str) -> None:
        path = f"/volumes/{one.id}/action"
        actor.do(
            f"cinder.volume.{name}",
            actor.rest,
            "block-storage",
            "POST",
            path,
            body,
            OpenStack_API_Version=f"volume {version}",
            id_of=lambda _: one.id,
        )

    one = volume(alice, name=f"volume-{walk.tag}", volume_type="fake", metadata={"a": "b"})
    do("cinder.volume.update", api.update_volume, one, name="renamed")
    do("cinder.volume.update_metadata", api.set_volume_metadata, one, c="d")
    do("cinder.volume.extend", api.extend_volume, one, 3)
    alice.until(lambda: status(one), "available")
    readonly = {"os-update_readonly_flag": {"readonly": True}}
    action(alice, "set_readonly", one, readonly, "3.0")
    action(alice, "set_bootable", one, {"os-set_bootable": {"bootable": True}}, "3.0")
    snapshot = do("cinder.snapshot.create", api.create_snapshot, volume_id=one.id, name="snap")
    alice.until(lambda: api.get_snapshot(snapshot.id).status, "available")
    do("cinder.snapshot.update", api.update_snapshot, snapshot, name="renamed")
    copy = volume(alice, 3, snapshot_id=snapshot.id)
    clone = volume(alice, 3, source_volume_id=one.id)
    do("cinder.volume.create_over_quota", api.create_volume, size=999_999, refused=True)
    do("cinder.volume.retype", api.retype_volume, clone, other.id)
    alice.until(lambda: status(clone), "available")
    _transfer(alice, bob, copy)
    _attachment(alice, clone)
    _group(walk, admin, alice, kind)
    do(
        "cinder.volume.delete_has_snapshot",
        api.delete_volume,
        one,
        ignore_missing=False,
        refused=True,
    )
    do("cinder.snapshot.delete", api.delete_snapshot, snapshot)
    alice.until(lambda: api.get_snapshot(snapshot.id).status, "GONE")
    for each in (one, clone):
        do("cinder.volume.delete", api.delete_volume, each)
        alice.until(lambda each=each: status(each), "GONE")  # type: ignore[misc]
    do("cinder.volume.delete_gone", api.delete_volume, one, ignore_missing=False, refused=True)
    nowhere = admin.do(
        "cinder.volume_type.create",
        admin.cloud.block_storage.create_type,
        name=f"nowhere-{walk.tag}",
        extra_specs={"volume_backend_name": "nowhere"},
    )
    lost = do(
        "cinder.volume.create_no_valid_host", api.create_volume, size=1, volume_type=nowhere.name
    )
    alice.until(lambda: status(lost), "error")
    do("cinder.volume.delete", api.delete_volume, lost)
    alice.until(lambda: status(lost), "GONE")
    for each in (nowhere, other):
        admin.do("cinder.volume_type.delete", admin.cloud.block_storage.delete_type, each)


def _types(walk: Walk, admin: Actor) -> Any:
    do, api = admin.do, admin.cloud.block_storage
    made = do("cinder.volume_type.create", api.create_type, name=f"type-{walk.tag}")
    do("cinder.volume_type.update", api.update_type, made, description="changed")
    own: dict[str, Any] = {"id_of": lambda _: made.id}
    do("cinder.volume_type.update_extra_specs", api.update_type_extra_specs, made, k="v", **own)
    project = walk.projects["beta"]
    private = do(
        "cinder.volume_type.create", api.create_type, name=f"private-{walk.tag}", is_public=False
    )
    own = {"id_of": lambda _: private.id}
    do("cinder.volume_type.add_access", api.add_type_access, private, project, **own)
    do("cinder.volume_type.remove_access", api.remove_type_access, private, project, **own)
    do("cinder.volume_type.delete", api.delete_type, private)
    body = {"qos_specs": {"name": f"qos-{walk.tag}", "consumer": "back-end"}}
    specs = do("cinder.qos_specs.create", admin.rest, "block-storage", "POST", "/qos-specs", body)
    path = f"/qos-specs/{specs['qos_specs']['id']}"
    do(
        "cinder.qos_specs.update",
        admin.rest,
        "block-storage",
        "PUT",
        path,
        {"qos_specs": {"iops": "9"}},
        id_of=lambda _: specs["qos_specs"]["id"],
    )
    do("cinder.qos_specs.delete", admin.rest, "block-storage", "DELETE", path)
    return made


def _transfer(alice: Actor, bob: Actor, one: Any) -> None:
    version: dict[str, Any] = {"OpenStack_API_Version": "volume 3.55"}
    own: dict[str, Any] = {"id_of": lambda _: one.id}
    body = {"transfer": {"volume_id": one.id, "name": "gift"}}
    made = alice.do(
        "cinder.transfer.create",
        alice.rest,
        "block-storage",
        "POST",
        "/volume-transfers",
        body,
        **version,
        **own,
    )["transfer"]
    path = f"/volume-transfers/{made['id']}/accept"
    accept = {"accept": {"auth_key": made["auth_key"]}}
    bob.do(
        "cinder.transfer.accept", bob.rest, "block-storage", "POST", path, accept, **version, **own
    )
    api = bob.cloud.block_storage
    bob.until(lambda: api.get_volume(one.id).status, "available")
    bob.do("cinder.volume.delete", api.delete_volume, one.id, ignore_missing=False)


def _attachment(alice: Actor, one: Any) -> None:
    version: dict[str, Any] = {"OpenStack_API_Version": "volume 3.54"}
    body = {
        "attachment": {
            "volume_uuid": one.id,
            "instance_uuid": "aaaaaaaa-aaaa-4aaa-8aaa-aaaaaaaaaaaa",
            "mode": "rw",
        }
    }
    own: dict[str, Any] = {"id_of": lambda _: one.id}
    made = alice.do(
        "cinder.attachment.create",
        alice.rest,
        "block-storage",
        "POST",
        "/attachments",
        body,
        **version,
        **own,
    )
    path = f"/attachments/{made['attachment']['id']}"
    alice.do(
        "cinder.attachment.delete", alice.rest, "block-storage", "DELETE", path, **version, **own
    )


def _group(walk: Walk, admin: Actor, alice: Actor, kind: Any) -> None:
    version: dict[str, Any] = {"OpenStack_API_Version": "volume 3.20"}

    def call(actor: Actor, name: str, method: str, path: str, body: object = None) -> Any:
        return actor.do(
            f"cinder.{name}", actor.rest, "block-storage", method, path, body, **version
        )

    specs = {"consistent_group_snapshot_enabled": "<is> False"}
    body = {"group_type": {"name": f"gt-{walk.tag}", "group_specs": specs, "is_public": True}}
    group_type = call(admin, "group_type.create", "POST", "/group_types", body)["group_type"]
    wanted = {"name": "group", "group_type": group_type["id"], "volume_types": [kind.id]}
    group = call(alice, "group.create", "POST", "/groups", {"group": wanted})["group"]
    path = f"/groups/{group['id']}"

    def status(path: str) -> str:
        answer = alice.rest("block-storage", "GET", path, **version)
        return str(next(iter(answer.values()))["status"])

    alice.until(lambda: status(path), "available", bad=("error",))
    call(alice, "group.update", "PUT", path, {"group": {"name": "renamed"}})
    made = alice.do(
        "cinder.volume.create",
        alice.rest,
        "block-storage",
        "POST",
        "/volumes",
        {"volume": {"size": 1, "group_id": group["id"], "volume_type": kind.id}},
        **version,
    )
    alice.until(lambda: status(f"/volumes/{made['volume']['id']}"), "available", bad=("error",))
    body = {"group_snapshot": {"name": "snap", "group_id": group["id"]}}
    snap = call(alice, "group_snapshot.create", "POST", "/group_snapshots", body)["group_snapshot"]
    there = f"/group_snapshots/{snap['id']}"
    alice.until(lambda: status(there), "available", bad=("error",))
    call(alice, "group_snapshot.delete", "DELETE", there)
    alice.until(lambda: status(there), "GONE", "deleted")
    delete = {"delete": {"delete-volumes": True}}
    call(alice, "group.delete", "POST", f"{path}/action", delete)
    alice.until(lambda: status(path), "GONE", "deleted")
    call(admin, "group_type.delete", "DELETE", f"/group_types/{group_type['id']}")
