"""Look at a topic's notifications as they arrive, or consume them as its consumer would.

Called by ``stackbus tail``. ``watch`` uses a temporary queue of its own and takes nothing from
the consumer; ``consume`` takes from the topic's queues, and its caller acknowledges what it has
dealt with. Both give values of ``Told``, each with the call that acknowledges it.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial

from pika.adapters.blocking_connection import BlockingChannel
from pika.connection import Parameters
from pika.spec import Basic, BasicProperties

from stackbus.clients.amqp import open_connection
from stackbus.errors import BrokerError
from stackbus.expose.topology import queue_name
from stackbus.services.service import PRIORITIES

Acknowledge = Callable[[], None]

_PREFETCH = 500
_GLANCE = 0.2  # seconds between two looks at the clock while nothing comes


@dataclass(frozen=True, slots=True)
class Told:
    """One notification as it came over the outer bus."""

    priority: str
    service: str
    project: str
    event_type: str
    message_id: str
    time: datetime | None
    scrubbed: tuple[str, ...]
    body: bytes

    def to_json(self) -> dict[str, object]:
        """Give it as ``tail -o json`` prints it: the label, and the notification decoded."""
        return {
            "time": self.time.isoformat() if self.time else None,
            "priority": self.priority,
            "service": self.service,
            "project": self.project,
            "type": self.event_type,
            "message_id": self.message_id,
            "scrubbed": list(self.scrubbed),
            "notification": self.notification(),
        }

    def notification(self) -> object:
        """Give the notification itself, out of its envelope."""
        try:
            value = json.loads(self.body)
            if isinstance(value, dict) and isinstance(value.get("oslo.message"), str):
                value = json.loads(value["oslo.message"])
        except ValueError:
            return self.body.decode("utf-8", "replace")
        return value


@dataclass(frozen=True, slots=True)
class Filter:
    """Which notifications are shown; an empty list means all. ``types`` are AMQP patterns."""

    services: tuple[str, ...] = ()
    types: tuple[str, ...] = ()
    projects: tuple[str, ...] = ()
    priorities: tuple[str, ...] = ()

    def passes(self, told: Told) -> bool:
        """Tell whether ``told`` is shown."""
        return (
            (not self.services or told.service in self.services)
            and (not self.projects or told.project in self.projects)
            and (not self.priorities or told.priority in self.priorities)
            and (not self.types or any(matches(one, told.event_type) for one in self.types))
        )


def matches(pattern: str, event_type: str) -> bool:
    """Match as an AMQP topic exchange does: ``*`` is one word, ``#`` any number of them."""
    return _matches(pattern.split("."), event_type.split("."))


@dataclass(slots=True)
class End:
    """When a tail ends: after ``idle`` seconds without any, or when ``wanted`` is set."""

    idle: float | None = None
    wanted: bool = False


def watch(
    parameters: Sequence[Parameters], topic: str, chosen: Filter, end: End
) -> Generator[tuple[Told, Acknowledge]]:
    """Give what passes ``topic`` from now on, until its ``end``."""
    with open_connection(list(parameters)) as connection:
        channel = connection.channel()
        queue = channel.queue_declare("", exclusive=True, auto_delete=True).method.queue
        channel.queue_bind(queue, topic, "#")
        channel.basic_qos(prefetch_count=_PREFETCH)
        for tag, told in _deliveries(channel, [queue], end):
            channel.basic_ack(tag)
            if chosen.passes(told):
                yield told, lambda: None


def consume(
    parameters: Sequence[Parameters], topic: str, chosen: Filter, end: End
) -> Generator[tuple[Told, Acknowledge]]:
    """Give what waits in ``topic``'s queues and what comes, until its ``end``.

    What is not acknowledged goes back to its queue at the end, and so does what the filter
    leaves out.
    """
    queues = [queue_name(topic, priority) for priority in chosen.priorities or PRIORITIES]
    with open_connection(list(parameters)) as connection:
        channel = connection.channel()
        # What does not pass is held until the end, so it must not use the window up.
        channel.basic_qos(prefetch_count=_PREFETCH if chosen == Filter() else 0)
        for tag, told in _deliveries(channel, queues, end):
            if chosen.passes(told):
                yield told, partial(channel.basic_ack, tag)


def _deliveries(
    channel: BlockingChannel, queues: Sequence[str], end: End
) -> Iterator[tuple[int, Told]]:
    """Give deliveries of several queues, in the order in which they come."""
    waiting: list[tuple[int, Told]] = []

    def keep(
        _: BlockingChannel, method: Basic.Deliver, properties: BasicProperties, body: bytes
    ) -> None:
        assert method.delivery_tag is not None
        assert method.routing_key is not None
        waiting.append((method.delivery_tag, _told(method.routing_key, properties, body)))

    def cancelled(_: object) -> None:
        raise BrokerError("the queue went away: was the topic removed?")

    channel.add_on_cancel_callback(cancelled)
    for queue in queues:
        channel.basic_consume(queue, keep)
    last = time.monotonic()
    while not end.wanted:
        channel.connection.process_data_events(_GLANCE)
        if waiting:
            delivered, waiting[:] = list(waiting), []
            yield from delivered
            last = time.monotonic()
        elif end.idle is not None and time.monotonic() - last >= end.idle:
            return


def _told(routing_key: str, properties: BasicProperties, body: bytes) -> Told:
    priority, service, project, event_type = (*routing_key.split(".", 3), "", "", "")[:4]
    scrubbed = (properties.headers or {}).get("x-stackbus-scrubbed", [])
    stamp = properties.timestamp
    return Told(
        priority,
        properties.app_id or service,
        project,
        properties.type or event_type,
        properties.message_id or "",
        datetime.fromtimestamp(stamp, UTC) if stamp else None,
        tuple(str(path) for path in scrubbed) if isinstance(scrubbed, list) else (),
        body,
    )


def _matches(pattern: list[str], words: list[str]) -> bool:
    if not pattern:
        return not words
    head, rest = pattern[0], pattern[1:]
    if head == "#":
        return any(_matches(rest, words[skip:]) for skip in range(len(words) + 1))
    return bool(words) and head in ("*", words[0]) and _matches(rest, words[1:])
