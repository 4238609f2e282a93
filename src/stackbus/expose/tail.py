"""Read a topic's notifications as they arrive, for ``stackbus tail``.

``watch`` reads copies and takes nothing from the consumer. ``consume`` reads the topic's queues as
the consumer would. Both yield each ``Message`` with the call that acknowledges it; the door prints
the message, and then calls it.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial

from stackbus.bus.message import scrubbed_paths
from stackbus.bus.names import PRIORITIES, queue_name
from stackbus.bus.routing import RoutingFilter, RoutingKey
from stackbus.clients import consumer
from stackbus.clients.amqp import Parameters
from stackbus.clients.consumer import AmqpDelivery, Consumer

Acknowledge = Callable[[], None]

_PREFETCH = 500
_UNLIMITED = 0
_POLL_SECONDS = 0.2


@dataclass(frozen=True, slots=True)
class Message:
    """One notification as it arrived over the outer bus."""

    priority: str
    service: str
    project: str
    event_type: str
    message_id: str
    time: datetime | None
    scrubbed: tuple[str, ...]
    body: bytes

    @property
    def key(self) -> RoutingKey:
        """Return the parts by which a filter chooses."""
        return RoutingKey(self.priority, self.service, self.project, self.event_type)

    def to_json(self) -> dict[str, object]:
        """Return the label and the decoded notification, as ``tail -o json`` prints them."""
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
        """Return the decoded notification without its envelope; the text if it is not JSON."""
        try:
            value = json.loads(self.body)
            if isinstance(value, dict) and isinstance(value.get("oslo.message"), str):
                value = json.loads(value["oslo.message"])
        except ValueError:
            return self.body.decode("utf-8", "replace")
        return value


@dataclass(slots=True)
class End:
    """When a tail ends: after ``idle`` seconds without a message, or once ``is_requested``."""

    idle: float | None = None
    is_requested: bool = False


def watch(
    parameters: Sequence[Parameters], topic: str, routing_filter: RoutingFilter, end: End
) -> Generator[tuple[Message, Acknowledge]]:
    """Yield copies of what ``topic`` receives from now on, until ``end``."""
    with consumer.watch(parameters, topic, _PREFETCH) as source:
        for delivery in _deliveries(source, end):
            source.acknowledge(delivery.tag)
            message = _message(delivery)
            if routing_filter.passes(message.key):
                yield message, lambda: None


def consume(
    parameters: Sequence[Parameters], topic: str, routing_filter: RoutingFilter, end: End
) -> Generator[tuple[Message, Acknowledge]]:
    """Yield what ``topic``'s queues hold and receive, until ``end``.

    At the end RabbitMQ requeues the messages that were not acknowledged or did not pass the filter.
    """
    queues = [queue_name(topic, priority) for priority in routing_filter.priorities or PRIORITIES]
    # Messages that do not pass stay unacknowledged until the end, so they must not fill a window.
    prefetch = _PREFETCH if routing_filter == RoutingFilter() else _UNLIMITED
    with consumer.consume(parameters, queues, prefetch) as source:
        for delivery in _deliveries(source, end):
            message = _message(delivery)
            if routing_filter.passes(message.key):
                yield message, partial(source.acknowledge, delivery.tag)


def _deliveries(source: Consumer, end: End) -> Iterator[AmqpDelivery]:
    last_arrival = time.monotonic()
    while not end.is_requested:
        deliveries = source.receive(_POLL_SECONDS)
        yield from deliveries
        if deliveries:
            last_arrival = time.monotonic()
        elif end.idle is not None and time.monotonic() - last_arrival >= end.idle:
            return


def _message(delivery: AmqpDelivery) -> Message:
    """Read a delivery; its properties are whole where a long routing key was cut."""
    key = RoutingKey.parse(delivery.routing_key)
    properties = delivery.properties
    timestamp = properties.timestamp
    return Message(
        priority=key.priority,
        service=properties.app_id or key.service,
        project=key.project,
        event_type=properties.type or key.event_type,
        message_id=properties.message_id or "",
        time=datetime.fromtimestamp(timestamp, UTC) if timestamp else None,
        scrubbed=scrubbed_paths(properties.headers),
        body=delivery.body,
    )
