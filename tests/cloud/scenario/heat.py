"""Heat: stacks that come up, change, pause, are restored, and one that cannot be."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tests.cloud.scenario.walk import Actor, Walk

_RANDOM = {"type": "OS::Heat::RandomString", "properties": {"length": 8}}


def _template(**resources: object) -> dict[str, object]:
    return {"heat_template_version": "2021-04-16", "resources": resources}


def _test(**properties: object) -> dict[str, object]:
    return {"type": "OS::Heat::TestResource", "properties": {"value": "x", **properties}}


def heat(walk: Walk) -> None:
    """One stack of each fate."""
    alice, bob = walk.person("alice"), walk.person("bob")
    net = {"type": "OS::Neutron::Net", "properties": {"name": "heat's"}}
    disk = {"type": "OS::Cinder::Volume", "properties": {"size": 1}}
    one = _create(alice, f"one-{walk.tag}", _template(r=_RANDOM, t=_test(), net=net, disk=disk))
    _change(alice, "update", one, {"template": _template(r=_RANDOM, t=_test(value="y"), net=net)})
    for name in ("check", "suspend", "resume"):
        _change(alice, name, one, {name: None})
    _delete(alice, one)
    _snapshots(alice, walk)
    _fragile(alice, walk)
    _failures(bob, walk)


def _call(actor: Actor, name: str, method: str, path: str, stack: str, body: object = None) -> Any:
    """``stack`` is its id; it is known before only where the call does not make it."""
    own: dict[str, Any] = {"id_of": lambda _: stack} if stack else {}
    return actor.do(f"heat.{name}", actor.rest, "orchestration", method, path, body, **own)


def _status(actor: Actor, stack: str) -> str:
    return str(actor.rest("orchestration", "GET", f"/stacks/{stack}")["stack"]["stack_status"])


def _create(
    actor: Actor,
    name: str,
    template: object,
    call: str = "create",
    wanted: str = "CREATE_COMPLETE",
    **more: object,
) -> str:
    body = {"stack_name": name, "template": template, "timeout_mins": 2, **more}
    made = _call(actor, f"stack.{call}", "POST", "/stacks", "", body)["stack"]["id"]
    actor.until(
        lambda: _status(actor, made), wanted, bad=("CREATE_FAILED",) if call == "create" else ()
    )
    return str(made)


def _change(actor: Actor, name: str, stack: str, body: Mapping[str, object]) -> None:
    found = actor.rest("orchestration", "GET", f"/stacks/{stack}")["stack"]
    path = f"/stacks/{found['stack_name']}/{stack}"
    update = name == "update"
    path = path if update else f"{path}/actions"
    _call(actor, f"stack.{name}", "PUT" if update else "POST", path, stack, body)
    done = f"{name.upper()}_COMPLETE"
    actor.until(lambda: _status(actor, stack), done, bad=(f"{name.upper()}_FAILED",))


def _delete(actor: Actor, stack: str) -> None:
    found = actor.rest("orchestration", "GET", f"/stacks/{stack}")["stack"]
    _call(actor, "stack.delete", "DELETE", f"/stacks/{found['stack_name']}/{stack}", stack)
    actor.until(lambda: _status(actor, stack), "DELETE_COMPLETE", "GONE", bad=("DELETE_FAILED",))


def _snapshots(alice: Actor, walk: Walk) -> None:
    name = f"kept-{walk.tag}"
    stack = _create(alice, name, _template(r=_RANDOM))
    path = f"/stacks/{name}/{stack}/snapshots"
    made = _call(alice, "snapshot.create", "POST", path, stack, {"name": "snap"})
    alice.until(lambda: _status(alice, stack), "SNAPSHOT_COMPLETE")
    _call(alice, "snapshot.restore", "POST", f"{path}/{made['id']}/restore", stack)
    alice.until(lambda: _status(alice, stack), "RESTORE_COMPLETE")
    _call(alice, "snapshot.delete", "DELETE", f"{path}/{made['id']}", stack)
    _delete(alice, stack)


def _fragile(alice: Actor, walk: Walk) -> None:
    """A volume's snapshot is a backup, and nobody here makes backups."""
    name = f"fragile-{walk.tag}"
    disk = {"type": "OS::Cinder::Volume", "properties": {"size": 1}}
    stack = _create(alice, name, _template(disk=disk))
    path = f"/stacks/{name}/{stack}/snapshots"
    _call(alice, "snapshot.create_failing", "POST", path, stack, {"name": "snap"})
    alice.until(lambda: _status(alice, stack), "SNAPSHOT_FAILED", bad=("SNAPSHOT_COMPLETE",))
    _delete(alice, stack)


def _failures(bob: Actor, walk: Walk) -> None:
    broken = _template(t=_test(fail=True))
    first = _create(bob, f"broken-{walk.tag}", broken, "create_failing", "CREATE_FAILED")
    _delete(bob, first)
    second = _create(
        bob,
        f"rolled-{walk.tag}",
        broken,
        "create_rolled_back",
        "ROLLBACK_COMPLETE",
        disable_rollback=False,
    )
    _delete(bob, second)
    bob.do(
        "heat.stack.create_invalid",
        bob.rest,
        "orchestration",
        "POST",
        "/stacks",
        {"stack_name": f"invalid-{walk.tag}", "template": _template(r={"type": "No::Such::Thing"})},
        refused=True,
    )
