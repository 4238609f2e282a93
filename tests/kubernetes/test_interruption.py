"""A reconcile that ends after any of its writes is completed by the next one.

Each round ends one reconcile after one more write than the round before: the write to Kubernetes
or to RabbitMQ is done, the reconciler never reads the answer. A new reconciler then finishes, and
the result must equal that of a reconcile that nothing ended. The rounds are over when a reconcile
has fewer writes than that. The writes that kopf makes are in test_kill.py, where a real operator
process is killed.
"""

from __future__ import annotations

import base64
import difflib
import json
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from typing import Any
from urllib.parse import urlsplit

import pytest

from stackbus.clients.http import HttpTransport, Response
from stackbus.clients.kubernetes import Kubernetes
from stackbus.clients.management import Management
from stackbus.errors import BrokerError, KubernetesUnreachable
from stackbus.expose.cluster import Object
from stackbus.expose.cluster.endpoint import Access
from stackbus.expose.cluster.reconcile import Reconciler
from stackbus.expose.cluster.store import MANAGER
from stackbus.expose.kinds.user import is_password
from stackbus.settings import Settings
from tests.conftest import wait_until, wipe
from tests.kubernetes.conftest import (
    BROKER_SECRET,
    EXTERNAL,
    KIND,
    NAME,
    OPENSTACK,
    OWN,
    Cloud,
    resource,
)

FINALIZER = "stackbus.io/finalizer"
PLAIN_KEYS = ("hosts", "port_amqp", "port_amqp-tls", "vhost", "username")
"""Keys of a Secret whose values are not drawn at random."""


class Death(BaseException):
    """The process has ended: no handler of the product catches this."""


@dataclass
class Lifetime:
    """Counts the writes of one reconciler, and ends it after write number ``limit``."""

    limit: int | None = None
    writes: list[str] = field(default_factory=list)

    def count(self, write: str) -> None:
        self.writes.append(write)
        if len(self.writes) == self.limit:
            raise Death(write)


class CountedKubernetes:
    """Kubernetes, with each write counted once the API server has done it."""

    def __init__(self, kubernetes: Kubernetes, lifetime: Lifetime) -> None:
        self._kubernetes = kubernetes
        self._lifetime = lifetime
        self.get = kubernetes.get
        self.list = kubernetes.list

    def create(self, wanted: Object) -> None:
        self._kubernetes.create(wanted)
        self._count("create", wanted)

    def apply(self, wanted: Object) -> Object:
        applied = self._kubernetes.apply(wanted)
        self._count("apply", wanted)
        return applied

    def apply_status(self, wanted: Object) -> None:
        self._kubernetes.apply_status(wanted)
        self._count("apply status", wanted)

    def patch(self, found: Object, change: Object, *, only_if_unchanged: bool = False) -> None:
        self._kubernetes.patch(found, change, only_if_unchanged=only_if_unchanged)
        self._count("patch", found)

    def delete(self, kind: str, namespace: str, name: str) -> None:
        self._kubernetes.delete(kind, namespace, name)
        self._lifetime.count(f"delete {kind} {name}")

    def _count(self, verb: str, written: Object) -> None:
        self._lifetime.count(f"{verb} {written['kind']} {written['metadata']['name']}")


class CountedTransport(HttpTransport):
    """HTTP to RabbitMQ's management API, with each write counted once the broker has done it."""

    def __init__(self, lifetime: Lifetime) -> None:
        super().__init__()
        self._lifetime = lifetime

    def send(
        self, method: str, url: str, headers: Mapping[str, str], body: bytes | None = None
    ) -> Response:
        response = super().send(method, url, headers, body)
        if method != "GET":
            self._lifetime.count(f"{method} {urlsplit(url).path}")
        return response


Step = Callable[[Reconciler], None]
"""What one reconciler is asked to do."""


@dataclass(frozen=True)
class Bench:
    """A cloud whose operator is called directly, one reconciler after the other."""

    cloud: Cloud
    kubernetes: Kubernetes

    def run(self, step: Step, limit: int | None = None) -> list[str]:
        """Do ``step`` with a new reconciler; return its writes. ``limit``: it dies after so many."""
        lifetime = Lifetime(limit)

        def connect(access: Access) -> Management:
            transport = CountedTransport(lifetime)
            return Management(
                access.management_url, access.username, access.password, transport=transport
            )

        settings = Settings(
            broker_secret=f"{OPENSTACK}/{BROKER_SECRET}", advertise=["bus.example.org"]
        )
        kubernetes = CountedKubernetes(self.kubernetes, lifetime)
        reconciler = Reconciler(kubernetes, connect, settings, lambda: datetime.now(UTC))
        try:
            step(reconciler)
        except Death:
            assert limit is not None
        return lifetime.writes

    def complete(self, step: Step) -> None:
        """Do ``step`` without an end; try again, as the operator does, while others are busy."""

        def is_complete() -> bool:
            try:
                self.run(step)
            except (BrokerError, KubernetesUnreachable):  # while RabbitMQ removes a vhost
                return False
            return True

        wait_until(is_complete)

    def result(self) -> str:
        """Return what is in Kubernetes and RabbitMQ, without what is drawn at random."""
        store = self.cloud.emulator.store
        objects = {
            " ".join(key): without_chance(found)
            for key, found in store.objects.items()
            if key[0] not in ("v1/events", "v1/namespaces")
        }
        definitions = self.cloud.broker.management.definitions()
        broker = {
            section: sorted(map(without_hashes, definitions[section]), key=repr)  # type: ignore[call-overload]
            for section in (
                *("users", "vhosts", "permissions", "policies", "exchanges", "queues", "bindings"),
                "global_parameters",
            )
        }
        text = json.dumps([objects, broker], indent=1, sort_keys=True)
        return re.sub(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d[.0-9]*(Z|\+00:00)", "TIME", text)

    def check_passwords(self) -> None:
        """Check that RabbitMQ has the passwords of the Secrets."""
        users: Any = self.cloud.broker.management.definitions()["users"]
        hashes = {user["name"]: user["password_hash"] for user in users}
        originals = self.secrets(OWN)
        for name, data in self.secrets(EXTERNAL).items():
            assert originals[name] == data
            assert is_password(data["password"], hashes[data["username"]])
        for user, password in originals.get("stackbus-users", {}).items():
            assert is_password(password, hashes[user])

    def secrets(self, namespace: str) -> dict[str, dict[str, str]]:
        return {
            key[2]: {k: base64.b64decode(v).decode() for k, v in found["data"].items()}
            for key, found in self.cloud.emulator.store.objects.items()
            if key[:2] == ("v1/secrets", namespace)
        }


def without_chance(found: Mapping[str, Any]) -> dict[str, Any]:
    metadata = found["metadata"]
    kept: dict[str, Any] = {key: found[key] for key in ("type", "spec", "status") if key in found}
    kept["metadata"] = {
        "labels": metadata.get("labels"),
        "annotations": metadata.get("annotations") or {},
        "deleted": "deletionTimestamp" in metadata,
    }
    if found["kind"] == "Secret":
        data = found["data"]
        kept["data"] = {key: data[key] if key in PLAIN_KEYS else bool(data[key]) for key in data}
    elif "data" in found:
        kept["data"] = found["data"]
    (kept.get("status") or {}).pop("observedGeneration", None)
    return kept


def without_hashes(definition: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in definition.items() if key != "password_hash"}


@pytest.fixture
def bench(cloud: Cloud, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    cloud.needs_emulator()
    monkeypatch.setenv("KUBECONFIG", str(cloud.kubeconfig))
    kubernetes = Kubernetes(MANAGER)
    with closing(kubernetes._client._client._client):
        yield Bench(cloud, kubernetes)


def ignore(kind: str, reason: str, message: str) -> None:
    """Take an event and forget it: those of a reconcile that died are lost."""


def reconcile(reconciler: Reconciler) -> None:
    reconciler.reconcile(OPENSTACK, NAME, ignore)


def withdraw(reconciler: Reconciler) -> None:
    reconciler.withdraw(OPENSTACK, NAME, ignore)


@dataclass(frozen=True)
class Act:
    """What an administrator does, what a reconciler makes of it, and what must come of it."""

    begin: Callable[[], None]
    step: Step
    result: str = ""
    end: Callable[[], None] = lambda: None

    def round(self, bench: Bench, limit: int | None) -> tuple[list[str], str]:
        """Do it with a reconciler that dies after ``limit`` writes and one that completes."""
        self.begin()
        writes = bench.run(self.step, limit)
        if limit is not None:
            bench.complete(self.step)
        self.end()
        bench.check_passwords()
        return writes, bench.result()


def rounds(bench: Bench, *acts: Act, plain: Callable[[str], str] = str) -> list[str]:
    """Let the reconciler of each act die after each of its writes; return all the writes.

    The acts follow each other in a ring: the last one leaves what the first one begins with.
    """
    references = [act.round(bench, None) for act in acts]
    expected = [plain(result) for _, result in references]
    most = max(len(writes) for writes, _ in references)
    for limit in range(1, most + 1):
        for act, (writes, _), result in zip(acts, references, expected, strict=True):
            made, came = act.round(bench, limit if limit <= len(writes) else None)
            changed = "\n".join(
                difflib.unified_diff(result.splitlines(), plain(came).splitlines(), lineterm="")
            )
            assert not changed, f"after write {limit}, {made[-1]}:\n{changed}"
    return [write for writes, _ in references for write in writes]


def test_a_create_and_a_delete_are_completed(bench: Bench) -> None:
    cloud = bench.cloud
    document = resource("siem")
    document["metadata"]["finalizers"] = [FINALIZER]

    def create() -> None:
        wipe(cloud.broker)  # a deletion leaves the vhosts to whoever else uses them
        cloud.create(document)

    def remove_finalizer() -> None:
        cloud.patch(KIND, OPENSTACK, NAME, {"metadata": {"finalizers": None}})
        assert cloud.is_bare()

    writes = rounds(
        bench,
        Act(begin=create, step=reconcile),
        Act(
            begin=partial(cloud.delete, KIND, OPENSTACK, NAME),
            step=withdraw,
            end=remove_finalizer,
        ),
    )
    assert "apply Secret openstack-siem-notifications" in writes
    assert "apply Service rabbitmq-external" in writes
    assert "POST /api/definitions" in writes
    assert f"apply status {KIND} {NAME}" in writes
    assert "DELETE /api/users/siem.g1" in writes
    assert "delete Secret openstack-siem-notifications" in writes
    assert "delete Service rabbitmq-external" in writes


def test_a_change_of_topics_is_completed(bench: Bench) -> None:
    cloud = bench.cloud
    cloud.create(resource("siem"))
    bench.run(reconcile)
    writes = rounds(
        bench,
        Act(begin=partial(cloud.set_external, topics=["cmdb"], settings=None), step=reconcile),
        Act(begin=partial(cloud.set_external, topics=["siem"], settings=None), step=reconcile),
    )
    assert "DELETE /api/users/siem.g1" in writes
    assert "apply Secret openstack-cmdb-notifications" in writes


def test_a_rotation_is_completed(bench: Bench) -> None:
    cloud = bench.cloud
    cloud.create(resource("siem"))
    bench.run(reconcile)
    generation = 1

    def rotate() -> None:
        nonlocal generation
        generation += 1
        cloud.annotate(rotate="siem:0s")

    def plain(result: str) -> str:
        """Name every generation alike; how often topics were rotated is counted here."""
        encoded = base64.b64encode(f"siem.g{generation}".encode()).decode()
        assert encoded in result
        number = rf'("generation": |siem\.g){generation}\b'
        return re.sub(number, r"\1N", result.replace(encoded, "siem.gN"))

    writes = rounds(bench, Act(begin=rotate, step=reconcile), plain=plain)
    assert writes.count(f"patch {KIND} {NAME}") == 2
    assert "DELETE /api/users/siem.g2" not in writes
    assert "DELETE /api/users/siem.g1" in writes
