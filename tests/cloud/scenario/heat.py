"""Heat: stacks that are created, changed, suspended and restored, and stacks that fail."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from keystoneauth1.exceptions import InternalServerError

from tests.cloud.scenario.run import Actor, ScenarioRun

_RANDOM = {"type": "OS::Heat::RandomString", "properties": {"length": 8}}


def _template(**resources: object) -> dict[str, object]:
    return {"heat_template_version": "2021-04-16", "resources": resources}


def _test(**properties: object) -> dict[str, object]:
    return {"type": "OS::Heat::TestResource", "properties": {"value": "x", **properties}}


def heat(run: ScenarioRun) -> None:
    """Take stacks through success, snapshot, failure and rollback."""
    alice, bob = run.person("alice"), run.person("bob")
    net = {"type": "OS::Neutron::Net", "properties": {"name": "heat's"}}
    disk = {"type": "OS::Cinder::Volume", "properties": {"size": 1}}
    stack = _create(alice, f"one-{run.tag}", _template(r=_RANDOM, t=_test(), net=net, disk=disk))
    _change(alice, "update", stack, {"template": _template(r=_RANDOM, t=_test(value="y"), net=net)})
    for name in ("check", "suspend", "resume"):
        _change(alice, name, stack, {name: None})
    _delete(alice, stack)
    _restore_snapshot(alice, run)
    _fail_snapshot(alice, run)
    _fail_stacks(bob, run)


def _call(actor: Actor, name: str, method: str, path: str, stack: str, body: object = None) -> Any:
    """Call Heat; ``stack`` is the stack's id."""
    return actor.do(
        f"heat.{name}", actor.rest, "orchestration", method, path, body, id_of=lambda _: stack
    )


def _status(actor: Actor, stack: str) -> str:
    return str(actor.rest("orchestration", "GET", f"/stacks/{stack}")["stack"]["stack_status"])


def _create(
    actor: Actor,
    name: str,
    template: object,
    call: str = "create",
    state: str = "CREATE_COMPLETE",
    **extra: object,
) -> str:
    body = {"stack_name": name, "template": template, "timeout_mins": 2, **extra}
    resource = actor.do(f"heat.stack.{call}", _post_stack, actor, body)["stack"]["id"]
    actor.until(
        lambda: _status(actor, resource), state, bad=("CREATE_FAILED",) if call == "create" else ()
    )
    return str(resource)


def _post_stack(actor: Actor, body: object) -> Any:
    """Create a stack.

    Keystone may refuse a trust while it deletes another one of the same user (seen once). Then
    Heat answers 500 and has created nothing, so the request is sent again.
    """
    try:
        return actor.rest("orchestration", "POST", "/stacks", body)
    except InternalServerError:
        return actor.rest("orchestration", "POST", "/stacks", body)


def _change(actor: Actor, name: str, stack: str, body: Mapping[str, object]) -> None:
    existing = actor.rest("orchestration", "GET", f"/stacks/{stack}")["stack"]
    path = f"/stacks/{existing['stack_name']}/{stack}"
    is_update = name == "update"
    path = path if is_update else f"{path}/actions"
    _call(actor, f"stack.{name}", "PUT" if is_update else "POST", path, stack, body)
    complete = f"{name.upper()}_COMPLETE"
    actor.until(lambda: _status(actor, stack), complete, bad=(f"{name.upper()}_FAILED",))


def _delete(actor: Actor, stack: str) -> None:
    existing = actor.rest("orchestration", "GET", f"/stacks/{stack}")["stack"]
    _call(actor, "stack.delete", "DELETE", f"/stacks/{existing['stack_name']}/{stack}", stack)
    actor.until(lambda: _status(actor, stack), "DELETE_COMPLETE", "GONE", bad=("DELETE_FAILED",))


def _restore_snapshot(alice: Actor, run: ScenarioRun) -> None:
    name = f"snapshots-{run.tag}"
    stack = _create(alice, name, _template(r=_RANDOM))
    path = f"/stacks/{name}/{stack}/snapshots"
    resource = _call(alice, "snapshot.create", "POST", path, stack, {"name": "snap"})
    alice.until(lambda: _status(alice, stack), "SNAPSHOT_COMPLETE")
    _call(alice, "snapshot.restore", "POST", f"{path}/{resource['id']}/restore", stack)
    alice.until(lambda: _status(alice, stack), "RESTORE_COMPLETE")
    _call(alice, "snapshot.delete", "DELETE", f"{path}/{resource['id']}", stack)
    _delete(alice, stack)


def _fail_snapshot(alice: Actor, run: ScenarioRun) -> None:
    """Fail a snapshot: that of a volume is a backup, and no service here makes backups."""
    name = f"fragile-{run.tag}"
    disk = {"type": "OS::Cinder::Volume", "properties": {"size": 1}}
    stack = _create(alice, name, _template(disk=disk))
    path = f"/stacks/{name}/{stack}/snapshots"
    _call(alice, "snapshot.create_failing", "POST", path, stack, {"name": "snap"})
    alice.until(lambda: _status(alice, stack), "SNAPSHOT_FAILED", bad=("SNAPSHOT_COMPLETE",))
    _delete(alice, stack)


def _fail_stacks(bob: Actor, run: ScenarioRun) -> None:
    broken = _template(t=_test(fail=True))
    failing_stack = _create(bob, f"broken-{run.tag}", broken, "create_failing", "CREATE_FAILED")
    _delete(bob, failing_stack)
    rolled_back_stack = _create(
        bob,
        f"rolled-{run.tag}",
        broken,
        "create_rolled_back",
        "ROLLBACK_COMPLETE",
        disable_rollback=False,
    )
    _delete(bob, rolled_back_stack)
    bob.do(
        "heat.stack.create_invalid",
        bob.rest,
        "orchestration",
        "POST",
        "/stacks",
        {"stack_name": f"invalid-{run.tag}", "template": _template(r={"type": "No::Such::Thing"})},
        refused=True,
    )
