"""Consume queues over AMQP: RabbitMQ delivers, ``Consumer.receive`` hands the deliveries on.

``consume`` reads queues that exist; ``watch`` reads an exchange through a temporary queue, and so
takes nothing from anybody. ``expose/tail.py`` uses both.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from pika.adapters.blocking_connection import BlockingChannel
from pika.spec import Basic, BasicProperties

from stackbus.clients.amqp import Parameters, open_connection
from stackbus.errors import BrokerError


@dataclass(frozen=True, slots=True)
class AmqpDelivery:
    """One message as RabbitMQ delivered it. ``tag`` acknowledges it."""

    tag: int
    exchange: str
    routing_key: str
    properties: BasicProperties
    body: bytes


class Consumer:
    """A channel that consumes queues; deliveries arrive while ``receive`` waits."""

    def __init__(self, channel: BlockingChannel, queues: Sequence[str], prefetch: int) -> None:
        """Consume ``queues``. ``prefetch``: unacknowledged deliveries at most; 0 is no limit."""
        self._channel = channel
        self._deliveries: list[AmqpDelivery] = []
        channel.basic_qos(prefetch_count=prefetch)
        channel.add_on_cancel_callback(_raise_cancelled)
        for queue in queues:
            channel.basic_consume(queue, self._deliver)

    def receive(self, seconds: float) -> list[AmqpDelivery]:
        """Return the new deliveries; wait up to ``seconds`` for the first delivery.

        Raises BrokerError if a queue was deleted.
        """
        self._channel.connection.process_data_events(seconds)
        deliveries, self._deliveries = self._deliveries, []
        return deliveries

    def acknowledge(self, tag: int, *, multiple: bool = False) -> None:
        """Acknowledge one delivery; with ``multiple``, all earlier ones too."""
        self._channel.basic_ack(tag, multiple=multiple)

    def _deliver(
        self, _: BlockingChannel, method: Basic.Deliver, properties: BasicProperties, body: bytes
    ) -> None:
        assert method.delivery_tag is not None
        self._deliveries.append(
            AmqpDelivery(
                method.delivery_tag,
                method.exchange or "",
                method.routing_key or "",
                properties,
                body,
            )
        )


@contextmanager
def consume(
    parameters: Sequence[Parameters], queues: Sequence[str], prefetch: int
) -> Iterator[Consumer]:
    """Connect to the first host that answers, and consume ``queues``. Raises BrokerError."""
    with open_connection(list(parameters)) as connection:
        yield Consumer(connection.channel(), queues, prefetch)


@contextmanager
def watch(parameters: Sequence[Parameters], exchange: str, prefetch: int) -> Iterator[Consumer]:
    """Connect, and consume copies of all that ``exchange`` routes from now on."""
    with open_connection(list(parameters)) as connection:
        channel = connection.channel()
        queue = channel.queue_declare("", exclusive=True, auto_delete=True).method.queue
        channel.queue_bind(queue, exchange, "#")
        yield Consumer(channel, [queue], prefetch)


def _raise_cancelled(_: object) -> None:
    raise BrokerError("RabbitMQ deleted a queue of the topic: check that the topic still exists")
