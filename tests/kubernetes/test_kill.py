"""The operator is killed at every write that it makes, to Kubernetes and to RabbitMQ, one by one.

Each round lets one more write through than the one before, kills at that write (after it was done,
before its answer), starts again, and asks for the same end. A round that ends without a kill is the
last: every write had its turn.
"""

from __future__ import annotations

import copy
import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx
import pytest

from stackbus.errors import BrokerError
from tests.conftest import wipe
from tests.kubernetes.conftest import EXTERNAL, KIND, NAME, OPENSTACK, OWN, Cloud, resource
from tests.kubernetes.emulator import Call, Store

pytestmark = pytest.mark.timeout(900)  # some twenty rounds each


class Killer:
    """Counts the writes of both kinds, and kills at the one that it is armed for."""

    def __init__(self, cloud: Cloud) -> None:
        self._cloud = cloud
        self._lock = threading.Lock()
        self._left: int | None = None
        self.killed_at: str | None = None

    def arm(self, count: int) -> None:
        self.killed_at, self._left = None, count

    def disarm(self) -> None:
        self._left = None

    def written(self, what: str) -> None:
        with self._lock:
            if self._left is None:
                return
            self._left -= 1
            if self._left == 0:
                self._left = None
                self.killed_at = what
                self._cloud.processes[-1].send_signal(signal.SIGKILL)

    def called(self, call: Call) -> None:
        # Events tell people of what was done; the peering is not in use here.
        if call.is_write and call.resource != "v1/events":
            self.written(f"{call.verb} {call.resource} {call.name} {call.subresource}")


def management_proxy(target: str, written: Callable[[str], None]) -> ThreadingHTTPServer:
    """Stand before RabbitMQ's management API, and tell of each write when it is done."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def answer(self) -> None:
            length = int(self.headers.get("Content-Length") or 0)
            body = self.rfile.read(length)
            headers = {
                name: value
                for name, value in self.headers.items()
                if name.lower() in ("authorization", "content-type")
            }
            done = httpx.request(
                self.command, target + self.path, content=body, headers=headers, timeout=60
            )
            if self.command != "GET":
                written(f"{self.command} {self.path}")
            try:
                self.send_response(done.status_code)
                self.send_header("Content-Length", str(len(done.content)))
                self.end_headers()
                self.wfile.write(done.content)
            except OSError:
                pass  # the one who asked was killed

        do_GET = do_POST = do_PUT = do_DELETE = answer  # noqa: N815 -- http.server's names

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server


@pytest.fixture
def killer(cloud: Cloud) -> Iterator[Killer]:
    found = Killer(cloud)
    cloud.emulator.after = found.called
    server = management_proxy(cloud.broker.description.management_url, found.written)
    cloud.broker_secret(management_url=f"http://127.0.0.1:{server.server_port}")
    yield found
    found.disarm()
    server.shutdown()
    server.server_close()


def rounds(
    cloud: Cloud,
    killer: Killer,
    prepare: Callable[[], None],
    act: Callable[[], None],
    is_done: Callable[[], bool],
) -> list[str]:
    """Kill at every write of ``act``; give what it was killed at."""

    def is_there() -> bool:
        try:
            return is_done()
        except BrokerError:
            return False  # RabbitMQ answers 500 while a vhost comes or goes

    killed: list[str] = []
    while True:
        prepare()
        act()
        killer.arm(len(killed) + 1)
        cloud.start("--advertise", "bus.example.org")
        cloud.wait(lambda: killer.killed_at is not None or is_there())
        if killer.killed_at is None:
            killer.disarm()
            cloud.end()
            return killed
        killed.append(killer.killed_at)
        cloud.end(signal.SIGKILL)
        cloud.start("--advertise", "bus.example.org")
        cloud.wait(is_there)
        cloud.end()


def reset(cloud: Cloud) -> None:
    """Begin anew: nothing in the cluster, nothing in the broker."""
    store = cloud.emulator.store
    kept = ("v1/namespaces", "v1/nodes")
    for key in [key for key in store.objects if key[0] not in kept]:
        if key[2] != "stackbus-broker":
            del store.objects[key]
    store.applied.clear()
    wipe(cloud.broker)


def is_exposed(cloud: Cloud, *topics: str, generation: int = 1) -> bool:
    """Tell whether everything is as it should be, and nothing is left over."""
    users = [f"{topic}.g{generation}" for topic in sorted(topics)]
    if [user for user in cloud.users() if not user.startswith("stackbus.")] != users:
        return False
    if cloud.condition("Ready").get("status") != "True":
        return False
    if cloud.names("Secret", EXTERNAL) != [f"openstack-{topic}-notifications" for topic in topics]:
        return False
    queues = {queue.rpartition(".")[0] for queue in cloud.queues()} - {"stackbus"}
    annotations = cloud.resource()["metadata"].get("annotations") or {}
    return (
        queues == set(topics)
        and "stackbus.io/rotating" not in annotations
        and "stackbus.io/rotate" not in annotations
        and cloud.names("Secret", OWN)
        == [
            *(f"openstack-{topic}-notifications" for topic in topics),
            *("stackbus-ca", "stackbus-relay", "stackbus-server", "stackbus-users"),
        ]
    )


def test_creating_survives_a_kill_at_every_write(cloud: Cloud, killer: Killer) -> None:
    killed = rounds(
        cloud,
        killer,
        prepare=lambda: reset(cloud),
        act=lambda: cloud.create(resource("siem")),
        is_done=lambda: is_exposed(cloud, "siem"),
    )
    assert any("secrets openstack-siem-notifications" in one for one in killed)
    assert any("POST /api/definitions" in one for one in killed)
    assert any("status" in one for one in killed)
    assert len(killed) >= 10


@dataclass
class Before:
    """The state with one topic exposed and no operator: made once, then put back."""

    cloud: Cloud
    definitions: Mapping[str, object] | None = None
    store: Store | None = None

    def __call__(self) -> None:
        store = self.cloud.emulator.store
        if self.definitions is None or self.store is None:
            reset(self.cloud)
            self.cloud.create(resource("siem"))
            self.cloud.start("--advertise", "bus.example.org")
            self.cloud.wait_for_quietly("Ready", "True")
            self.cloud.end()
            self.definitions = self.cloud.broker.management.definitions()
            self.store = copy.deepcopy(store)
            return
        wipe(self.cloud.broker)
        self.cloud.broker.management.import_definitions(self.definitions)
        kept = copy.deepcopy(self.store)
        store.objects, store.applied = kept.objects, kept.applied


def test_changing_survives_a_kill_at_every_write(cloud: Cloud, killer: Killer) -> None:
    killed = rounds(
        cloud,
        killer,
        prepare=Before(cloud),
        act=lambda: cloud.set_external(topics=["cmdb"], settings={"siem": None}),
        is_done=lambda: is_exposed(cloud, "cmdb"),
    )
    assert any("DELETE /api/users/siem.g1" in one for one in killed)
    assert any("secrets openstack-cmdb-notifications" in one for one in killed)


def test_rotating_survives_a_kill_at_every_write(cloud: Cloud, killer: Killer) -> None:
    killed = rounds(
        cloud,
        killer,
        prepare=Before(cloud),
        act=lambda: cloud.annotate(rotate="siem:0s"),
        is_done=lambda: is_exposed(cloud, "siem", generation=2),
    )
    assert any("openstackdeployments" in one for one in killed)
    assert any("DELETE /api/users/siem.g1" in one for one in killed)


def test_deleting_survives_a_kill_at_every_write(cloud: Cloud, killer: Killer) -> None:
    killed = rounds(
        cloud,
        killer,
        prepare=Before(cloud),
        act=lambda: cloud.delete(KIND, OPENSTACK, NAME),
        is_done=lambda: cloud.get(KIND, OPENSTACK, NAME) is None and cloud.is_bare(),
    )
    assert any("DELETE /api/users/siem.g1" in one for one in killed)
    assert any("delete v1/secrets" in one for one in killed)
