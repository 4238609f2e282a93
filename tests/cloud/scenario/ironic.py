"""Ironic: a node of fake hardware through its states, with ports, chassis and allocations."""

from __future__ import annotations

from typing import Any

from tests.cloud.scenario.run import Actor, ScenarioRun

_VERSION: dict[str, Any] = {"X_OpenStack_Ironic_API_Version": "1.78"}


def ironic(run: ScenarioRun) -> None:
    """Take a node through its states. Only administrators may use bare metal."""
    admin, system, tag = run.admin(), run.system_admin(), run.tag
    body = {
        "driver": "fake-hardware",
        "name": f"node-{tag}",
        "properties": {"cpus": 4, "memory_mb": 1024, "local_gb": 10, "cpu_arch": "x86_64"},
        "resource_class": "baremetal",
    }
    node = _call(admin, "node.create", "POST", "/v1/nodes", body)["uuid"]
    path = f"/v1/nodes/{node}"
    own_id: dict[str, Any] = {"id_of": lambda _: node}
    mac = f"52:54:00:{tag[0:2]}:{tag[2:4]}:{tag[4:6]}"
    port = _call(admin, "port.create", "POST", "/v1/ports", {"node_uuid": node, "address": mac})[
        "uuid"
    ]
    extra = [{"op": "add", "path": "/extra/foo", "value": "bar"}]
    _call(admin, "node.update", "PATCH", path, extra, **own_id)
    _call(admin, "port.update", "PATCH", f"/v1/ports/{port}", extra)
    group = {"node_uuid": node, "name": f"group-{tag}"}
    resource = _call(admin, "portgroup.create", "POST", "/v1/portgroups", group)["uuid"]
    _call(admin, "portgroup.delete", "DELETE", f"/v1/portgroups/{resource}")
    resource = _call(system, "chassis.create", "POST", "/v1/chassis", {"description": "c"})["uuid"]
    changed = [{"op": "replace", "path": "/description", "value": "d"}]
    _call(system, "chassis.update", "PATCH", f"/v1/chassis/{resource}", changed)
    _call(system, "chassis.delete", "DELETE", f"/v1/chassis/{resource}")
    _call(
        admin,
        "node.update_invalid",
        "PATCH",
        path,
        [{"op": "replace", "path": "/driver", "value": "none"}],
        refused=True,
    )

    def state(field: str) -> str:
        return str(admin.rest("baremetal", "GET", path, **_VERSION)[field])

    def provision(name: str, target: str, *states: str) -> None:
        state_path = f"{path}/states/provision"
        _call(admin, f"node.{name}", "PUT", state_path, {"target": target}, **own_id)
        admin.until(lambda: state("provision_state"), *states, bad=("clean failed",))

    provision("manage", "manage", "manageable")
    provision("inspect", "inspect", "manageable")
    provision("provide", "provide", "available")
    for target, result in (("power on", "power on"), ("rebooting", "power on")):
        state_path = f"{path}/states/power"
        _call(
            admin,
            f"node.{target.replace(' ', '_')}",
            "PUT",
            state_path,
            {"target": target},
            **own_id,
        )
        admin.until(lambda: state("power_state"), result)
        admin.until(lambda: state("target_power_state"), "None")
        admin.until(lambda: state("reservation"), "None")
    # Ironic allocates only a node with a known power state.
    allocation = {"resource_class": "baremetal", "name": f"allocation-{tag}"}
    resource = _call(admin, "allocation.create", "POST", "/v1/allocations", allocation)["uuid"]
    state_path = f"/v1/allocations/{resource}"
    admin.until(
        lambda: str(admin.rest("baremetal", "GET", state_path, **_VERSION)["state"]),
        "active",
        bad=("error",),
    )
    _call(admin, "allocation.delete", "DELETE", state_path)
    # The conductor releases the node only after the state is reached.
    admin.until(lambda: state("reservation"), "None")
    _call(admin, "node.set_maintenance", "PUT", f"{path}/maintenance", {"reason": "x"}, **own_id)
    _call(admin, "node.unset_maintenance", "DELETE", f"{path}/maintenance", **own_id)
    source = [
        {"op": "add", "path": "/instance_info/image_source", "value": "http://127.0.0.1:9/none"},
        {"op": "add", "path": "/instance_info/image_checksum", "value": "x"},
    ]
    _call(admin, "node.update", "PATCH", path, source, **own_id)
    steps = [{"interface": "bios", "step": "apply_configuration", "args": {}, "priority": 10}]
    template = {"name": f"CUSTOM_{tag.upper()}", "steps": steps}
    resource = _call(system, "deploy_template.create", "POST", "/v1/deploy_templates", template)[
        "uuid"
    ]
    _call(system, "deploy_template.delete", "DELETE", f"/v1/deploy_templates/{resource}")
    provision("deploy", "active", "active", "deploy failed")
    provision("undeploy", "deleted", "available")
    for enabled in (True, False):
        name = "start_console" if enabled else "stop_console"
        state_path = f"{path}/states/console"
        _call(admin, f"node.{name}", "PUT", state_path, {"enabled": enabled}, **own_id)
        admin.until(lambda: state("console_enabled"), str(enabled))
        admin.until(lambda: state("reservation"), "None")
    _call(admin, "port.delete", "DELETE", f"/v1/ports/{port}")
    _call(admin, "node.delete", "DELETE", path, **own_id)
    _call(admin, "node.delete_gone", "DELETE", path, refused=True, **own_id)


def _call(
    actor: Actor, name: str, method: str, path: str, body: object = None, **extra: Any
) -> Any:
    return actor.do(
        f"ironic.{name}", actor.rest, "baremetal", method, path, body, **_VERSION, **extra
    )
