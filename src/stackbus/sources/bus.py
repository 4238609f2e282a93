"""The bus as a source: a topic's queues, consumed as any consumer of the topic does.

RabbitMQ delivers to ``_Consumer``, which hands the deliveries to ``flow/loop.py``. The position of
a delivery is its delivery tag; to commit it is to acknowledge it and all before it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime

import pika
import structlog
from pika.adapters.blocking_connection import BlockingChannel
from pika.connection import Parameters
from pika.spec import Basic, BasicProperties

from stackbus.clients.amqp import open_connection
from stackbus.errors import BrokerError
from stackbus.flow.stream import Delivery
from stackbus.services.service import UNKNOWN

BUS = "bus"

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
    def subscribe(self) -> Iterator[_Consumer]:
        """Connect, and consume the queues. Raises BrokerError."""
        with open_connection(self._make_parameters()) as connection:
            yield _Consumer(connection, self._queues, self._prefetch)


class _Consumer:
    """A connection that consumes queues."""

    def __init__(
        self, connection: pika.BlockingConnection, queues: Sequence[str], prefetch: int
    ) -> None:
        self._connection = connection
        self._deliveries: list[Delivery] = []
        self._channel = connection.channel()
        self._channel.basic_qos(prefetch_count=prefetch)
        self._channel.add_on_cancel_callback(_raise_cancelled)
        for queue in queues:
            self._channel.basic_consume(queue, self._deliver)
        log.info("bus.consuming", queues=len(queues))

    def receive(self, seconds: float) -> list[Delivery]:
        self._connection.process_data_events(seconds)
        deliveries, self._deliveries = self._deliveries, []
        return deliveries

    def commit(self, position: int) -> None:
        self._channel.basic_ack(position, multiple=True)

    def _deliver(
        self, _: BlockingChannel, method: Basic.Deliver, properties: BasicProperties, body: bytes
    ) -> None:
        service = properties.app_id or ""
        self._deliveries.append(
            Delivery(
                channel=BUS,
                origin=f"{method.exchange} {method.routing_key}",
                body=body,
                received=datetime.now(UTC),
                service="" if service == UNKNOWN else service,
                # The relay sets both properties; oslo.messaging sets neither, and only the relay
                # may publish on the outer bus.
                scrubbed=bool(properties.app_id and properties.type),
                position=method.delivery_tag,
            )
        )


def _raise_cancelled(_: object) -> None:
    raise BrokerError("RabbitMQ deleted a queue of the topic: check that the topic still exists")
