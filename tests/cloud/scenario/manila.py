"""Manila: shares with access rules and snapshots, and share types, on a dummy driver."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tests.cloud.scenario.run import Actor, ScenarioRun

_VERSION: dict[str, Any] = {"X_OpenStack_Manila_API_Version": "2.65"}
_SPECS = {
    "driver_handles_share_servers": "false",
    "snapshot_support": "true",
    "create_share_from_snapshot_support": "true",
    "revert_to_snapshot_support": "true",
}


def manila(run: ScenarioRun) -> None:
    """Take a share through its life; change share types as the administrator."""
    admin, alice, bob = run.admin(), run.person("alice"), run.person("bob")
    if "default" not in {kind["name"] for kind in _read(admin, "/types")["share_types"]}:
        _type(admin, "default", **_SPECS)
    nowhere = _type(
        admin,
        f"nowhere-{run.tag}",
        driver_handles_share_servers="false",
        share_backend_name="nowhere",
    )
    share = _share(alice, "default", 1)
    path = f"/shares/{share}"
    own_id: dict[str, Any] = {"id_of": lambda _: share}

    def settle(actor: Actor, path: str, *states: str) -> None:
        def status() -> str:
            return str(next(iter(_read(actor, path).values()))["status"])

        actor.until(status, *states)

    def act(name: str, body: Mapping[str, object]) -> Any:
        return _call(alice, f"share.{name}", "POST", f"{path}/action", body, **own_id)

    settle(alice, path, "available")
    renamed = {"share": {"display_name": "renamed"}}
    _call(alice, "share.update", "PUT", path, renamed, **own_id)
    act("extend", {"extend": {"new_size": 3}})
    settle(alice, path, "available")
    act("shrink", {"shrink": {"new_size": 2}})
    settle(alice, path, "available")
    access_body = {"access_type": "ip", "access_to": "10.0.0.1", "access_level": "rw"}
    access = act("allow_access", {"allow_access": access_body})["access"]["id"]

    def rule_state() -> str:
        rules = _read(alice, f"/share-access-rules?share_id={share}")["access_list"]
        return next((str(rule["state"]) for rule in rules if rule["id"] == access), "GONE")

    alice.until(rule_state, "active")
    act("deny_access", {"deny_access": {"access_id": access}})
    alice.until(rule_state, "GONE")
    body = {"snapshot": {"share_id": share, "name": "snap"}}
    snapshot = _call(alice, "snapshot.create", "POST", "/snapshots", body)["snapshot"]["id"]
    settle(alice, f"/snapshots/{snapshot}", "available")
    act("revert", {"revert": {"snapshot_id": snapshot}})
    settle(alice, path, "available")
    _call(alice, "snapshot.delete", "DELETE", f"/snapshots/{snapshot}")
    settle(alice, f"/snapshots/{snapshot}", "GONE")
    big = {"share": {"share_proto": "NFS", "size": 900_000, "share_type": "default"}}
    _call(alice, "share.create_over_quota", "POST", "/shares", big, refused=True)
    lost = _share(bob, f"nowhere-{run.tag}", 1, "create_no_valid_host")
    settle(bob, f"/shares/{lost}", "error")
    _call(bob, "share.delete_never_placed", "DELETE", f"/shares/{lost}")
    settle(bob, f"/shares/{lost}", "GONE")
    _call(alice, "share.delete", "DELETE", path)
    settle(alice, path, "GONE")
    _call(alice, "share.delete_gone", "DELETE", path, refused=True)
    specs = {"extra_specs": {"k": "v"}}
    own_id = {"id_of": lambda _: nowhere}
    _call(
        admin,
        "share_type.update_extra_specs",
        "POST",
        f"/types/{nowhere}/extra_specs",
        specs,
        **own_id,
    )
    _call(admin, "share_type.delete", "DELETE", f"/types/{nowhere}")


def _type(admin: Actor, name: str, **specs: str) -> str:
    body = {"share_type": {"name": name, "extra_specs": specs, "share_type_access:is_public": True}}
    resource = _call(admin, "share_type.create", "POST", "/types", body, id_of=_id_of_type)
    return str(resource["share_type"]["id"])


def _id_of_type(resource: Any) -> str:
    return str(resource["share_type"]["id"])


def _share(actor: Actor, kind: str, size: int, call: str = "create") -> str:
    body = {"share": {"name": "share", "share_proto": "NFS", "size": size, "share_type": kind}}
    return str(_call(actor, f"share.{call}", "POST", "/shares", body)["share"]["id"])


def _read(actor: Actor, path: str) -> Any:
    return actor.rest("shared-file-system", "GET", path, **_VERSION)


def _call(
    actor: Actor, name: str, method: str, path: str, body: object = None, **extra: Any
) -> Any:
    return actor.do(
        f"manila.{name}", actor.rest, "shared-file-system", method, path, body, **_VERSION, **extra
    )
