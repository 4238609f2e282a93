"""What the operator's tests stand on: an emulated Kubernetes, a real RabbitMQ, the real command.

``Cloud`` is one cluster with one broker. ``STACKBUS_TEST_KUBECONFIG`` puts a real API server in
the emulator's place, with the operator as ``STACKBUS_TEST_OPERATOR`` says (``make test-kubernetes``);
tests that inject faults into the emulator are left out then.
"""

from __future__ import annotations

import base64
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from tests.conftest import Broker, wait_until
from tests.kubernetes.emulator import Emulator, running

REAL = os.environ.get("STACKBUS_TEST_KUBECONFIG")
KIND = "OpenStackDeployment"
OPENSTACK, EXTERNAL, OWN = "openstack", "openstack-external", "stackbus"
BROKER_SECRET = "stackbus-broker"
NAME = "openstack-cluster"


def resource(*topics: str, name: str = NAME, **external: object) -> dict[str, Any]:
    """Give an OpenStackDeployment; queues are classic, which are made faster."""
    settings = {topic: {"queue": {"type": "classic"}} for topic in topics}
    block = {"enabled": True, "topics": list(topics), "settings": settings, **external}
    return {
        "apiVersion": "lcm.mirantis.com/v1alpha1",
        "kind": KIND,
        "metadata": {"name": name, "namespace": OPENSTACK},
        "spec": {
            "preset": "compute",
            "features": {"messaging": {"notifications": {"external": block}}},
        },
    }


def secret(namespace: str, name: str, data: Mapping[str, str]) -> dict[str, Any]:
    """Give somebody's Secret."""
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": name, "namespace": namespace},
        "type": "Opaque",
        "data": {key: base64.b64encode(value.encode()).decode() for key, value in data.items()},
    }


@dataclass
class Cloud:
    """A cluster with a broker, and how tests act in it: as the administrator, and as others."""

    api: httpx.Client
    kubeconfig: Path
    broker: Broker
    folder: Path
    emulated: Emulator | None = None
    processes: list[subprocess.Popen[bytes]] = field(default_factory=list)

    @property
    def emulator(self) -> Emulator:
        self.needs_emulator()
        assert self.emulated is not None
        return self.emulated

    def needs_emulator(self) -> None:
        if self.emulated is None:
            pytest.skip("needs the emulator")

    # As kubectl

    def path(self, kind: str, namespace: str, name: str = "") -> str:
        plural = {"OpenStackDeployment": "openstackdeployments"}.get(kind, f"{kind.lower()}s")
        group = {
            KIND: "apis/lcm.mirantis.com/v1alpha1",
            "ClusterKopfPeering": "apis/kopf.dev/v1",
        }.get(kind, "api/v1")
        where = f"/namespaces/{namespace}" if namespace else ""
        return f"/{group}{where}/{plural}" + (f"/{name}" if name else "")

    def create(self, document: dict[str, Any]) -> None:
        path = self.path(document["kind"], document["metadata"].get("namespace", ""))
        answer = self.api.post(path, json=document)
        assert answer.is_success, answer.text

    def get(self, kind: str, namespace: str, name: str) -> dict[str, Any] | None:
        answer = self.api.get(self.path(kind, namespace, name))
        if answer.status_code == 404:
            return None
        assert answer.is_success, answer.text
        value: dict[str, Any] = answer.json()
        return value

    def names(self, kind: str, namespace: str) -> list[str]:
        items = self.api.get(self.path(kind, namespace)).json()["items"]
        hidden = ("kube-root-ca.crt",)
        names = [one["metadata"]["name"] for one in items]
        return sorted(one for one in names if one not in hidden)

    def patch(
        self, kind: str, namespace: str, name: str, change: object, subresource: str = ""
    ) -> None:
        path = self.path(kind, namespace, name) + (f"/{subresource}" if subresource else "")
        answer = self.api.patch(
            path,
            content=json.dumps(change),
            headers={"Content-Type": "application/merge-patch+json"},
        )
        assert answer.is_success, answer.text

    def delete(self, kind: str, namespace: str, name: str) -> None:
        answer = self.api.delete(self.path(kind, namespace, name))
        assert answer.is_success, answer.text

    def resource(self, name: str = NAME) -> dict[str, Any]:
        found = self.get(KIND, OPENSTACK, name)
        assert found is not None
        return found

    def set_external(self, **external: object) -> None:
        self.patch(
            KIND,
            OPENSTACK,
            NAME,
            {"spec": {"features": {"messaging": {"notifications": {"external": external}}}}},
        )

    def annotate(self, **annotations: str | None) -> None:
        change = {f"stackbus.io/{name}": value for name, value in annotations.items()}
        self.patch(KIND, OPENSTACK, NAME, {"metadata": {"annotations": change}})

    def secret(self, topic: str) -> dict[str, str] | None:
        found = self.get("Secret", EXTERNAL, f"openstack-{topic}-notifications")
        if found is None:
            return None
        return {key: base64.b64decode(value).decode() for key, value in found["data"].items()}

    def events(self) -> list[tuple[str, str]]:
        items = self.api.get("/api/v1/namespaces/openstack/events").json()["items"]
        return [(one["reason"], one["message"]) for one in items]

    # As others: the load balancer, the broker's administrator

    def give_address(self, *addresses: str) -> None:
        """Do what a load balancer's controller does."""
        ingress = [{"ip": address} for address in addresses]
        change = {"status": {"loadBalancer": {"ingress": ingress}}}
        wait_until(lambda: self.get("Service", OPENSTACK, "rabbitmq-external"), 30, self.said())
        self.patch("Service", OPENSTACK, "rabbitmq-external", change, "status")

    def broker_secret(self, **others: str) -> None:
        description = self.broker.description
        data = {
            "management_url": description.management_url,
            "amqp_url": f"amqp://{description.amqp_host}:{description.ports.amqp}",
            "username": description.username,
            "password": description.password,
            **others,
        }
        document = secret(OPENSTACK, BROKER_SECRET, data)
        if self.get("Secret", OPENSTACK, BROKER_SECRET) is None:
            self.create(document)
        else:
            self.patch("Secret", OPENSTACK, BROKER_SECRET, {"data": document["data"]})

    # The operator

    def start(self, *arguments: str, **environment: str) -> subprocess.Popen[bytes]:
        """Start an operator, as its Deployment does."""
        with (self.folder / "operator.log").open("ab") as log:
            process = subprocess.Popen(
                [
                    sys.executable,
                    "-m",
                    "stackbus",
                    "operator",
                    "--broker-secret",
                    f"{OPENSTACK}/{BROKER_SECRET}",
                    *arguments,
                ],
                stdout=log,
                stderr=log,
                env={
                    **os.environ,
                    "KUBECONFIG": str(self.kubeconfig),
                    "STACKBUS_RESYNC": "300",
                    **environment,
                },
            )
        self.processes.append(process)
        return process

    def end(self, number: signal.Signals = signal.SIGTERM) -> None:
        """End every operator."""
        for process in self.processes:
            if process.poll() is None:
                process.send_signal(number)
        for process in self.processes:
            process.wait(30)
        self.processes.clear()

    def said(self) -> str:
        """Give the end of the operator's log."""
        path = self.folder / "operator.log"
        return path.read_text("utf-8", "replace")[-6000:] if path.exists() else ""

    # What is waited for

    def condition(self, kind: str, name: str = NAME) -> dict[str, Any]:
        found = self.get(KIND, OPENSTACK, name)
        conditions = ((found or {}).get("status") or {}).get("conditions") or []
        return next((one for one in conditions if one["type"] == kind), {})

    def wait_for(
        self, kind: str, status: str, reason: str = "", *, name: str = NAME, seconds: float = 60
    ) -> dict[str, Any]:
        """Wait until a condition says so, of the resource as it is now."""

        def says_so() -> bool:
            found = self.resource(name)
            generation = (found.get("status") or {}).get("observedGeneration")
            condition = self.condition(kind, name)
            return (
                generation == found["metadata"]["generation"]
                and condition.get("status") == status
                and reason in ("", condition.get("reason"))
            )

        self.wait(says_so, seconds)
        return self.condition(kind, name)

    def wait_for_quietly(self, kind: str, status: str) -> None:
        """Wait until a condition says so, while the API server refuses much."""
        self.wait(lambda: self.condition(kind).get("status") == status, 90)

    def wait(self, true: Callable[[], object], seconds: float = 60) -> None:
        try:
            wait_until(true, seconds)
        except AssertionError:
            current = self.get(KIND, OPENSTACK, NAME)
            status = json.dumps((current or {}).get("status"), indent=1)
            pytest.fail(f"not true after {seconds} s\n{status}\n{self.said()}")

    # What is in the broker

    def users(self) -> list[str]:
        return sorted(
            str(user["name"])
            for user in self._definitions("users")
            if user["name"] != self.broker.description.username
        )

    def queues(self) -> list[str]:
        return sorted(str(queue["name"]) for queue in self._definitions("queues"))

    def policies(self) -> list[str]:
        return sorted(str(policy["name"]) for policy in self._definitions("policies"))

    def exposed(self) -> list[str]:
        return sorted(
            user.rpartition(".g")[0] for user in self.users() if not user.startswith("stackbus.")
        )

    def is_bare(self) -> bool:
        """Tell whether nothing of ours is left anywhere."""
        definitions = self.broker.management.definitions()
        ledger = [one["name"] for one in definitions.get("global_parameters", [])]  # type: ignore[attr-defined]
        return not (
            self.users()
            or self.queues()
            or "stackbus" in ledger
            or self._definitions("policies")
            or self.names("Secret", EXTERNAL)
            or self.names("Secret", OWN)
            or self.names("Secret", OPENSTACK) != [BROKER_SECRET]
            or "rabbitmq-external" in self.names("Service", OPENSTACK)
            or self.names("ConfigMap", OPENSTACK)
        )

    def _definitions(self, section: str) -> list[Mapping[str, object]]:
        listed = self.broker.management.definitions()[section]
        assert isinstance(listed, list)
        return listed


@pytest.fixture
def cloud(clean: Broker, tmp_path: Path) -> Iterator[Cloud]:
    """Give a cluster whose load balancer gives no address yet."""
    with real_cloud(clean, tmp_path) if REAL else emulated_cloud(clean, tmp_path) as made:
        yield made


@contextmanager
def emulated_cloud(broker: Broker, folder: Path) -> Iterator[Cloud]:
    """Give an emulated cluster with ``broker``."""
    with running() as api, httpx.Client(base_url=api.url, timeout=20) as client:
        kubeconfig = api.kubeconfig(folder / "kubeconfig")
        with _prepared(Cloud(client, kubeconfig, broker, folder, api.emulator)) as made:
            yield made


@contextmanager
def real_cloud(broker: Broker, folder: Path) -> Iterator[Cloud]:
    """Give the real cluster, emptied."""
    with as_administrator(Path(str(REAL))) as client:
        empty(client)
        kubeconfig = Path(os.environ["STACKBUS_TEST_OPERATOR"])
        with _prepared(Cloud(client, kubeconfig, broker, folder)) as made:
            yield made


@contextmanager
def _prepared(made: Cloud) -> Iterator[Cloud]:
    for name in (OPENSTACK, EXTERNAL, OWN):
        document = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}
        made.api.post("/api/v1/namespaces", json=document)
    made.broker_secret()
    try:
        yield made
    finally:
        with suppress(subprocess.TimeoutExpired):
            made.end(signal.SIGKILL)


def as_administrator(kubeconfig: Path) -> httpx.Client:
    """Read server and token of a real API server's kubeconfig."""
    document = yaml.safe_load(kubeconfig.read_text())
    token = document["users"][0]["user"]["token"]
    return httpx.Client(
        base_url=document["clusters"][0]["cluster"]["server"],
        headers={"Authorization": f"Bearer {token}"},
        verify=False,  # noqa: S501 -- a server of ours, on loopback
        timeout=20,
    )


def empty(client: httpx.Client) -> None:
    """Remove what an earlier test left in a real cluster."""
    group = "/apis/lcm.mirantis.com/v1alpha1"
    for one in client.get(f"{group}/openstackdeployments").json()["items"]:
        where = one["metadata"]
        path = f"{group}/namespaces/{where['namespace']}/openstackdeployments/{where['name']}"
        headers = {"Content-Type": "application/merge-patch+json"}
        client.patch(path, content=b'{"metadata": {"finalizers": null}}', headers=headers)
        client.delete(path)
    for namespace in (OPENSTACK, EXTERNAL, OWN):
        for plural in ("secrets", "configmaps", "events"):
            client.delete(f"/api/v1/namespaces/{namespace}/{plural}")
        client.delete(f"/api/v1/namespaces/{namespace}/services/rabbitmq-external")
    client.delete("/api/v1/nodes/n1")
    client.delete("/apis/kopf.dev/v1/clusterkopfpeerings/stackbus")
