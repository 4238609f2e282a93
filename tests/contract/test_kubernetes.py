"""The emulated Kubernetes does what a real one does: the same tests hold both.

``STACKBUS_TEST_KUBECONFIG`` names a real API server's kubeconfig (``make test-kubernetes`` starts
one and sets it); without it only the emulator is held.
"""

from __future__ import annotations

import asyncio
import os
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.kubernetes.emulator import running

from stackbus.clients.kubernetes import Kubernetes
from stackbus.errors import KubernetesError, KubernetesUnreachable
from stackbus.expose.cluster.store import MANAGER

REAL = os.environ.get("STACKBUS_TEST_KUBECONFIG")


@pytest.fixture(params=["emulated", *(["real"] if REAL else [])])
def cluster(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Kubernetes]:
    if request.param == "real":
        monkeypatch.setenv("KUBECONFIG", str(REAL))
        yield Kubernetes(MANAGER)
        return
    with running() as api:
        monkeypatch.setenv("KUBECONFIG", str(api.kubeconfig(tmp_path / "kubeconfig")))
        yield Kubernetes(MANAGER)


@pytest.fixture
def space(cluster: Kubernetes) -> str:
    name = f"test-{uuid.uuid4().hex[:8]}"
    cluster.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
    return name


def secret(space: str, **data: str) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": "one", "namespace": space, "labels": {"a": "b"}},
        "type": "Opaque",
        "data": data,
    }


def service(space: str, kind: str) -> dict[str, Any]:
    ports = [
        {"name": name, "port": port, "targetPort": port, "protocol": "TCP"}
        for name, port in (("amqp", 5672), ("amqp-tls", 5671))
    ]
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "svc", "namespace": space},
        "spec": {"type": kind, "selector": {"x": "y"}, "ports": ports},
    }


def resource(space: str) -> dict[str, Any]:
    return {
        "apiVersion": "lcm.mirantis.com/v1alpha1",
        "kind": "OpenStackDeployment",
        "metadata": {"name": "one", "namespace": space},
        "spec": {"features": {"services": ["compute"]}},
    }


def test_apply_creates_changes_and_takes_its_own_fields_back(
    cluster: Kubernetes, space: str
) -> None:
    first = cluster.apply(secret(space, a="YQ==", b="Yg=="))
    assert first["metadata"]["managedFields"][0]["manager"] == "stackbus"
    assert first["metadata"]["managedFields"][0]["operation"] == "Apply"
    cluster.patch(first, {"data": {"theirs": "eA=="}})
    second = cluster.apply(secret(space, a="YWE="))
    assert second["data"] == {"a": "YWE=", "theirs": "eA=="}
    assert second["metadata"]["uid"] == first["metadata"]["uid"]
    assert second["metadata"]["resourceVersion"] != first["metadata"]["resourceVersion"]


def test_applying_the_same_again_is_no_change(cluster: Kubernetes, space: str) -> None:
    first = cluster.apply(secret(space, a="YQ=="))
    again = cluster.apply(secret(space, a="YQ=="))
    assert again["metadata"]["resourceVersion"] == first["metadata"]["resourceVersion"]


def test_what_is_not_there_is_none_and_its_deletion_no_error(
    cluster: Kubernetes, space: str
) -> None:
    assert cluster.get("Secret", space, "one") is None
    cluster.delete("Secret", space, "one")
    cluster.apply(secret(space, a="YQ=="))
    cluster.delete("Secret", space, "one")
    assert cluster.get("Secret", space, "one") is None
    assert cluster.list("Secret", space) == []


def test_creating_leaves_what_is_there(cluster: Kubernetes, space: str) -> None:
    cluster.create(secret(space, a="YQ=="))
    cluster.create(secret(space, a="Yg=="))
    found = cluster.get("Secret", space, "one")
    assert found is not None
    assert found["data"] == {"a": "YQ=="}


def test_a_namespace_must_be_there(cluster: Kubernetes) -> None:
    with pytest.raises(KubernetesError, match="not found"):
        cluster.apply(secret("test-nowhere", a="YQ=="))


def test_a_change_of_something_that_changed_is_refused(cluster: Kubernetes, space: str) -> None:
    old = cluster.apply(secret(space, a="YQ=="))
    cluster.patch(old, {"data": {"a": "Yg=="}})
    with pytest.raises(KubernetesUnreachable, match="409"):
        cluster.patch(old, {"data": {"a": "Yw=="}}, only_if_unchanged=True)
    new = cluster.get("Secret", space, "one")
    assert new is not None
    assert new["data"] == {"a": "Yg=="}
    cluster.patch(new, {"data": {"a": None}}, only_if_unchanged=True)
    assert not (cluster.get("Secret", space, "one") or {}).get("data")


@pytest.mark.parametrize("kind", ["LoadBalancer", "NodePort", "ClusterIP"])
def test_a_service_gets_what_its_type_needs(cluster: Kubernetes, space: str, kind: str) -> None:
    made = cluster.apply(service(space, kind))
    assert made["spec"]["type"] == kind
    assert made["spec"]["clusterIP"]
    assert [("nodePort" in port) for port in made["spec"]["ports"]] == [kind != "ClusterIP"] * 2
    again = cluster.apply(service(space, kind))
    assert again["metadata"]["resourceVersion"] == made["metadata"]["resourceVersion"]
    cluster.delete("Service", space, "svc")


def test_the_status_is_apart_from_the_rest(cluster: Kubernetes, space: str) -> None:
    cluster.create({**resource(space), "status": {"exposedTopics": 9}})
    found = cluster.get("OpenStackDeployment", space, "one")
    assert found is not None
    assert "status" not in found
    assert found["metadata"]["generation"] == 1

    def written(count: int, *topics: str, kinds: tuple[str, ...] = ("Ready",)) -> dict[str, Any]:
        cluster.apply_status(
            {
                **{key: value for key, value in resource(space).items() if key != "spec"},
                "status": {
                    "exposedTopics": count,
                    "conditions": [{"type": kind, "status": "True"} for kind in kinds],
                    "topics": [{"name": topic, "secret": "s"} for topic in topics],
                },
            }
        )
        now = cluster.get("OpenStackDeployment", space, "one")
        assert now is not None
        return dict(now)

    now = written(2, "a", "b", kinds=("Ready", "Rotated"))
    assert [one["name"] for one in now["status"]["topics"]] == ["a", "b"]
    # The elements that are left out go; those of others stay.
    now = written(1, "b")
    assert [one["name"] for one in now["status"]["topics"]] == ["b"]
    assert [one["type"] for one in now["status"]["conditions"]] == ["Ready"]
    assert now["status"]["exposedTopics"] == 1
    assert now["metadata"]["generation"] == 1
    cluster.patch(now, {"spec": {"features": {"services": ["image"]}}})
    now = dict(cluster.get("OpenStackDeployment", space, "one") or {})
    assert now["metadata"]["generation"] == 2
    assert now["status"]["exposedTopics"] == 1
    cluster.delete("OpenStackDeployment", space, "one")


def test_a_finalizer_holds_a_deletion_back(cluster: Kubernetes, space: str) -> None:
    cluster.create(resource(space))
    found = cluster.get("OpenStackDeployment", space, "one")
    assert found is not None
    cluster.patch(found, {"metadata": {"finalizers": ["stackbus.io/finalizer"]}})
    cluster.delete("OpenStackDeployment", space, "one")
    held = cluster.get("OpenStackDeployment", space, "one")
    assert held is not None
    assert held["metadata"]["deletionTimestamp"]
    cluster.patch(held, {"metadata": {"finalizers": None}})
    assert cluster.get("OpenStackDeployment", space, "one") is None


def test_a_watch_tells_what_is_there_and_what_happens(cluster: Kubernetes, space: str) -> None:
    cluster.apply(secret(space, a="YQ=="))

    async def follow() -> list[str]:
        told = []
        watch = cluster.watch("Secret", space, name="one")
        async with asyncio.timeout(20):
            async for event, found in watch:
                told.append(event)
                assert found["metadata"]["name"] == "one"
                if event == "ADDED" and len(told) == 1:
                    other = secret(space, a="YQ==")
                    other["metadata"]["name"] = "two"
                    cluster.apply(other)
                    cluster.apply(secret(space, a="Yg=="))
                    cluster.delete("Secret", space, "one")
                if event == "DELETED":
                    break
        await watch.aclose()  # type: ignore[attr-defined]
        return told

    assert asyncio.run(follow()) == ["ADDED", "MODIFIED", "DELETED"]
