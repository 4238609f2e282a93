"""deploy/base/rbac.yaml allows what the operator does, and nothing that it does not do."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from tests.kubernetes.conftest import EXTERNAL, KIND, NAME, OPENSTACK, OWN, Cloud, resource
from tests.kubernetes.emulator import Call

RBAC = Path(__file__).parent.parent.parent / "deploy" / "base" / "rbac.yaml"


@dataclass(frozen=True)
class Allowed:
    """One verb of one rule; ``namespace`` '' is the whole cluster, ``name`` '' any."""

    verb: str
    resource: str
    namespace: str = ""
    name: str = ""

    def covers(self, call: Call) -> bool:
        plural = call.resource.rpartition("/")[2]
        group = call.resource.rpartition("/")[0].rpartition("/")[0]
        asked = f"{plural}/{call.subresource}" if call.subresource else plural
        return (
            self.verb == call.verb
            and self.resource == f"{group}/{asked}"
            and self.namespace in ("", call.namespace)
            and self.name in ("", call.name)
        )


def allowed() -> Iterator[Allowed]:
    documents: list[Mapping[str, Any]] = list(yaml.safe_load_all(RBAC.read_text()))
    for document in documents:
        if document["kind"] not in ("Role", "ClusterRole"):
            continue
        namespace = document["metadata"].get("namespace", "")
        for rule in document["rules"]:
            for verb in rule["verbs"]:
                for plural in rule["resources"]:
                    for name in rule.get("resourceNames", [""]):
                        yield Allowed(verb, f"{rule['apiGroups'][0]}/{plural}", namespace, name)


def test_the_roles_are_what_the_operator_uses(cloud: Cloud) -> None:
    for name in (EXTERNAL, OWN):
        del cloud.emulator.store.objects["v1/namespaces", "", name]
    peering = {"apiVersion": "kopf.dev/v1", "kind": "ClusterKopfPeering"}
    cloud.create({**peering, "metadata": {"name": "stackbus"}})
    node = {"addresses": [{"type": "InternalIP", "address": "10.0.0.1"}]}
    cloud.create({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n1"}, "status": node})
    cloud.create(resource("siem", "cmdb"))
    cloud.start("--peering", "stackbus", "--service-type", "NodePort")
    cloud.wait_for("Ready", "True", "Exposed")
    cloud.annotate(rotate="siem:0s")
    cloud.wait(lambda: "siem.g2" in cloud.users())
    cloud.set_external(topics=["siem"], settings=None)
    cloud.wait(lambda: cloud.exposed() == ["siem"])
    cloud.delete(KIND, OPENSTACK, NAME)
    cloud.wait(lambda: cloud.get(KIND, OPENSTACK, NAME) is None)
    cloud.end()
    calls = {call for call in cloud.emulator.calls if call.by_operator}
    rules = set(allowed())
    assert {call for call in calls if not any(rule.covers(call) for rule in rules)} == set()
    unused = {rule for rule in rules if not any(rule.covers(call) for call in calls)}
    # Server-side apply creates with PATCH: a real API server asks for `create` beside it.
    creating = {
        rule
        for rule in unused
        if rule.verb == "create"
        and any(
            call.verb == "patch" and f"/{call.resource.rpartition('/')[2]}" == rule.resource
            for call in calls
            if call.namespace == rule.namespace
        )
    }
    assert unused - creating == set()
