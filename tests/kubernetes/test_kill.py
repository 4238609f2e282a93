"""The operator's process is killed, with SIGKILL, while it works; the next one completes its work.

Each act of a resource's life is killed at a few writes, one after the other: those that kopf makes
(the finalizer, the progress of a handler), and one or more of stackbus. The write is done, its
answer never read. test_interruption.py ends the reconcile alone after every write that it makes.
"""

from __future__ import annotations

import re
import signal
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx
import pytest

from stackbus.errors import BrokerError
from tests.kubernetes.conftest import EXTERNAL, KIND, NAME, OPENSTACK, OWN, Cloud, resource
from tests.kubernetes.emulator import Call


class Killer:
    """Kills the operator at the first write that matches a pattern."""

    def __init__(self, cloud: Cloud) -> None:
        self._cloud = cloud
        self._pattern: str | None = None
        self._lock = threading.Lock()

    @property
    def has_killed(self) -> bool:
        return self._pattern is None

    def arm(self, pattern: str) -> None:
        self._pattern = pattern

    def check_write(self, write: str) -> None:
        with self._lock:
            if self._pattern is not None and re.fullmatch(self._pattern, write):
                self._pattern = None
                self._cloud.processes[-1].send_signal(signal.SIGKILL)

    def check_call(self, call: Call) -> None:
        if call.is_write:
            plural = call.resource.rpartition("/")[2]
            words = (call.verb, plural, call.name, call.subresource)
            self.check_write(" ".join(word for word in words if word))


def management_proxy(target: str, report_write: Callable[[str], None]) -> ThreadingHTTPServer:
    """Stand before RabbitMQ's management API, and report each write once the broker has done it."""

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
                report_write(f"{self.command} {self.path}")
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
    killer = Killer(cloud)
    cloud.emulator.after = killer.check_call
    server = management_proxy(cloud.broker.description.management_url, killer.check_write)
    cloud.broker_secret(management_url=f"http://127.0.0.1:{server.server_port}")
    yield killer
    server.shutdown()
    server.server_close()


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


PATCH = f"patch openstackdeployments {NAME}"
"""kopf's patch of the resource, or a rotation's: not that of the status."""


def act(
    cloud: Cloud,
    killer: Killer,
    begin: Callable[[], None],
    kills: list[str],
    end: Callable[[], bool],
) -> None:
    """Kill an operator at each of ``kills`` in turn; wait until the next one reaches the end."""

    def is_complete() -> bool:
        try:
            return end()
        except BrokerError:
            return False  # RabbitMQ answers 500 while a vhost comes or goes

    begin()
    for pattern in kills:
        killer.arm(pattern)
        cloud.start("--advertise", "bus.example.org")
        cloud.wait(lambda: killer.has_killed)
        cloud.end(signal.SIGKILL)
    cloud.start("--advertise", "bus.example.org")
    cloud.wait(is_complete)
    cloud.end()


def test_a_killed_operators_work_is_completed_by_the_next(cloud: Cloud, killer: Killer) -> None:
    act(
        cloud,
        killer,
        begin=lambda: cloud.create(resource("siem")),
        kills=[
            PATCH,
            "patch secrets openstack-siem-notifications",
            "POST /api/definitions",
            f"{PATCH} status",
        ],
        end=lambda: is_exposed(cloud, "siem"),
    )
    act(
        cloud,
        killer,
        begin=lambda: cloud.set_external(topics=["cmdb"], settings={"siem": None}),
        kills=["PUT /api/global-parameters/stackbus", "DELETE /api/users/siem.g1"],
        end=lambda: is_exposed(cloud, "cmdb"),
    )
    act(
        cloud,
        killer,
        begin=lambda: cloud.annotate(rotate="cmdb:0s"),
        kills=[PATCH, "DELETE /api/users/cmdb.g1"],
        end=lambda: is_exposed(cloud, "cmdb", generation=2),
    )
    act(
        cloud,
        killer,
        begin=lambda: cloud.delete(KIND, OPENSTACK, NAME),
        kills=["DELETE /api/users/cmdb.g2", "delete secrets openstack-cmdb-notifications", PATCH],
        end=lambda: cloud.get(KIND, OPENSTACK, NAME) is None and cloud.is_bare(),
    )
