"""Helpers of the relay's tests: a bus with topics, relays that a test starts, numbered messages."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import uuid
from dataclasses import dataclass, field
from pathlib import Path

import pika

from stackbus.bus.names import NOTIFICATION_TOPICS
from stackbus.expose.apply import Exposure
from stackbus.expose.deployment import Deployment
from stackbus.expose.status import relay as relay_status
from tests.conftest import Broker, Captured, deployment, wait_until

INNER, OUTER = "openstack", "openstack-external"
PROBE = "probe"
"""A queue that the tests bind to the outer exchange: it gets everything, in order."""

Message = tuple[str, pika.BasicProperties, bytes]
"""What a queue on the outer bus delivered: routing key, properties, body."""


@dataclass
class RelayedBus:
    """A bus with topics, and the relays that a test has started on it."""

    broker: Broker
    control: Exposure
    folder: Path
    relays: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def apply(self, target: Deployment) -> None:
        self.control.apply(self.control.plan(target))

    def declare_probe(self) -> None:
        with self.broker.channel(OUTER) as channel:
            channel.queue_declare(PROBE, durable=True)
            channel.queue_bind(PROBE, "stackbus", "#")

    def start_relay(
        self, outer_port: int | None = None, inner_port: int | None = None, **settings: object
    ) -> subprocess.Popen[bytes]:
        """Start a relay; the ports are those of a proxy, ``settings`` are its environment."""
        credentials = self.control.plan(deployment()).credentials
        assert credentials is not None
        password = credentials.own_passwords["stackbus.relay"]
        port = self.broker.description.ports.amqp
        url = "amqp://stackbus.relay:{}@127.0.0.1:{}/{}"
        with (self.folder / "relay.log").open("ab") as log:
            relay = subprocess.Popen(
                [sys.executable, "-m", "stackbus", "relay", "--state", str(self.folder)],
                env={
                    **os.environ,
                    "STACKBUS_INNER_URL": url.format(password, inner_port or port, INNER),
                    "STACKBUS_OUTER_URL": url.format(password, outer_port or port, OUTER),
                    "STACKBUS_RELAY_RETRY_MAX": "1",
                    "STACKBUS_RELAY_REBIND": "0.3",
                    **{name: str(value) for name, value in settings.items()},
                },
                stdout=log,
                stderr=log,
            )
        self.relays.append(relay)
        return relay

    def end_relays(self) -> None:
        for relay in self.relays:
            relay.kill()
            relay.wait()

    def wait_for_relays(self, count: int = 1) -> None:
        """Wait until one relay is active and the others of ``count`` stand by."""

        def is_ready() -> bool:
            status = relay_status(self.broker.management, INNER)
            return status.state == "active" and status.standby == count - 1

        wait_until(is_ready, 120, f"{count} relays")

    def wait_for_bindings(self, *exchanges: str) -> None:
        """Wait until the relay has bound the intake to these control exchanges."""

        def are_bound() -> bool:
            bindings = self.broker.management._list(f"bindings/{INNER}")
            bound = {(item["source"], item["routing_key"]) for item in bindings}
            return bound >= {
                (name, f"{topic}.*") for name in exchanges for topic in NOTIFICATION_TOPICS
            }

        wait_until(are_bound, 60, f"the intake is not bound to {exchanges}")

    def wait_for_losses(self, count: int) -> None:
        """Wait until the relay has noticed so many lost sessions."""
        wait_until(lambda: self.log().count("relay.lost") >= count, 120, "no relay.lost in the log")

    def log(self) -> str:
        return (self.folder / "relay.log").read_text("utf-8")

    def depth(self, queue: str = PROBE, vhost: str = OUTER) -> int:
        """Return how many messages are ready in a queue, exactly and now."""
        with self.broker.channel(vhost) as channel:
            count = channel.queue_declare(queue, passive=True).method.message_count
        assert count is not None
        return count

    def collect(self, count: int, seconds: float = 120, queue: str = PROBE) -> list[Message]:
        """Take from ``queue`` until ``count`` different notifications have arrived."""
        messages: list[Message] = []
        ids: set[str | None] = set()

        def are_complete() -> bool:
            for method, properties, body in self.broker.drain(OUTER, queue):
                messages.append((str(method.routing_key), properties, body))
                ids.add(properties.message_id)
            return len(ids) >= count

        wait_until(are_complete, seconds, f"fewer than {count} notifications arrived", 0.1)
        return messages

    def quarantined(self, count: int) -> list[tuple[dict[str, object], bytes]]:
        """Take ``count`` messages from the quarantine: headers and body."""
        messages: list[tuple[dict[str, object], bytes]] = []

        def are_complete() -> bool:
            messages.extend(
                (dict(properties.headers or {}), body)
                for _, properties, body in self.broker.drain(INNER, "stackbus.quarantine")
            )
            return len(messages) >= count

        wait_until(are_complete, 60, "the quarantine is too small")
        return messages


def numbered(count: int, start: int = 0) -> list[Captured]:
    """Return small notifications in order; each id begins with its number, in six digits."""
    notifications = []
    for number in range(start, start + count):
        message = {
            "message_id": f"{number:06d}-{uuid.uuid4().hex[:8]}",
            "publisher_id": "compute.h",
            "event_type": "instance.update",
            "priority": "INFO",
            "payload": {
                "nova_object.data": {"tenant_id": "p", "number": number},
                "adminPass": "hunter2",
            },
            "timestamp": "2026-11-22 11:28:35.656005",
        }
        body = json.dumps({"oslo.version": "2.0", "oslo.message": json.dumps(message)}).encode()
        notifications.append(Captured("nova", "nova", "versioned_notifications.info", body))
    return notifications


def numbers(messages: list[Message]) -> list[int]:
    """Return the numbers of the notifications in order of their first arrival."""
    first: dict[str, int] = {}
    for _, properties, _ in messages:
        identifier = str(properties.message_id)
        first.setdefault(identifier, int(identifier[:6]))
    return list(first.values())
