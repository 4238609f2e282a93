"""What the tests stand on: captured notifications, and real RabbitMQ nodes on loopback.

Two nodes at most run in one session, each started when the first test asks for it: ``bus`` is a
whole private bus as ``stackbus up`` makes it, ``bare`` a node without anything of ours on it.
``STACKBUS_RABBITMQ_SERVER`` says which RabbitMQ they run, as it does for users.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import MappingProxyType

import pika
import pika.exceptions
import pytest
import yaml
from pika.adapters.blocking_connection import BlockingChannel

from stackbus.broker.node import Description, Node, NodeOptions
from stackbus.broker.supervisor import Child, Supervisor
from stackbus.clients.management import Management
from stackbus.errors import BrokerError
from stackbus.expose.apply import Exposure
from stackbus.expose.deployment import NOTHING, Deployment, Topic
from stackbus.expose.secrets import NAMESPACE, FolderStore
from stackbus.settings import Settings
from stackbus.wiring.broker import open_broker, private_endpoint
from stackbus.wiring.control import create_first_credentials, plan_and_apply

# A shell that starts us in the background has SIGINT ignored, and so would every child.
signal.signal(signal.SIGINT, signal.default_int_handler)

GOLDEN = Path(__file__).parent / "golden"
SERVER = Path(os.environ.get("STACKBUS_RABBITMQ_SERVER", "/usr/lib/rabbitmq/bin/rabbitmq-server"))


@dataclass(frozen=True)
class Captured:
    """One captured notification, as a service sent it."""

    service: str
    exchange: str
    routing_key: str
    body: bytes

    def message(self) -> dict[str, object]:
        """Give the notification out of its envelope."""
        value = json.loads(json.loads(self.body)["oslo.message"])
        assert isinstance(value, dict)
        return value


def golden() -> list[Captured]:
    """Give every captured notification, one of each service, event type and routing key.

    ``golden/<service>/<event type>.<notification topic>.<priority>.json`` is the body as sent, on
    the exchange of the service's name (`make golden` writes them).
    """
    found = []
    for path in sorted(GOLDEN.glob("*/*.json")):
        routing_key = ".".join(path.stem.split(".")[-2:])
        service = path.parent.name
        found.append(Captured(service, service, routing_key, path.read_bytes()))
    return found


def wait_until(true: Callable[[], object], seconds: float = 30.0, what: str = "") -> None:
    """Ask until it is true; fail with ``what`` after ``seconds``."""
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, what or "it did not become true"
        time.sleep(0.05)


@dataclass(frozen=True)
class Broker:
    """A running node and how tests get at it: as its administrator."""

    state: Path
    description: Description
    management: Management
    supervisor: Supervisor | None = None

    def connect(
        self, vhost: str, user: str | None = None, password: str = ""
    ) -> pika.BlockingConnection:
        """Open a connection, as the administrator or as ``user``."""
        credentials = pika.PlainCredentials(
            user or self.description.username, password or self.description.password
        )
        return pika.BlockingConnection(
            pika.ConnectionParameters(
                self.description.amqp_host,
                self.description.ports.amqp,
                vhost,
                credentials,
                socket_timeout=20,
                blocked_connection_timeout=60,
            )
        )

    @contextmanager
    def channel(self, vhost: str) -> Iterator[BlockingChannel]:
        """Give an administrator's channel in ``vhost``, with every permission there."""
        self.allow(vhost)
        connection = self.connect(vhost)
        try:
            yield connection.channel()
        finally:
            if connection.is_open:
                connection.close()

    def allow(self, vhost: str) -> None:
        """Let the administrator do everything in ``vhost``."""
        permission = {
            "user": self.description.username,
            "vhost": vhost,
            "configure": ".*",
            "write": ".*",
            "read": ".*",
        }
        self.management.import_definitions({"permissions": [permission]})

    def drain(
        self, vhost: str, queue: str
    ) -> list[tuple[pika.spec.Basic.GetOk, pika.BasicProperties, bytes]]:
        """Take everything that is in ``queue`` now."""
        taken: list[tuple[pika.spec.Basic.GetOk, pika.BasicProperties, bytes]] = []
        with self.channel(vhost) as channel:
            while True:
                method, properties, body = channel.basic_get(queue, auto_ack=True)
                if method is None:
                    return taken
                assert properties is not None
                assert body is not None
                taken.append((method, properties, body))


@pytest.fixture(scope="session")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    """Give a node with nothing of stackbus on it."""
    with node_at(tmp_path_factory.mktemp("bare")) as broker:
        yield broker


@contextmanager
def node_at(state: Path, plugins: str = "") -> Iterator[Broker]:
    """Run a node with nothing of stackbus on it, with its files in ``state``, and more plugins."""
    node = Node(state, SERVER)
    description = node.prepare(NodeOptions(), "openstack", "openstack-external")
    enabled = state / "broker" / "enabled_plugins"
    enabled.write_text(enabled.read_text().replace("].", f"{plugins}]."))
    create_first_credentials(Settings(state=state), private_endpoint(description))
    supervisor = Supervisor()
    environment = node.environment(description)
    folder = state / "broker"
    supervisor.add(
        Child(
            "epmd",
            node.port_mapper_command(description),
            environment,
            folder / "log" / "epmd.log",
            folder,
        )
    )
    rabbitmq = Child("rabbitmq", node.command(), environment, folder / "log" / "out.log", folder)
    supervisor.add(rabbitmq)
    management = Management(description.management_url, description.username, description.password)
    try:
        wait_until(lambda: answers(management), 120, rabbitmq.last_lines())
        yield Broker(state, description, management, supervisor)
    finally:
        supervisor.stop()


@pytest.fixture
def clean(bare: Broker) -> Iterator[Broker]:
    """Give the bare node, and wipe what the test left on it."""
    wipe(bare)
    yield bare
    wipe(bare)


def wipe(broker: Broker) -> None:
    """Remove every vhost, user and parameter but the administrator's own."""
    management = broker.management
    definitions = management.definitions()
    for vhost in _names(definitions, "vhosts") - {"/"}:
        management._request("DELETE", f"vhosts/{vhost}")
    for user in _names(definitions, "users") - {broker.description.username}:
        management.delete("users", user)
    management._request("DELETE", "global-parameters/stackbus")


def must_be_closed(connection: pika.BlockingConnection, seconds: float = 20.0) -> None:
    """Wait until the broker closes ``connection``; fail if it does not."""
    end = time.monotonic() + seconds
    with pytest.raises(pika.exceptions.AMQPConnectionError):
        while time.monotonic() < end:
            connection.process_data_events(0.1)


def answers(management: Management) -> bool:
    """Tell whether the node is up."""
    try:
        management.overview()
    except BrokerError:
        return False
    return True


def exposure(broker: Broker, folder: Path, **settings: object) -> Exposure:
    """Give a control plane on ``broker`` that keeps its Secrets in ``folder``."""
    return Exposure(
        broker.management,
        FolderStore(folder),
        private_endpoint(broker.description),
        Settings(state=folder, **settings),  # type: ignore[arg-type]
        lambda: datetime.now(UTC),
    )


def deployment(*topics: str | Topic, services: tuple[str, ...] | None = None) -> Deployment:
    """Give a deployment of these topics."""
    return Deployment(
        "cloud",
        "openstack",
        services,
        tuple(topic if isinstance(topic, Topic) else Topic(topic) for topic in topics),
    )


def stackbus(
    *arguments: str,
    state: Path | None = None,
    code: int | None = 0,
    env: Mapping[str, str] = MappingProxyType({}),
) -> subprocess.CompletedProcess[str]:
    """Run the command as a user would; check its exit code."""
    where = ["--state", str(state)] if state else []
    done = subprocess.run(
        [sys.executable, "-m", "stackbus", *arguments, *where],
        capture_output=True,
        text=True,
        timeout=240,
        env={**os.environ, **env},
        check=False,
    )
    if code is not None:
        assert done.returncode == code, (
            f"{arguments}: {done.returncode}\n{done.stdout}{done.stderr}"
        )
    assert "Traceback" not in done.stderr, done.stderr
    return done


@pytest.fixture(scope="session")
def bus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    """Give a whole private bus with its relay, as ``stackbus up --detach`` makes it."""
    state = tmp_path_factory.mktemp("bus") / "state"
    stackbus("up", "--detach", state=state)
    try:
        yield running(state)
    finally:
        stackbus("down", state=state)


def running(state: Path) -> Broker:
    """Give the bus that runs in ``state``."""
    description = Node(state, SERVER).read_description()
    assert description is not None
    management = Management(description.management_url, description.username, description.password)
    return Broker(state, description, management)


@dataclass(frozen=True)
class Exposed:
    """A private bus with these topics exposed."""

    broker: Broker
    topics: tuple[str, ...]

    def secret(self, topic: str) -> dict[str, str]:
        """Give a topic's Secret, decoded."""
        found = FolderStore(self.broker.state / "secrets").read(
            NAMESPACE, f"openstack-{topic}-notifications"
        )
        assert found is not None
        return dict(found.data)


@pytest.fixture
def expose(bus: Broker, tmp_path: Path) -> Iterator[Callable[[Deployment], Exposed]]:
    """Give a function that exposes a deployment on the private bus; it is taken away at the end."""
    settings = Settings(state=bus.state)

    def make(wanted: Deployment) -> Exposed:
        path = tmp_path / "deployment.yaml"
        path.write_text(yaml.safe_dump(wanted.to_document()), "utf-8")
        with open_broker(settings) as broker:
            plan_and_apply(
                settings, broker, lambda control: control.plan(wanted), deployment=wanted
            )
        return Exposed(bus, tuple(topic.name for topic in wanted.topics))

    yield make
    make(NOTHING)


def publish(broker: Broker, notifications: list[Captured], vhost: str = "openstack") -> None:
    """Publish as the services do, to their own control exchanges, confirmed."""
    with broker.channel(vhost) as channel:
        channel.confirm_delivery()
        properties = pika.BasicProperties(
            content_type="application/json", content_encoding="utf-8", delivery_mode=2
        )
        for one in notifications:
            channel.basic_publish(one.exchange, one.routing_key, one.body, properties)


def backlog(broker: Broker, topic: str, vhost: str = "openstack-external") -> int:
    """Count what waits in a topic's queues."""
    return sum(
        int(str(queue.get("messages", 0)))
        for queue in broker.management.queues(vhost)
        if str(queue["name"]).rpartition(".")[0] == topic
    )


def _names(definitions: object, section: str) -> set[str]:
    assert isinstance(definitions, dict)
    return {one["name"] for one in definitions[section]}
