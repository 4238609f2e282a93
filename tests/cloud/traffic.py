"""Notifications that were sent on the inner bus, and those that two consumers received.

``drain`` moves both into files of the cloud's folder after the scenario. Sent notifications come from
a queue of our own on the inner bus; they are not scrubbed, so the file has mode 0600. Received ones
come through ``stackbus tail --secret``, as a consumer gets them: from one topic by client certificate
over TLS, from the other by password.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pika

from stackbus.files import write_private
from tests.cloud.cloud import CAPTURE, TOPICS, stackbus, status
from tests.cloud.home import CloudHome, Failed

LOGIN_OPTIONS = dict(zip(TOPICS, ((), ("--auth", "password")), strict=True))
"""Options of ``stackbus tail`` by which each topic's consumer logs in."""

_TIMEOUT = 180.0


@dataclass(frozen=True)
class Sent:
    """A notification as a service sent it."""

    exchange: str
    routing_key: str
    body: str

    def notification(self) -> dict[str, Any]:
        """Return the notification without its envelope."""
        value: dict[str, Any] = json.loads(self.body)
        if "oslo.message" in value:
            value = json.loads(value["oslo.message"])
        return value


def drain(home: CloudHome) -> None:
    """Move the notifications since the last call into the cloud's files. Raises Failed.

    Services may notify at any time. This returns once nothing was sent while the consumers read, so
    that both files are about the same notifications.
    """
    deadline = time.monotonic() + _TIMEOUT
    sent_lines = _take_sent(home)
    while True:
        _append(home.folder / "sent.jsonl", sent_lines)
        with ThreadPoolExecutor(len(TOPICS)) as pool:
            results = pool.map(partial(_consume, home), TOPICS)
            for topic, lines in zip(TOPICS, results, strict=True):
                _append(home.folder / f"received-{topic}.jsonl", lines)
        sent_lines = _take_sent(home)
        if not sent_lines:
            return
        if time.monotonic() > deadline:
            raise Failed(f"the services keep sending: {len(sent_lines)} new notifications")


def clear(home: CloudHome) -> None:
    """Set the notifications of the past aside, so that the files belong to the next scenario."""
    drain(home)
    for name in ("sent.jsonl", *(f"received-{topic}.jsonl" for topic in TOPICS)):
        earlier = home.folder / f"before-{name}"
        with earlier.open("a", encoding="utf-8") as file:
            file.write((home.folder / name).read_text("utf-8"))
        earlier.chmod(0o600)
        (home.folder / name).unlink()


def read_sent(home: CloudHome) -> list[Sent]:
    """Return every notification sent during the scenario, in its order."""
    lines = (home.folder / "sent.jsonl").read_text("utf-8").splitlines()
    return [Sent(**json.loads(line)) for line in lines]


def read_ever_sent(home: CloudHome) -> list[Sent]:
    """Return also the notifications before the last scenario, from the start of the services on."""
    earlier = home.folder / "before-sent.jsonl"
    lines = earlier.read_text("utf-8").splitlines() if earlier.exists() else []
    return [Sent(**json.loads(line)) for line in lines] + read_sent(home)


def read_received(home: CloudHome, topic: str) -> list[Mapping[str, Any]]:
    """Return everything that a topic's consumer received, as ``tail -o json`` prints it."""
    lines = (home.folder / f"received-{topic}.jsonl").read_text("utf-8").splitlines()
    return [json.loads(line) for line in lines]


def _consume(home: CloudHome, topic: str) -> list[str]:
    secret = home.folder / f"{topic}.yaml"
    write_private(secret, stackbus(home, "secret", topic))
    login = LOGIN_OPTIONS[topic]
    result = subprocess.run(
        [
            *(sys.executable, "-m", "stackbus", "tail", "--secret", str(secret), *login),
            *("-o", "json", "--until-idle", "4s"),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    if result.returncode:
        raise Failed(f"the consumer of {topic}: {result.stderr}")
    return result.stdout.splitlines()


def _append(path: Path, lines: Iterable[str]) -> None:
    path.touch(mode=0o600)
    with path.open("a", encoding="utf-8") as file:
        file.writelines(f"{line}\n" for line in lines)


def _take_sent(home: CloudHome) -> list[str]:
    """Empty the queue CAPTURE; return its messages as JSON lines."""
    bus = status(home)
    connection = pika.BlockingConnection(
        pika.ConnectionParameters(
            "127.0.0.1",
            int(str(bus["amqp_port"])),
            str(bus["inner_vhost"]),
            pika.PlainCredentials(str(bus["username"]), str(bus["password"])),
        )
    )
    channel = connection.channel()
    lines = []
    last_tag = None
    while True:
        method, _, body = channel.basic_get(CAPTURE)
        if method is None or method.delivery_tag is None or body is None:
            break
        message = {
            "exchange": method.exchange,
            "routing_key": method.routing_key,
            "body": body.decode(),
        }
        lines.append(json.dumps(message))
        last_tag = method.delivery_tag
    if last_tag is not None:
        channel.basic_ack(last_tag, multiple=True)
    connection.close()
    return lines
