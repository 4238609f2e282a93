"""The bus as a channel: a topic's queues, read as its consumer would.

Opened by ``recorder.py``; a delivery's mark is its tag, and committing acknowledges it.
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

from stackbus.bus.message import is_relayed
from stackbus.bus.routing import UNKNOWN
from stackbus.clients.amqp import open_connection
from stackbus.errors import BrokerError
from stackbus.record.channel import Delivery

BUS = "bus"

log = structlog.get_logger()


class BusChannel:
    """A topic's queues, on the first of several hosts that answers."""

    name = BUS

    def __init__(
        self, place: Callable[[], list[Parameters]], queues: Sequence[str], prefetch: int
    ) -> None:
        """Read ``queues``; ``prefetch``: how many may be on their way into the history.

        ``place`` says how to get in, anew for each connection: a rotation changes the Secret.
        """
        self._place = place
        self._queues = list(queues)
        self._prefetch = prefetch

    @contextmanager
    def opened(self) -> Iterator[_Consumer]:
        """Connect and consume."""
        with open_connection(self._place()) as connection:
            yield _Consumer(connection, self._queues, self._prefetch)


class _Consumer:
    def __init__(
        self, connection: pika.BlockingConnection, queues: Sequence[str], prefetch: int
    ) -> None:
        self._connection = connection
        self._waiting: list[Delivery] = []
        self._channel = connection.channel()
        self._channel.basic_qos(prefetch_count=prefetch)
        self._channel.add_on_cancel_callback(_cancelled)
        for queue in queues:
            self._channel.basic_consume(queue, self._delivered)
        log.info("record.connected", queues=len(queues))

    def receive(self, seconds: float) -> list[Delivery]:
        self._connection.process_data_events(seconds)
        taken, self._waiting = self._waiting, []
        return taken

    def commit(self, mark: int) -> None:
        self._channel.basic_ack(mark, multiple=True)

    def _delivered(
        self, _: BlockingChannel, method: Basic.Deliver, properties: BasicProperties, body: bytes
    ) -> None:
        service = properties.app_id or ""
        self._waiting.append(
            Delivery(
                channel=BUS,
                origin=f"{method.exchange} {method.routing_key}",
                body=body,
                received=datetime.now(UTC),
                service="" if service == UNKNOWN else service,
                scrubbed=is_relayed(properties),
                mark=method.delivery_tag,
            )
        )


def _cancelled(_: object) -> None:
    raise BrokerError("the queue went away: was the topic removed?")
