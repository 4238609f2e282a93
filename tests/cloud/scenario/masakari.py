"""Masakari: segments and hosts, failures that are reported, and one real failure."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from tests.cloud.cloud import start_process
from tests.cloud.members import HOST, OTHER_HOST, nova
from tests.cloud.scenario.nova import (
    network,
    prepare,
    server,
    services,
    set_service,
    unfinished_evacuations,
)
from tests.cloud.scenario.run import Actor, ScenarioRun

_VERSION: dict[str, Any] = {"OpenStack_API_Version": "instance-ha 1.2"}
_ENDED = ("finished", "failed", "ignored")


def masakari(run: ScenarioRun) -> None:
    """Put a server on the second host, end the host, and wait until the server is evacuated."""
    prepare(run)
    admin, alice = run.admin(), run.person("alice")
    api = alice.cloud.compute
    _clear(admin)
    net = network(alice, "10.30.0.0/24")
    # Not on the working host, even for a moment: Nova's fake driver would remember it there.
    working = next(service for service in services(admin) if service["host"] == HOST)["id"]
    of: dict[str, Any] = {"id_of": lambda _: working}
    set_service(admin, "disable", working, {"status": "disabled"}, **of)
    instance = server(alice, net, name="precious", metadata={"HA_Enabled": "True"})
    alice.until(lambda: api.get_server(instance.id).status, "ACTIVE", bad=("ERROR",))
    set_service(admin, "enable", working, {"status": "enabled"}, **of)
    body = {
        "segment": {
            "name": f"segment-{run.tag}",
            "recovery_method": "auto",
            "service_type": "COMPUTE",
        }
    }
    segment = _call(admin, "segment.create", "POST", "/segments", body)["segment"]["uuid"]
    segment_path = f"/segments/{segment}"
    body = {"host": {"name": OTHER_HOST, "type": "COMPUTE", "control_attributes": "SSH"}}
    member = _call(admin, "host.create", "POST", f"{segment_path}/hosts", body)["host"]["uuid"]
    host_path = f"{segment_path}/hosts/{member}"
    own_id: dict[str, Any] = {"id_of": lambda _: member}
    changed = {"segment": {"description": "changed"}}
    _call(admin, "segment.update", "PUT", segment_path, changed)
    _call(admin, "host.update", "PUT", host_path, {"host": {"reserved": False}}, **own_id)
    failed = {"vir_domain_event": "STOPPED_FAILED", "event": "LIFECYCLE"}
    unknown = "aaaaaaaa-aaaa-4aaa-8aaa-aaaaaaaaaaaa"
    _failure(admin, "create_unknown_server", "VM", {"instance_uuid": unknown, **failed})
    _failure(admin, "create", "VM", {"instance_uuid": instance.id, **failed})
    alice.until(lambda: api.get_server(instance.id).status, "ACTIVE", bad=("ERROR",))
    process = {"process_name": "nova-compute", "event": "STOPPED"}
    _failure(admin, "create", "PROCESS", process)
    compute = next(service for service in services(admin) if service["host"] == OTHER_HOST)["id"]
    of = {"id_of": lambda _: compute}
    set_service(admin, "enable", compute, {"status": "enabled"}, **of)
    # The real failure: end the second compute service.
    run.home.stop("nova-compute-2")
    set_service(admin, "force_down", compute, {"forced_down": True}, **of)
    _call(admin, "host.update", "PUT", host_path, {"host": {"on_maintenance": False}}, **own_id)
    stopped = {"event": "STOPPED", "host_status": "NORMAL", "cluster_status": "OFFLINE"}
    _failure(admin, "create", "COMPUTE_HOST", stopped)
    evacuated = admin.cloud.compute.get_server(instance.id).hypervisor_hostname
    if evacuated == OTHER_HOST:
        run.problem("the server was not evacuated")
    member_of_nova = nova(run.home)
    start_process(run.home, "nova", member_of_nova.processes[-1])
    alice.do("nova.server.delete", api.delete_server, instance)
    alice.until(lambda: api.get_server(instance.id).status, "GONE")
    # Nova refuses this until the compute service has restarted and checked its servers.
    admin.until(lambda: _has_reported(admin, compute), "yes")
    admin.until(lambda: unfinished_evacuations(admin, OTHER_HOST), "0")
    set_service(admin, "force_up", compute, {"forced_down": False}, **of)
    set_service(admin, "enable", compute, {"status": "enabled"}, **of)
    for port in list(alice.cloud.network.ports(network_id=net.id)):
        alice.do("neutron.port.delete", alice.cloud.network.delete_port, port)
    alice.do("neutron.network.delete", alice.cloud.network.delete_network, net)
    _call(admin, "host.update", "PUT", host_path, {"host": {"on_maintenance": False}}, **own_id)
    _call(admin, "host.delete", "DELETE", host_path, **own_id)
    _call(admin, "segment.delete", "DELETE", segment_path)
    _call(admin, "segment.delete_gone", "DELETE", segment_path, refused=True)


def _clear(admin: Actor) -> None:
    """Delete the segments of an earlier scenario that was interrupted."""
    for segment in admin.rest("instance-ha", "GET", "/segments", **_VERSION)["segments"]:
        segment_path = f"/segments/{segment['uuid']}"
        for host in admin.rest("instance-ha", "GET", f"{segment_path}/hosts", **_VERSION)["hosts"]:
            host_path = f"{segment_path}/hosts/{host['uuid']}"
            own_id: dict[str, Any] = {"id_of": lambda _, host=host: host["uuid"]}
            body = {"host": {"on_maintenance": False}}
            _call(admin, "host.update", "PUT", host_path, body, **own_id)
            _call(admin, "host.delete", "DELETE", host_path, **own_id)
        _call(admin, "segment.delete", "DELETE", segment_path)


def _has_reported(admin: Actor, compute: str) -> str:
    service = next(service for service in services(admin) if service["id"] == compute)
    reported = datetime.fromisoformat(str(service["updated_at"])).replace(tzinfo=UTC)
    return "yes" if (datetime.now(UTC) - reported).total_seconds() < 15 else "no"


def _failure(admin: Actor, call: str, kind: str, payload: Mapping[str, object]) -> None:
    """Report a failure to Masakari, and wait until it has handled it."""
    body = {
        "notification": {
            "type": kind,
            "hostname": OTHER_HOST,
            "generated_time": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%f"),
            "payload": payload,
        }
    }
    resource = _call(admin, f"notification.{call}", "POST", "/notifications", body)
    path = f"/notifications/{resource['notification']['notification_uuid']}"

    def status() -> str:
        return str(admin.rest("instance-ha", "GET", path, **_VERSION)["notification"]["status"])

    admin.until(status, *_ENDED)


def _call(
    actor: Actor, name: str, method: str, path: str, body: object = None, **extra: Any
) -> Any:
    return actor.do(
        f"masakari.{name}", actor.rest, "instance-ha", method, path, body, **_VERSION, **extra
    )
