"""Cinder: volumes, snapshots, groups, transfers and types, on a driver that only logs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tests.cloud.scenario.run import Actor, ScenarioRun


def volume(actor: Actor, size: int = 1, **extra: Any) -> Any:
    """Create a volume and wait until it is available."""
    api = actor.cloud.block_storage
    resource = actor.do("cinder.volume.create", api.create_volume, size=size, **extra)
    actor.until(lambda: api.get_volume(resource.id).status, "available", bad=("error",))
    return resource


def volume_type(admin: Actor) -> Any:
    """Return the volume type of the driver, which is created once."""
    api = admin.cloud.block_storage
    return api.find_type("fake") or admin.do(
        "cinder.volume_type.create",
        api.create_type,
        name="fake",
        extra_specs={"volume_backend_name": "fake"},
    )


def cinder(run: ScenarioRun) -> None:
    """Take a volume through its life; transfer another; fail requests without a backend."""
    admin, alice, bob = run.admin(), run.person("alice"), run.person("bob")
    kind = volume_type(admin)
    other_kind = _change_types(run, admin)
    do, api = alice.do, alice.cloud.block_storage

    def status(disk: Any) -> str:
        return str(api.get_volume(disk.id).status)

    def action(
        actor: Actor, name: str, disk: Any, body: Mapping[str, object], version: str
    ) -> None:
        path = f"/volumes/{disk.id}/action"
        actor.do(
            f"cinder.volume.{name}",
            actor.rest,
            "block-storage",
            "POST",
            path,
            body,
            OpenStack_API_Version=f"volume {version}",
            id_of=lambda _: disk.id,
        )

    disk = volume(alice, name=f"volume-{run.tag}", volume_type="fake", metadata={"a": "b"})
    do("cinder.volume.update", api.update_volume, disk, name="renamed")
    do("cinder.volume.update_metadata", api.set_volume_metadata, disk, c="d")
    do("cinder.volume.extend", api.extend_volume, disk, 3)
    alice.until(lambda: status(disk), "available")
    readonly = {"os-update_readonly_flag": {"readonly": True}}
    action(alice, "set_readonly", disk, readonly, "3.0")
    action(alice, "set_bootable", disk, {"os-set_bootable": {"bootable": True}}, "3.0")
    snapshot = do("cinder.snapshot.create", api.create_snapshot, volume_id=disk.id, name="snap")
    alice.until(lambda: api.get_snapshot(snapshot.id).status, "available")
    do("cinder.snapshot.update", api.update_snapshot, snapshot, name="renamed")
    copy = volume(alice, 3, snapshot_id=snapshot.id)
    clone = volume(alice, 3, source_volume_id=disk.id)
    do("cinder.volume.create_over_quota", api.create_volume, size=999_999, refused=True)
    do("cinder.volume.retype", api.retype_volume, clone, other_kind.id)
    alice.until(lambda: status(clone), "available")
    _transfer_volume(alice, bob, copy)
    _attach_volume(alice, clone)
    _use_group(run, admin, alice, kind)
    do(
        "cinder.volume.delete_has_snapshot",
        api.delete_volume,
        disk,
        ignore_missing=False,
        refused=True,
    )
    do("cinder.snapshot.delete", api.delete_snapshot, snapshot)
    alice.until(lambda: api.get_snapshot(snapshot.id).status, "GONE")
    for unused in (disk, clone):
        do("cinder.volume.delete", api.delete_volume, unused)
        alice.until(lambda unused=unused: status(unused), "GONE")  # type: ignore[misc]
    do("cinder.volume.delete_gone", api.delete_volume, disk, ignore_missing=False, refused=True)
    nowhere = admin.do(
        "cinder.volume_type.create",
        admin.cloud.block_storage.create_type,
        name=f"nowhere-{run.tag}",
        extra_specs={"volume_backend_name": "nowhere"},
    )
    lost = do(
        "cinder.volume.create_no_valid_host", api.create_volume, size=1, volume_type=nowhere.name
    )
    alice.until(lambda: status(lost), "error")
    do("cinder.volume.delete", api.delete_volume, lost)
    alice.until(lambda: status(lost), "GONE")
    for unused_kind in (nowhere, other_kind):
        admin.do("cinder.volume_type.delete", admin.cloud.block_storage.delete_type, unused_kind)


def _change_types(run: ScenarioRun, admin: Actor) -> Any:
    do, api = admin.do, admin.cloud.block_storage
    resource = do("cinder.volume_type.create", api.create_type, name=f"type-{run.tag}")
    do("cinder.volume_type.update", api.update_type, resource, description="changed")
    own_id: dict[str, Any] = {"id_of": lambda _: resource.id}
    do(
        "cinder.volume_type.update_extra_specs",
        api.update_type_extra_specs,
        resource,
        k="v",
        **own_id,
    )
    project = run.projects["beta"]
    private = do(
        "cinder.volume_type.create", api.create_type, name=f"private-{run.tag}", is_public=False
    )
    own_id = {"id_of": lambda _: private.id}
    do("cinder.volume_type.add_access", api.add_type_access, private, project, **own_id)
    do("cinder.volume_type.remove_access", api.remove_type_access, private, project, **own_id)
    do("cinder.volume_type.delete", api.delete_type, private)
    body = {"qos_specs": {"name": f"qos-{run.tag}", "consumer": "back-end"}}
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
    return resource


def _transfer_volume(alice: Actor, bob: Actor, disk: Any) -> None:
    version: dict[str, Any] = {"OpenStack_API_Version": "volume 3.55"}
    own_id: dict[str, Any] = {"id_of": lambda _: disk.id}
    body = {"transfer": {"volume_id": disk.id, "name": "gift"}}
    resource = alice.do(
        "cinder.transfer.create",
        alice.rest,
        "block-storage",
        "POST",
        "/volume-transfers",
        body,
        **version,
        **own_id,
    )["transfer"]
    path = f"/volume-transfers/{resource['id']}/accept"
    accept = {"accept": {"auth_key": resource["auth_key"]}}
    bob.do(
        "cinder.transfer.accept",
        bob.rest,
        "block-storage",
        "POST",
        path,
        accept,
        **version,
        **own_id,
    )
    api = bob.cloud.block_storage
    bob.until(lambda: api.get_volume(disk.id).status, "available")
    bob.do("cinder.volume.delete", api.delete_volume, disk.id, ignore_missing=False)


def _attach_volume(alice: Actor, disk: Any) -> None:
    version: dict[str, Any] = {"OpenStack_API_Version": "volume 3.54"}
    body = {
        "attachment": {
            "volume_uuid": disk.id,
            "instance_uuid": "aaaaaaaa-aaaa-4aaa-8aaa-aaaaaaaaaaaa",
            "mode": "rw",
        }
    }
    own_id: dict[str, Any] = {"id_of": lambda _: disk.id}
    resource = alice.do(
        "cinder.attachment.create",
        alice.rest,
        "block-storage",
        "POST",
        "/attachments",
        body,
        **version,
        **own_id,
    )
    path = f"/attachments/{resource['attachment']['id']}"
    alice.do(
        "cinder.attachment.delete", alice.rest, "block-storage", "DELETE", path, **version, **own_id
    )


def _use_group(run: ScenarioRun, admin: Actor, alice: Actor, kind: Any) -> None:
    version: dict[str, Any] = {"OpenStack_API_Version": "volume 3.20"}

    def call(actor: Actor, name: str, method: str, path: str, body: object = None) -> Any:
        return actor.do(
            f"cinder.{name}", actor.rest, "block-storage", method, path, body, **version
        )

    specs = {"consistent_group_snapshot_enabled": "<is> False"}
    body = {"group_type": {"name": f"gt-{run.tag}", "group_specs": specs, "is_public": True}}
    group_type = call(admin, "group_type.create", "POST", "/group_types", body)["group_type"]
    request = {"name": "group", "group_type": group_type["id"], "volume_types": [kind.id]}
    group = call(alice, "group.create", "POST", "/groups", {"group": request})["group"]
    path = f"/groups/{group['id']}"

    def status(path: str) -> str:
        answer = alice.rest("block-storage", "GET", path, **version)
        return str(next(iter(answer.values()))["status"])

    alice.until(lambda: status(path), "available", bad=("error",))
    call(alice, "group.update", "PUT", path, {"group": {"name": "renamed"}})
    resource = alice.do(
        "cinder.volume.create",
        alice.rest,
        "block-storage",
        "POST",
        "/volumes",
        {"volume": {"size": 1, "group_id": group["id"], "volume_type": kind.id}},
        **version,
    )
    alice.until(lambda: status(f"/volumes/{resource['volume']['id']}"), "available", bad=("error",))
    body = {"group_snapshot": {"name": "snap", "group_id": group["id"]}}
    snap = call(alice, "group_snapshot.create", "POST", "/group_snapshots", body)["group_snapshot"]
    snapshot_path = f"/group_snapshots/{snap['id']}"
    alice.until(lambda: status(snapshot_path), "available", bad=("error",))
    call(alice, "group_snapshot.delete", "DELETE", snapshot_path)
    alice.until(lambda: status(snapshot_path), "GONE", "deleted")
    delete = {"delete": {"delete-volumes": True}}
    call(alice, "group.delete", "POST", f"{path}/action", delete)
    alice.until(lambda: status(path), "GONE", "deleted")
    call(admin, "group_type.delete", "DELETE", f"/group_types/{group_type['id']}")
