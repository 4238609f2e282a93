"""Designate: zones, recordsets, transfers, keys and lists, without a name server."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tests.cloud.scenario.run import Actor, ScenarioRun


def designate(run: ScenarioRun) -> None:
    """Take a zone through its life; change the shared resources as the administrator."""
    admin, alice, bob = run.admin(), run.person("alice"), run.person("bob")
    tld = _call(admin, "tld.create", "POST", "/v2/tlds", {"name": f"tld{run.tag}"})["id"]
    _call(admin, "tld.update", "PATCH", f"/v2/tlds/{tld}", {"description": "changed"})
    name = f"zone.tld{run.tag}."
    zone = _zone(alice, name)
    path = f"/v2/zones/{zone}"
    body: Mapping[str, object] = {"name": f"www.{name}", "type": "A", "records": ["192.0.2.1"]}
    record = _call(alice, "recordset.create", "POST", f"{path}/recordsets", body)["id"]
    record_path = f"{path}/recordsets/{record}"
    _settle(alice, record_path)
    change = {"records": ["192.0.2.9"], "ttl": 60}
    _call(alice, "recordset.update", "PUT", record_path, change)
    _settle(alice, record_path)
    own_id = {"id_of": lambda _: record}
    _call(alice, "recordset.delete", "DELETE", record_path, **own_id)
    _call(alice, "zone.update", "PATCH", path, {"ttl": 600})
    _settle(alice, path)
    wrong = {"name": "www.example.org.", "type": "A", "records": ["192.0.2.1"]}
    _call(alice, "recordset.create_refused", "POST", f"{path}/recordsets", wrong, refused=True)
    # One transfer request is accepted by the second user, one is withdrawn.
    request = f"{path}/tasks/transfer_requests"
    asked = _call(alice, "transfer_request.create", "POST", request, {"description": "x"})
    request_path = f"/v2/zones/tasks/transfer_requests/{asked['id']}"
    _call(alice, "transfer_request.update", "PATCH", request_path, {"description": "changed"})
    _call(alice, "transfer_request.delete", "DELETE", request_path)
    asked = _call(alice, "transfer_request.create", "POST", request, {"description": "y"})
    accept = {"key": asked["key"], "zone_transfer_request_id": asked["id"]}
    _call(bob, "transfer_accept.create", "POST", "/v2/zones/tasks/transfer_accepts", accept)
    export = _call(bob, "export.create", "POST", f"{path}/tasks/export")["id"]
    request_path = f"/v2/zones/tasks/exports/{export}"
    bob.until(
        lambda: str(bob.rest("dns", "GET", request_path)["status"]), "COMPLETE", bad=("ERROR",)
    )
    _call(bob, "export.delete", "DELETE", request_path)
    _call(bob, "zone.delete", "DELETE", path, id_of=lambda _: zone)
    bob.until(lambda: str(bob.rest("dns", "GET", path)["status"]), "GONE")
    _call(bob, "zone.delete_gone", "DELETE", path, refused=True)
    pool = admin.rest("dns", "GET", "/v2/pools")["pools"][0]["id"]
    key = {
        "name": f"key-{run.tag}",
        "algorithm": "hmac-sha256",
        "secret": "c2VjcmV0IG9mIHRoZSB0ZXN0",
        "scope": "POOL",
        "resource_id": pool,
    }
    resource = _call(admin, "tsigkey.create", "POST", "/v2/tsigkeys", key)["id"]
    _call(admin, "tsigkey.update", "PATCH", f"/v2/tsigkeys/{resource}", {"name": f"key2-{run.tag}"})
    _call(admin, "tsigkey.delete", "DELETE", f"/v2/tsigkeys/{resource}")
    pattern = {"pattern": f"^evil{run.tag}"}
    resource = _call(admin, "blacklist.create", "POST", "/v2/blacklists", pattern)["id"]
    _call(admin, "blacklist.update", "PATCH", f"/v2/blacklists/{resource}", {"description": "x"})
    _call(admin, "blacklist.delete", "DELETE", f"/v2/blacklists/{resource}")
    _call(admin, "tld.delete", "DELETE", f"/v2/tlds/{tld}")


def _call(
    actor: Actor, name: str, method: str, path: str, body: object = None, **extra: Any
) -> Any:
    return actor.do(f"designate.{name}", actor.rest, "dns", method, path, body, **extra)


def _zone(actor: Actor, name: str) -> str:
    body: Mapping[str, object] = {"name": name, "email": "hostmaster@cloud.example", "ttl": 300}
    resource = str(_call(actor, "zone.create", "POST", "/v2/zones", body)["id"])
    _settle(actor, f"/v2/zones/{resource}")
    return resource


def _settle(actor: Actor, path: str) -> None:
    actor.until(lambda: str(actor.rest("dns", "GET", path)["status"]), "ACTIVE", bad=("ERROR",))
