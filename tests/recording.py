"""Helpers of the recorder's tests: a topic with notifications in it, and recorders beside it."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import urllib.error
import urllib.request
import uuid
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import MappingProxyType

import pika
import yaml

from stackbus.broker.node import LOOPBACK, free_port
from stackbus.errors import HistoryError
from stackbus.events.envelope import decode
from stackbus.expose.deployment import Deployment
from stackbus.expose.secrets import NAMESPACE, Secret, as_object
from stackbus.history.session import open_engine
from stackbus.relay.label import label
from stackbus.settings import Settings, port_range
from tests.conftest import Broker, Captured, exposure, golden, stackbus, wait_until

OUTER = "openstack-external"
GOLDEN = golden()
_IDENTITY = ("message_id", "_unique_id", "timestamp")
_START = datetime(2026, 11, 22, 20, tzinfo=UTC)
_HANDLED = re.compile(
    r'^stackbus_record_(?:stored|doubled|quarantined)_total\{.*channel="(\w+)".*\} (\S+)$',
    re.MULTILINE,
)
"""What a recorder's metrics count of each channel, of notifications that it has dealt with."""


def copies(
    count: int, source: Iterable[Captured] = GOLDEN
) -> Iterator[tuple[Captured, str, bytes]]:
    """Yield captured notifications again and again, each copy with ids and a time of its own.

    The ids are its message_id, and the one by which oslo.messaging's listeners recognise a
    redelivery; the times are a millisecond apart.
    """
    templates = []
    for captured in source:
        identity = [str(captured.message()[name]).encode() for name in _IDENTITY]
        pieces = re.split(b"(%b)" % b"|".join(identity), captured.body)
        templates.append((captured, identity, pieces))
    for number in range(count):
        captured, identity, pieces = templates[number % len(templates)]
        message_id = uuid.uuid4()
        time = _START + number * timedelta(milliseconds=1)
        values = (str(message_id), message_id.hex, f"{time:%Y-%m-%d %H:%M:%S.%f}")
        new = dict(zip(identity, (value.encode() for value in values), strict=True))
        yield captured, str(message_id), b"".join(new.get(piece, piece) for piece in pieces)


def relay_label(captured: Captured, message_id: str) -> tuple[str, pika.BasicProperties]:
    """Return the routing key and the properties with which the relay publishes a notification."""
    expected = label(captured.exchange, decode(captured.body))
    return expected.routing_key, pika.BasicProperties(
        content_type="application/json",
        delivery_mode=2,
        message_id=message_id,
        type=expected.event_type,
        app_id=expected.service,
    )


class Recorded:
    """A topic on a broker, its Secret in a file, and a state folder with a history."""

    def __init__(self, broker: Broker, folder: Path, topic: str, store: Path | None = None) -> None:
        """Use ``topic`` of ``broker``, whose Secrets are in ``store`` (made by ``expose_on``)."""
        self.broker = broker
        self.folder = folder
        self.state = folder / "state"
        self.topic = topic
        self.control = exposure(broker, store or folder / "store")
        self.secret = folder / "secret.yaml"
        self.write_secret()

    def write_secret(self, **changes: str) -> None:
        """Write the Secret's manifest as it is now, with some values replaced."""
        name = f"openstack-{self.topic}-notifications"
        secret = Secret(NAMESPACE, name, {**self.read_secret(), **changes})
        self.secret.write_text(yaml.safe_dump(as_object(secret)), "utf-8")
        self.secret.chmod(0o600)

    def read_secret(self) -> dict[str, str]:
        """Return the topic's Secret as it is now, decoded."""
        secret = self.control.store.read(NAMESPACE, f"openstack-{self.topic}-notifications")
        assert secret is not None
        return dict(secret.data)

    def publish(self, count: int, source: Iterable[Captured] = GOLDEN) -> list[str]:
        """Publish notifications to the topic as the relay does, confirmed; return their ids."""
        return self.publish_copies(copies(count, source))

    def publish_copies(self, notifications: Iterable[tuple[Captured, str, bytes]]) -> list[str]:
        """Publish these copies as the relay does, confirmed; return their ids."""
        ids = []
        with self.broker.channel(OUTER) as channel:
            channel.confirm_delivery()
            for captured, message_id, body in notifications:
                key, properties = relay_label(captured, message_id)
                channel.basic_publish(self.topic, key, body, properties)
                ids.append(message_id)
        return ids

    def publish_raw(self, bodies: Iterable[bytes], key: str = "info.x.-.x") -> None:
        """Publish bodies to the topic without the relay's label, as MOSK's services do."""
        with self.broker.channel(OUTER) as channel:
            channel.confirm_delivery()
            for body in bodies:
                channel.basic_publish(self.topic, key, body, pika.BasicProperties(delivery_mode=2))

    def start(
        self, *arguments: str, env: Mapping[str, str] = MappingProxyType({})
    ) -> subprocess.Popen[str]:
        """Start a recorder of the topic."""
        command = [sys.executable, "-m", "stackbus", "record", "--secret", str(self.secret)]
        return subprocess.Popen(
            [*command, "--plain", "--state", str(self.state), *arguments],
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, **env},
        )

    def record(
        self,
        bus: int,
        *arguments: str,
        log: int = 0,
        env: Mapping[str, str] = MappingProxyType({}),
    ) -> str:
        """Record until so many notifications of each channel are handled; return the summary.

        Handled is stored, recognised as stored before, or quarantined.
        """
        expected = Counter({"bus": bus, "log": log})
        port = free_port(LOOPBACK, set(), port_range(Settings()))
        process = self.start("--metrics", f"{LOOPBACK}:{port}", *arguments, env=env)
        with running(process):
            wait_until(
                lambda: process.poll() is not None or handled(port) >= expected,
                240,
                f"fewer than {dict(expected)} were handled",
                pause=0.2,
            )
            output = end_recorder(process)
        assert "Traceback" not in output, output
        return output.splitlines()[-1]

    def record_until_idle(self, *arguments: str, idle: str = "2s") -> str:
        """Record until nothing more comes; return the summary.

        Only for tests that expect nothing: on a busy machine messages may take longer to come.
        """
        with running(self.start("--until-idle", idle, *arguments)) as process:
            output = process.communicate(timeout=240)[1]
        assert process.returncode == 0, output
        assert "Traceback" not in output, output
        return output.splitlines()[-1]

    def events(self, *arguments: str) -> list[dict[str, object]]:
        """Return the events of the history, as ``stackbus events`` prints them."""
        process = stackbus("events", "-o", "jsonl", "--limit", "0", *arguments, state=self.state)
        return [json.loads(line) for line in process.stdout.splitlines()]

    def wait_for(self, count: int, seconds: float = 180.0, dsn: str = "") -> None:
        """Wait until so many notifications are in the history."""

        def stored() -> int:
            try:
                engine = open_engine(dsn or f"chdb://{self.state}/history")
                try:
                    answer = engine.select("SELECT uniqExact(id) AS n FROM events", {})
                finally:
                    engine.close()
            except HistoryError:
                return 0  # it has no tables yet, or is away
            return int(json.loads(answer)["n"])

        wait_until(lambda: stored() >= count, seconds, f"not {count} notifications in the history")

    def count(self, *arguments: str) -> int:
        """Count the events of the history."""
        return int(stackbus("events", "--count", *arguments, state=self.state).stdout)

    def consumers(self) -> int:
        """Return how many consumers the topic's queues have, by the management API."""
        return self._sum("consumers")

    def unacknowledged(self) -> int:
        """Return how many of the topic's messages are delivered and not acknowledged."""
        return self._sum("messages_unacknowledged")

    def _sum(self, member: str) -> int:
        queues = self.broker.management.queues(OUTER)
        names = f"{self.topic}."
        return sum(
            int(str(queue.get(member, 0))) for queue in queues if str(queue["name"]).startswith(names)
        )  # fmt: skip


def handled(port: int) -> Counter[str]:
    """Return how many notifications of each channel a recorder has handled, from its metrics."""
    counts = Counter[str]()
    try:
        text = urllib.request.urlopen(f"http://{LOOPBACK}:{port}/metrics").read().decode()
    except urllib.error.URLError:
        return counts  # it has not started yet, or has ended
    for channel, value in _HANDLED.findall(text):
        counts[channel] += int(float(value))
    return counts


def expose_on(broker: Broker, folder: Path, target: Deployment) -> Recorded:
    """Expose a deployment on a bare node; return its first topic."""
    control = exposure(broker, folder / "store")
    control.apply(control.plan(target))
    return Recorded(broker, folder, target.topics[0].name)


@contextmanager
def running(process: subprocess.Popen[str]) -> Iterator[subprocess.Popen[str]]:
    """Kill a recorder that still runs when the test ends."""
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate()


def end_recorder(process: subprocess.Popen[str], number: signal.Signals = signal.SIGTERM) -> str:
    """Ask a recorder to end; return what it wrote to its standard error."""
    process.send_signal(number)
    output = process.communicate(timeout=120)[1]
    assert process.returncode == 0, output
    return output
