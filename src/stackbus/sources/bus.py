"""The bus as a source: a topic's queues, consumed as any consumer of the topic does.

``clients/consumer.py`` receives the deliveries, and ``_Subscription`` hands them to
``flow/loop.py``. The position of a delivery is its delivery tag; to commit it is to acknowledge it
and all before it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime

import structlog

from stackbus.bus.message import is_relayed
from stackbus.bus.routing import UNKNOWN
from stackbus.clients.amqp import Parameters
from stackbus.clients.consumer import AmqpDelivery, Consumer, consume
from stackbus.events.model import BUS
from stackbus.flow.stream import Delivery

log = structlog.get_logger()


class BusSource:
    """The queues of a topic, on the first of several hosts that answers."""

    name = BUS

    def __init__(
        self,
        make_parameters: Callable[[], list[Parameters]],
        queues: Sequence[str],
        prefetch: int,
    ) -> None:
        """Consume ``queues``; at most ``prefetch`` deliveries are unacknowledged at a time.

        ``make_parameters`` is called for each connection, since a rotation changes the Secret.
        """
        self._make_parameters = make_parameters
        self._queues = list(queues)
        self._prefetch = prefetch

    @staticmethod
    def extract(body: bytes) -> bytes:
        """Return the notification in a delivery's body: all of it."""
        return body

    @contextmanager
    def subscribe(self) -> Iterator[_Subscription]:
        """Connect, and consume the queues. Raises BrokerError."""
        with consume(self._make_parameters(), self._queues, self._prefetch) as consumer:
            log.info("bus.consuming", queues=len(self._queues))
            yield _Subscription(consumer)


class _Subscription:
    """A connection that consumes queues."""

    def __init__(self, consumer: Consumer) -> None:
        self._consumer = consumer

    def receive(self, seconds: float) -> list[Delivery]:
        return [_delivery(delivery) for delivery in self._consumer.receive(seconds)]

    def commit(self, position: int) -> None:
        self._consumer.acknowledge(position, multiple=True)


def _delivery(delivery: AmqpDelivery) -> Delivery:
    service = delivery.properties.app_id or ""
    return Delivery(
        channel=BUS,
        origin=f"{delivery.exchange} {delivery.routing_key}",
        body=delivery.body,
        received=datetime.now(UTC),
        service="" if service == UNKNOWN else service,
        scrubbed=is_relayed(delivery.properties),
        position=delivery.tag,
    )
