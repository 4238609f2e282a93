"""The demonstration: the main job end to end on this machine, in about two minutes.

``stackbus demo`` starts a private bus with two topics, a real Keystone and a real Glance that emit
to it, and two consumers. One logs in by client certificate over TLS, the other by password, and
both receive the same notifications. Everything lives in a temporary folder.
"""

from __future__ import annotations

import shutil
import tempfile
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

from stackbus import private_bus
from stackbus.bus.routing import RoutingFilter
from stackbus.clients.amqp import consumer_parameters
from stackbus.demo import openstack
from stackbus.errors import StackbusError
from stackbus.expose import tail
from stackbus.expose.credentials import secret_name
from stackbus.expose.deployment import Deployment, Topic
from stackbus.expose.secrets import NAMESPACE
from stackbus.expose.tail import Message
from stackbus.services import BY_NAME
from stackbus.settings import Settings
from stackbus.wiring.broker import open_broker, secret_store
from stackbus.wiring.control import render_drop_in

DEPLOYMENT = Deployment(
    "demo", "openstack", topics=(Topic("external-consumer-a"), Topic("external-consumer-2"))
)
"""The default deployment, the same as ``examples/deployment.yaml``."""

STEPS = 9
"""Calls of ``advance`` in a successful run."""

_LAST_EVENT_TYPE = "image.delete"
_TIMEOUT = 60.0  # seconds


@dataclass
class Consumer:
    """A consumer of one topic, in a thread of its own."""

    topic: str
    login: str
    messages: list[Message] = field(default_factory=list)
    failure: Exception | None = None
    end: tail.End = field(default_factory=tail.End)

    def run(self, settings: Settings, *, by_password: bool) -> None:
        """Consume until stopped; an error ends up in ``failure``."""
        secret = secret_store(settings).read(NAMESPACE, secret_name(self.topic))
        assert secret is not None
        parameters = consumer_parameters(
            secret.data, f"demo, {self.topic}", by_password=by_password, plain=by_password
        )
        try:
            with closing(tail.consume(parameters, self.topic, RoutingFilter(), self.end)) as stream:
                for message, acknowledge in stream:
                    self.messages.append(message)
                    acknowledge()
        except StackbusError as error:
            self.failure = error


@dataclass(frozen=True, slots=True)
class Row:
    """One notification, and how often each consumer received it."""

    priority: str
    service: str
    event_type: str
    outcome: str
    received: tuple[int, ...]


def run(deployment: Deployment, advance: Callable[[str], None]) -> tuple[list[Consumer], list[Row]]:
    """Run the demonstration; return the consumers, and a row for each notification.

    ``advance`` is called with the name of each step. Raises StackbusError if a step fails, or if
    the consumers received different notifications.
    """
    if len(deployment.topics) < 2:  # noqa: PLR2004 -- two consumers are compared
        raise StackbusError("the demonstration needs a deployment with two topics")
    folder = Path(tempfile.mkdtemp(prefix="stackbus-demo-"))
    settings = Settings(state=folder / "state", management_url=None)
    try:
        return _run(deployment, settings, folder, advance)
    finally:
        private_bus.stop(settings)
        shutil.rmtree(folder, ignore_errors=True)


def _run(
    deployment: Deployment, settings: Settings, folder: Path, advance: Callable[[str], None]
) -> tuple[list[Consumer], list[Row]]:
    advance("installing Keystone and Glance from PyPI, starting the private bus")
    with ThreadPoolExecutor() as pool:
        installs = [pool.submit(openstack.install, name, folder) for name in openstack.SERVICES]
        private_bus.start_detached(settings, deployment, [], lambda _: None)
        for install in installs:
            install.result()
    with open_broker(settings) as broker:
        drop_ins = {
            name: render_drop_in(settings, broker, BY_NAME[name], notification_format="versioned")
            for name in openstack.SERVICES
        }
    advance("two consumers log in")
    first, second = (topic.name for topic in deployment.topics[:2])
    consumers = [Consumer(first, "certificate, TLS"), Consumer(second, "password")]
    threads = [
        threading.Thread(
            target=consumer.run, args=(settings,), kwargs={"by_password": index == 1}, daemon=True
        )
        for index, consumer in enumerate(consumers)
    ]
    for thread in threads:
        thread.start()
    cloud = openstack.start(folder, drop_ins, advance)
    try:
        openstack.call_apis(cloud, advance)
        _wait_for_last_event(consumers)
    finally:
        for consumer in consumers:
            consumer.end.is_requested = True
        for thread in threads:
            thread.join(10)
        cloud.stop()
    return consumers, _compare(consumers)


def _wait_for_last_event(consumers: list[Consumer]) -> None:
    deadline = time.monotonic() + _TIMEOUT
    for consumer in consumers:
        while _LAST_EVENT_TYPE not in {message.event_type for message in consumer.messages}:
            if consumer.failure is not None:
                raise consumer.failure
            if time.monotonic() > deadline:
                raise StackbusError(f"{consumer.topic} did not receive {_LAST_EVENT_TYPE}")
            time.sleep(0.1)


def _compare(consumers: list[Consumer]) -> list[Row]:
    by_id: dict[str, Message] = {}
    for consumer in consumers:
        for message in consumer.messages:
            by_id.setdefault(message.message_id, message)
    rows = [
        Row(
            message.priority,
            message.service,
            message.event_type,
            _read_outcome(message),
            tuple(
                sum(received.message_id == message_id for received in consumer.messages)
                for consumer in consumers
            ),
        )
        for message_id, message in by_id.items()
    ]
    if any(count != 1 for row in rows for count in row.received):
        raise StackbusError("the two consumers received different notifications")
    return rows


def _read_outcome(message: Message) -> str:
    """Read CADF's outcome, by which a failed login differs from a successful one."""
    notification = message.notification()
    payload = notification.get("payload") if isinstance(notification, dict) else None
    outcome = payload.get("outcome") if isinstance(payload, dict) else None
    return str(outcome or "")
