"""What tests of the record stand on: a topic with notifications in it, and recorders beside it."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import uuid
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import MappingProxyType

import pika
import yaml

from stackbus.errors import HistoryError
from stackbus.events.envelope import decode
from stackbus.expose.deployment import Deployment
from stackbus.expose.secrets import NAMESPACE, as_object
from stackbus.history.session import open_engine
from stackbus.relay.label import label
from tests.conftest import Broker, Captured, exposure, golden, stackbus, wait_until

OUTER = "openstack-external"
GOLDEN = golden()
_OF_ITS_OWN = ("message_id", "_unique_id", "timestamp")
_BEGAN = datetime(2026, 11, 22, 20, tzinfo=UTC)


def copies(count: int, of: Iterable[Captured] = GOLDEN) -> Iterator[tuple[Captured, str, bytes]]:
    """Give captured notifications again and again, each with ids and a time of its own.

    The ids are its message_id, and what oslo.messaging's listeners know a repetition by; the times
    are a millisecond apart.
    """
    parts = []
    for one in of:
        known = [str(one.message()[name]).encode() for name in _OF_ITS_OWN]
        parts.append((one, known, re.split(b"(%b)" % b"|".join(known), one.body)))
    for place in range(count):
        one, known, pieces = parts[place % len(parts)]
        fresh = uuid.uuid4()
        moment = _BEGAN + place * timedelta(milliseconds=1)
        given = (str(fresh), fresh.hex, f"{moment:%Y-%m-%d %H:%M:%S.%f}")
        new = dict(zip(known, (text.encode() for text in given), strict=True))
        yield one, str(fresh), b"".join(new.get(piece, piece) for piece in pieces)


def relayed(one: Captured, message_id: str, body: bytes) -> tuple[str, pika.BasicProperties]:
    """Give the routing key and the properties with which the relay publishes a notification."""
    known = label(one.exchange, decode(one.body))
    del body
    return known.routing_key, pika.BasicProperties(
        content_type="application/json",
        delivery_mode=2,
        message_id=message_id,
        type=known.event_type,
        app_id=known.service,
    )


class Recorded:
    """A topic on a broker, its Secret in a file, and a state folder with a history."""

    def __init__(self, broker: Broker, folder: Path, topic: str, store: Path | None = None) -> None:
        """Take ``topic`` of ``broker``, whose Secrets are in ``store`` (made by ``expose_on``)."""
        self.broker = broker
        self.folder = folder
        self.state = folder / "state"
        self.topic = topic
        self.control = exposure(broker, store or folder / "store")
        self.secret = folder / "secret.yaml"
        self.write_secret()

    def write_secret(self, **changed: str) -> None:
        """Write the Secret's manifest as it is now, with some values ``changed``."""
        found = self.control.store.read(NAMESPACE, f"openstack-{self.topic}-notifications")
        assert found is not None
        data = {**found.data, **changed}
        value = as_object(type(found)(found.namespace, found.name, data))
        self.secret.write_text(yaml.safe_dump(value), "utf-8")
        self.secret.chmod(0o600)

    def publish(self, count: int, of: Iterable[Captured] = GOLDEN) -> list[str]:
        """Publish notifications to the topic as the relay does, confirmed; give their ids."""
        ids = []
        with self.broker.channel(OUTER) as channel:
            channel.confirm_delivery()
            for one, message_id, body in copies(count, of):
                key, properties = relayed(one, message_id, body)
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
        self, *arguments: str, idle: str = "2s", env: Mapping[str, str] = MappingProxyType({})
    ) -> str:
        """Record until nothing more comes; give the summary."""
        process = self.start("--until-idle", idle, *arguments, env=env)
        output = process.communicate(timeout=240)[1]
        assert process.returncode == 0, output
        assert "Traceback" not in output, output
        return output.splitlines()[-1]

    def events(self, *arguments: str) -> list[dict[str, object]]:
        """Give the events of the history, as JSON."""
        done = stackbus("events", "-o", "jsonl", "--limit", "0", *arguments, state=self.state)
        return [json.loads(line) for line in done.stdout.splitlines()]

    def wait_for(self, count: int, seconds: float = 90.0, dsn: str = "") -> None:
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

        wait_until(lambda: stored() >= count, seconds, f"{count} notifications in the history")

    def count(self, *arguments: str) -> int:
        """Count the events of the history."""
        return int(stackbus("events", "--count", *arguments, state=self.state).stdout)


def expose_on(broker: Broker, folder: Path, wanted: Deployment) -> Recorded:
    """Expose a deployment on a bare node; give its first topic."""
    control = exposure(broker, folder / "store")
    control.apply(control.plan(wanted))
    return Recorded(broker, folder, wanted.topics[0].name)


@contextmanager
def running(process: subprocess.Popen[str]) -> Iterator[subprocess.Popen[str]]:
    """End a recorder when the test has."""
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate()


def ended(process: subprocess.Popen[str], number: signal.Signals = signal.SIGTERM) -> str:
    """Ask a recorder to end; give what it said."""
    process.send_signal(number)
    output = process.communicate(timeout=60)[1]
    assert process.returncode == 0, output
    return output
