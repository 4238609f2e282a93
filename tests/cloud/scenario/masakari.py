"""Masakari: segments and hosts, failures that are told to it, and one that is real."""

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
from tests.cloud.scenario.walk import Actor, Walk

_VERSION: dict[str, Any] = {"OpenStack_API_Version": "instance-ha 1.2"}
_ENDED = ("finished", "failed", "ignored")


def masakari(walk: Walk) -> None:
    """A server on the second host; the host is ended for real; the server is evacuated."""
    prepare(walk)
    admin, alice = walk.admin(), walk.person("alice")
    api = alice.cloud.compute
    _clear(admin)
    net = network(alice, "10.30.0.0/24")
    # On the host that will fail, and never on the other: Nova's fake driver would remember it there.
    first = next(each for each in services(admin) if each["host"] == HOST)["id"]
    of: dict[str, Any] = {"id_of": lambda _: first}
    set_service(admin, "disable", first, {"status": "disabled"}, **of)
    one = server(alice, net, name="precious", metadata={"HA_Enabled": "True"})
    alice.until(lambda: api.get_server(one.id).status, "ACTIVE", bad=("ERROR",))
    set_service(admin, "enable", first, {"status": "enabled"}, **of)
    body = {
        "segment": {
            "name": f"segment-{walk.tag}",
            "recovery_method": "auto",
            "service_type": "COMPUTE",
        }
    }
    segment = _call(admin, "segment.create", "POST", "/segments", body)["segment"]["uuid"]
    where = f"/segments/{segment}"
    body = {"host": {"name": OTHER_HOST, "type": "COMPUTE", "control_attributes": "SSH"}}
    member = _call(admin, "host.create", "POST", f"{where}/hosts", body)["host"]["uuid"]
    there = f"{where}/hosts/{member}"
    own: dict[str, Any] = {"id_of": lambda _: member}
    changed = {"segment": {"description": "changed"}}
    _call(admin, "segment.update", "PUT", where, changed)
    _call(admin, "host.update", "PUT", there, {"host": {"reserved": False}}, **own)
    failed = {"vir_domain_event": "STOPPED_FAILED", "event": "LIFECYCLE"}
    unknown = "aaaaaaaa-aaaa-4aaa-8aaa-aaaaaaaaaaaa"
    _failure(admin, "create_unknown_server", "VM", {"instance_uuid": unknown, **failed})
    _failure(admin, "create", "VM", {"instance_uuid": one.id, **failed})
    alice.until(lambda: api.get_server(one.id).status, "ACTIVE", bad=("ERROR",))
    process = {"process_name": "nova-compute", "event": "STOPPED"}
    _failure(admin, "create", "PROCESS", process)
    compute = next(each for each in services(admin) if each["host"] == OTHER_HOST)["id"]
    of = {"id_of": lambda _: compute}
    set_service(admin, "enable", compute, {"status": "enabled"}, **of)
    # The real failure: the second compute service is ended.
    walk.place.stop("nova-compute-2")
    set_service(admin, "force_down", compute, {"forced_down": True}, **of)
    _call(admin, "host.update", "PUT", there, {"host": {"on_maintenance": False}}, **own)
    stopped = {"event": "STOPPED", "host_status": "NORMAL", "cluster_status": "OFFLINE"}
    _failure(admin, "create", "COMPUTE_HOST", stopped)
    evacuated = admin.cloud.compute.get_server(one.id).hypervisor_hostname
    if evacuated == OTHER_HOST:
        walk.problem("the server was not evacuated")
    member_of_nova = nova(walk.place)
    start_process(walk.place, "nova", member_of_nova.processes[-1])
    alice.do("nova.server.delete", api.delete_server, one)
    alice.until(lambda: api.get_server(one.id).status, "GONE")
    # Nova refuses this until the compute service has come back and looked at its servers.
    admin.until(lambda: _came_back(admin, compute), "yes")
    admin.until(lambda: unfinished_evacuations(admin, OTHER_HOST), "0")
    set_service(admin, "force_up", compute, {"forced_down": False}, **of)
    set_service(admin, "enable", compute, {"status": "enabled"}, **of)
    for port in list(alice.cloud.network.ports(network_id=net.id)):
        alice.do("neutron.port.delete", alice.cloud.network.delete_port, port)
    alice.do("neutron.network.delete", alice.cloud.network.delete_network, net)
    _call(admin, "host.update", "PUT", there, {"host": {"on_maintenance": False}}, **own)
    _call(admin, "host.delete", "DELETE", there, **own)
    _call(admin, "segment.delete", "DELETE", where)
    _call(admin, "segment.delete_gone", "DELETE", where, refused=True)


def _clear(admin: Actor) -> None:
    """Remove what an earlier scenario left when it broke off."""
    for segment in admin.rest("instance-ha", "GET", "/segments", **_VERSION)["segments"]:
        where = f"/segments/{segment['uuid']}"
        for one in admin.rest("instance-ha", "GET", f"{where}/hosts", **_VERSION)["hosts"]:
            there = f"{where}/hosts/{one['uuid']}"
            own: dict[str, Any] = {"id_of": lambda _, one=one: one["uuid"]}
            body = {"host": {"on_maintenance": False}}
            _call(admin, "host.update", "PUT", there, body, **own)
            _call(admin, "host.delete", "DELETE", there, **own)
        _call(admin, "segment.delete", "DELETE", where)


def _came_back(admin: Actor, compute: str) -> str:
    found = next(each for each in services(admin) if each["id"] == compute)
    told = datetime.fromisoformat(str(found["updated_at"])).replace(tzinfo=UTC)
    return "yes" if (datetime.now(UTC) - told).total_seconds() < 15 else "no"


def _failure(admin: Actor, call: str, kind: str, payload: Mapping[str, object]) -> None:
    """Tell Masakari of a failure, and wait until it has dealt with it."""
    body = {
        "notification": {
            "type": kind,
            "hostname": OTHER_HOST,
            "generated_time": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%f"),
            "payload": payload,
        }
    }
    made = _call(admin, f"notification.{call}", "POST", "/notifications", body)
    path = f"/notifications/{made['notification']['notification_uuid']}"

    def status() -> str:
        return str(admin.rest("instance-ha", "GET", path, **_VERSION)["notification"]["status"])

    admin.until(status, *_ENDED)


def _call(actor: Actor, name: str, method: str, path: str, body: object = None, **more: Any) -> Any:
    return actor.do(
        f"masakari.{name}", actor.rest, "instance-ha", method, path, body, **_VERSION, **more
    )
