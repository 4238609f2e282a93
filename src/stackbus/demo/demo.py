"""The main job, end to end, on this machine, in about two minutes.

Called by ``stackbus demo`` (``make demo``): a private bus with its relay, two topics, a real
Keystone and a real Glance that emit to it, and two consumers, one by client certificate over TLS
and one by password, who receive the same notifications. Everything lives in a temporary folder.
"""

from __future__ import annotations

import os
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
from stackbus.settings import Settings, read_settings
from stackbus.wiring.broker import open_broker, secret_store
from stackbus.wiring.control import render_drop_in

DEPLOYMENT = Deployment(
    "demo", "openstack", topics=(Topic("external-consumer-a"), Topic("external-consumer-2"))
)
"""What is exposed where no deployment is given: the same as ``examples/deployment.yaml``."""

STEPS = 9
"""How many times ``advance`` is called in a run that goes well."""

_LAST_EVENT = "image.delete"
_PATIENCE = 60.0


@dataclass
class Consumer:
    """A consumer of one topic, in a thread of its own."""

    topic: str
    way_in: str
    told: list[Message] = field(default_factory=list)
    failure: Exception | None = None
    end: tail.End = field(default_factory=tail.End)

    def run(self, settings: Settings, *, by_password: bool) -> None:
        """Consume until stopped."""
        secret = secret_store(settings).read(NAMESPACE, secret_name(self.topic))
        assert secret is not None
        parameters = consumer_parameters(
            secret.data, f"demo, {self.topic}", by_password=by_password, plain=by_password
        )
        try:
            with closing(
                tail.consume(parameters, self.topic, RoutingFilter(), self.end)
            ) as arriving:
                for one, acknowledge in arriving:
                    self.told.append(one)
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
    """Run it; ``advance`` is told each step. Gives the consumers and what they received.

    Raises StackbusError if anything fails, or if the two received different things.
    """
    if len(deployment.topics) < 2:  # noqa: PLR2004 -- two consumers are compared
        raise StackbusError("the demonstration needs a deployment with two topics")
    folder = Path(tempfile.mkdtemp(prefix="stackbus-demo-"))
    settings = read_settings(os.environ, {"state": folder / "state", "management_url": None})
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
        installing = [
            pool.submit(openstack.install, name, folder) for name in ("keystone", "glance")
        ]
        private_bus.start_detached(settings, deployment, [], lambda _: None)
        for one in installing:
            one.result()
    with open_broker(settings) as broker:
        drop_ins = {
            name: render_drop_in(settings, broker, BY_NAME[name], notification_format="versioned")
            for name in ("keystone", "glance")
        }
    advance("two consumers log in")
    first, second = (topic.name for topic in deployment.topics[:2])
    consumers = [Consumer(first, "certificate, TLS"), Consumer(second, "password")]
    threads = [
        threading.Thread(
            target=consumer.run, args=(settings,), kwargs={"by_password": place == 1}, daemon=True
        )
        for place, consumer in enumerate(consumers)
    ]
    for thread in threads:
        thread.start()
    cloud = openstack.start(folder, drop_ins, advance)
    try:
        openstack.walk(cloud, advance)
        _wait_for_the_last(consumers)
    finally:
        for consumer in consumers:
            consumer.end.is_requested = True
        for thread in threads:
            thread.join(10)
        cloud.stop()
    return consumers, _compared(consumers)


def _wait_for_the_last(consumers: list[Consumer]) -> None:
    end = time.monotonic() + _PATIENCE
    for consumer in consumers:
        while _LAST_EVENT not in {told.event_type for told in consumer.told}:
            if consumer.failure is not None:
                raise consumer.failure
            if time.monotonic() > end:
                raise StackbusError(f"{consumer.topic} did not receive {_LAST_EVENT}")
            time.sleep(0.1)


def _compared(consumers: list[Consumer]) -> list[Row]:
    seen: dict[str, Message] = {}
    for consumer in consumers:
        for told in consumer.told:
            seen.setdefault(told.message_id, told)
    rows = [
        Row(
            told.priority,
            told.service,
            told.event_type,
            _outcome(told),
            tuple(
                sum(one.message_id == identifier for one in consumer.told) for consumer in consumers
            ),
        )
        for identifier, told in seen.items()
    ]
    if any(count != 1 for row in rows for count in row.received):
        raise StackbusError("the two consumers received different notifications")
    return rows


def _outcome(told: Message) -> str:
    """Read CADF's outcome, where there is one: it is what tells a failed login."""
    notification = told.notification()
    payload = notification.get("payload") if isinstance(notification, dict) else None
    outcome = payload.get("outcome") if isinstance(payload, dict) else None
    return str(outcome or "")
