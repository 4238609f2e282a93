"""Shared fixtures and helpers: captured notifications, and real RabbitMQ nodes on loopback.

pytest-xdist runs the tests in several processes, a file at a time. Each process has at most two
nodes of its own, started by the first test that needs them: ``bus`` is a private bus with its
relay, as ``stackbus up`` makes it; ``bare`` is a node on which stackbus has created nothing.
``STACKBUS_RABBITMQ_SERVER`` chooses the RabbitMQ release, as it does for users.
"""

from __future__ import annotations

import fcntl
import json
import os
import signal
import subprocess
import sys
import tempfile
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
from stackbus.settings import Settings, port_range
from stackbus.wiring.broker import open_broker, private_endpoint
from stackbus.wiring.control import create_first_credentials, plan_and_apply

# A shell ignores SIGINT for background jobs, and children inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)


def _claim_ports(first: int = 20_000, count: int = 256, slices: int = 48) -> int:
    """Reserve a slice of the ports for the brokers of this process; return the lock's handle.

    A node draws its ports seconds before it listens on them, so two processes that draw from the
    same range may choose the same port. The lock ends with the process.
    """
    for number in range(slices):
        path = Path(tempfile.gettempdir()) / f"stackbus-tests-{os.getuid()}-ports-{number}.lock"
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(handle)
            continue
        start = first + number * count
        os.environ["STACKBUS_BROKER_PORTS"] = f"{start}-{start + count - 1}"
        return handle
    raise RuntimeError(f"more than {slices} test processes: their brokers' ports would collide")


PORTS_LOCK = _claim_ports()

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
        """Return the notification without its envelope."""
        value = json.loads(json.loads(self.body)["oslo.message"])
        assert isinstance(value, dict)
        return value


def golden() -> list[Captured]:
    """Return every captured notification, one of each service, event type and routing key.

    ``golden/<service>/<event type>.<notification topic>.<priority>.json`` is the body as sent, on
    the exchange of the service's name (`make golden` writes them).
    """
    notifications = []
    for path in sorted(GOLDEN.glob("*/*.json")):
        routing_key = ".".join(path.stem.split(".")[-2:])
        service = path.parent.name
        notifications.append(Captured(service, service, routing_key, path.read_bytes()))
    return notifications


def wait_until(
    condition: Callable[[], object], seconds: float = 60.0, message: str = "", pause: float = 0.05
) -> None:
    """Poll until ``condition`` returns something true; fail with ``message`` after ``seconds``.

    The only place in the tests that sleeps. ``seconds`` bounds a failure and costs a passing test
    nothing, so it is generous: the machine may be busy.
    """
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, message or f"not true after {seconds:.0f} s"
        time.sleep(pause)  # noqa: TID251 -- the polling helper


def wait_until_stable(value: Callable[[], object], seconds: float = 1.0) -> None:
    """Poll until ``value`` returns the same for ``seconds``."""
    last, since = value(), time.monotonic()

    def is_stable() -> bool:
        nonlocal last, since
        if (now := value()) != last:
            last, since = now, time.monotonic()
        return time.monotonic() - since >= seconds

    wait_until(is_stable, 120)


@dataclass(frozen=True)
class Broker:
    """A running node, accessed as its administrator."""

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
        """Open a channel in ``vhost`` as the administrator, with every permission there."""
        self.allow(vhost)
        connection = self.connect(vhost)
        try:
            yield connection.channel()
        finally:
            if connection.is_open:
                connection.close()

    def allow(self, vhost: str) -> None:
        """Grant the administrator every permission in ``vhost``."""
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
        """Get and acknowledge every message that is in ``queue`` now."""
        messages: list[tuple[pika.spec.Basic.GetOk, pika.BasicProperties, bytes]] = []
        with self.channel(vhost) as channel:
            while True:
                method, properties, body = channel.basic_get(queue, auto_ack=True)
                if method is None:
                    return messages
                assert properties is not None
                assert body is not None
                messages.append((method, properties, body))


@pytest.fixture(scope="session")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    """Run a node on which stackbus has created nothing."""
    with node_at(tmp_path_factory.mktemp("bare")) as broker:
        yield broker


@contextmanager
def node_at(state: Path, plugins: str = "") -> Iterator[Broker]:
    """Run a node in the folder ``state``, on which stackbus has created nothing.

    ``plugins``: more RabbitMQ plugins to enable, each name after a comma.
    """
    node = Node(state, SERVER, port_range(Settings()))
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
        wait_until(lambda: is_answering(management), 120, rabbitmq.last_lines())
        yield Broker(state, description, management, supervisor)
    finally:
        supervisor.stop()


@pytest.fixture
def clean(bare: Broker) -> Iterator[Broker]:
    """Return the bare node, emptied before and after the test."""
    wipe(bare)
    yield bare
    wipe(bare)


def wipe(broker: Broker) -> None:
    """Delete every vhost and user except the administrator's, and stackbus' global parameter."""
    management = broker.management
    definitions = management.definitions()
    for vhost in _names(definitions, "vhosts") - {"/"}:
        management._request("DELETE", f"vhosts/{vhost}")
    for user in _names(definitions, "users") - {broker.description.username}:
        management.delete("users", user)
    management._request("DELETE", "global-parameters/stackbus")


def must_be_closed(connection: pika.BlockingConnection, seconds: float = 20.0) -> None:
    """Wait until the broker closes ``connection``; fail after ``seconds``."""
    end = time.monotonic() + seconds
    with pytest.raises(pika.exceptions.AMQPConnectionError):
        while time.monotonic() < end:
            connection.process_data_events(0.1)


def is_answering(management: Management) -> bool:
    """Return whether the management API answers."""
    try:
        management.overview()
    except BrokerError:
        return False
    return True


def exposure(broker: Broker, folder: Path, **settings: object) -> Exposure:
    """Return a control plane of ``broker`` that stores its Secrets in ``folder``."""
    return Exposure(
        broker.management,
        FolderStore(folder),
        private_endpoint(broker.description),
        Settings(state=folder, **settings),  # type: ignore[arg-type]
        lambda: datetime.now(UTC),
    )


def deployment(*topics: str | Topic, services: tuple[str, ...] | None = None) -> Deployment:
    """Return a deployment with these topics."""
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
    """Run a command as a user would, and check its exit code (None: any)."""
    option = ["--state", str(state)] if state else []
    process = subprocess.run(
        [sys.executable, "-m", "stackbus", *arguments, *option],
        capture_output=True,
        text=True,
        timeout=240,
        env={**os.environ, **env},
        check=False,
    )
    if code is not None:
        assert process.returncode == code, (
            f"{arguments}: {process.returncode}\n{process.stdout}{process.stderr}"
        )
    assert "Traceback" not in process.stderr, process.stderr
    return process


@pytest.fixture(scope="session")
def bus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    """Run a private bus with its relay, as ``stackbus up --detach`` starts it."""
    state = tmp_path_factory.mktemp("bus") / "state"
    stackbus("up", "--detach", state=state)
    try:
        yield running(state)
    finally:
        stackbus("down", state=state)


def running(state: Path) -> Broker:
    """Return the private bus that runs in the state folder ``state``."""
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
        """Return a topic's Secret, decoded."""
        secret = FolderStore(self.broker.state / "secrets").read(
            NAMESPACE, f"openstack-{topic}-notifications"
        )
        assert secret is not None
        return dict(secret.data)


@pytest.fixture
def expose(bus: Broker, tmp_path: Path) -> Iterator[Callable[[Deployment], Exposed]]:
    """Return a function that exposes a deployment on the private bus until the test ends."""
    settings = Settings(state=bus.state)

    def apply(target: Deployment) -> Exposed:
        path = tmp_path / "deployment.yaml"
        path.write_text(yaml.safe_dump(target.to_document()), "utf-8")
        with open_broker(settings) as broker:
            plan_and_apply(
                settings, broker, lambda control: control.plan(target), deployment=target
            )
        return Exposed(bus, tuple(topic.name for topic in target.topics))

    yield apply
    apply(NOTHING)


def publish(broker: Broker, notifications: list[Captured], vhost: str = "openstack") -> None:
    """Publish to the services' control exchanges, as they do, with publisher confirms."""
    with broker.channel(vhost) as channel:
        channel.confirm_delivery()
        properties = pika.BasicProperties(
            content_type="application/json", content_encoding="utf-8", delivery_mode=2
        )
        for notification in notifications:
            channel.basic_publish(
                notification.exchange, notification.routing_key, notification.body, properties
            )


def backlog(broker: Broker, topic: str, vhost: str = "openstack-external") -> int:
    """Count the messages in a topic's queues."""
    return sum(
        int(str(queue.get("messages", 0)))
        for queue in broker.management.queues(vhost)
        if str(queue["name"]).rpartition(".")[0] == topic
    )


def _names(definitions: object, section: str) -> set[str]:
    assert isinstance(definitions, dict)
    return {item["name"] for item in definitions[section]}
