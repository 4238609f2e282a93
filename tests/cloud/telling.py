"""What was sent on the inner bus, and what two consumers were told on the outer.

Called by ``__main__.py`` after the scenario. What was sent comes from a queue of our own on the
inner bus, unscrubbed: the file stays in the cloud's folder, mode 0600. What was told comes through
``stackbus tail --secret``, as a consumer would get it: one topic by client certificate over TLS,
the other by password.
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
from tests.cloud.place import Failed, Place

WAYS = dict(zip(TOPICS, ((), ("--auth", "password")), strict=True))
"""How each topic's consumer logs in."""

_PATIENCE = 180.0


@dataclass(frozen=True)
class Sent:
    """A notification as a service sent it."""

    exchange: str
    routing_key: str
    body: str

    def notification(self) -> dict[str, Any]:
        """Give it out of its envelope."""
        value: dict[str, Any] = json.loads(self.body)
        if "oslo.message" in value:
            value = json.loads(value["oslo.message"])
        return value


def drain(place: Place) -> None:
    """Move what has been sent and told since the last time into the cloud's files.

    Services tell of themselves at any time: it ends when nothing was sent while consumers read,
    so that what was sent and what was told are about the same notifications. Raises Failed.
    """
    end = time.monotonic() + _PATIENCE
    new = _sent(place)
    while True:
        _keep(place.folder / "sent.jsonl", new)
        with ThreadPoolExecutor(len(WAYS)) as pool:
            for topic, lines in zip(WAYS, pool.map(partial(_consumed, place), WAYS), strict=True):
                _keep(place.folder / f"told-{topic}.jsonl", lines)
        new = _sent(place)
        if not new:
            return
        if time.monotonic() > end:
            raise Failed(f"the services do not fall silent: {len(new)} notifications came")


def _consumed(place: Place, topic: str) -> list[str]:
    secret = place.folder / f"{topic}.yaml"
    write_private(secret, stackbus(place, "secret", topic))
    done = subprocess.run(
        [
            *(sys.executable, "-m", "stackbus", "tail", "--secret", str(secret), *WAYS[topic]),
            *("-o", "json", "--until-idle", "4s"),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise Failed(f"the consumer of {topic}: {done.stderr}")
    return done.stdout.splitlines()


def clear(place: Place) -> None:
    """Forget what was sent and told so far; all that comes now belongs to what follows."""
    drain(place)
    for name in ("sent.jsonl", *(f"told-{topic}.jsonl" for topic in TOPICS)):
        earlier = place.folder / f"before-{name}"
        with earlier.open("a", encoding="utf-8") as file:
            file.write((place.folder / name).read_text("utf-8"))
        earlier.chmod(0o600)
        (place.folder / name).unlink()


def sent(place: Place) -> list[Sent]:
    """Give everything that was sent, in its order."""
    lines = (place.folder / "sent.jsonl").read_text("utf-8").splitlines()
    return [Sent(**json.loads(line)) for line in lines]


def ever_sent(place: Place) -> list[Sent]:
    """Give what was sent before the last scenario too: while services came up, and in between."""
    earlier = place.folder / "before-sent.jsonl"
    lines = earlier.read_text("utf-8").splitlines() if earlier.exists() else []
    return [Sent(**json.loads(line)) for line in lines] + sent(place)


def told(place: Place, topic: str) -> list[Mapping[str, Any]]:
    """Give everything that a topic's consumer was told, as ``tail -o json`` prints it."""
    lines = (place.folder / f"told-{topic}.jsonl").read_text("utf-8").splitlines()
    return [json.loads(line) for line in lines]


def _keep(path: Path, lines: Iterable[str]) -> None:
    path.touch(mode=0o600)
    with path.open("a", encoding="utf-8") as file:
        file.writelines(f"{line}\n" for line in lines)


def _sent(place: Place) -> list[str]:
    bus = status(place)
    connection = pika.BlockingConnection(
        pika.ConnectionParameters(
            "127.0.0.1",
            int(str(bus["amqp_port"])),
            str(bus["inner_vhost"]),
            pika.PlainCredentials(str(bus["username"]), str(bus["password"])),
        )
    )
    found = []
    channel = connection.channel()
    while True:
        method, _, body = channel.basic_get(CAPTURE)
        if method is None or method.delivery_tag is None or body is None:
            break
        one = {
            "exchange": method.exchange,
            "routing_key": method.routing_key,
            "body": body.decode(),
        }
        found.append((method.delivery_tag, json.dumps(one)))
    if found:
        channel.basic_ack(found[-1][0], multiple=True)
    connection.close()
    return [line for _, line in found]
