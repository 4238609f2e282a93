"""The relay: the only path from the inner to the outer bus.

``Relay.run`` runs one ``_Session`` after another. A session takes each delivery of the intake
queue through decode, scrub, label and publish, and acknowledges it when the outer bus has
confirmed it: each notification arrives at least once, in order. A body that cannot be read goes to
the quarantine in the same way. Any failure ends the session; RabbitMQ then redelivers the
unacknowledged deliveries to the next session, or to another relay that stands by (the intake has a
single active consumer). Consumers receive the result from the queues of their topics.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import takewhile
from typing import Any

import pika
import pika.exceptions
import structlog
from pika.adapters.select_connection import IOLoop
from pika.channel import Channel
from pika.frame import Method
from pika.spec import Basic, BasicProperties
from prometheus_client import Counter

from stackbus.bus.message import Label, properties_of, quarantine_properties
from stackbus.bus.names import (
    CONTROL_EXCHANGES,
    INTAKE,
    NOTIFICATION_TOPICS,
    OUTER_EXCHANGE,
    QUARANTINE,
)
from stackbus.bus.routing import UNKNOWN
from stackbus.clients.amqp import BatchingConnection, Parameters, translate_error
from stackbus.errors import StackbusError, Unreadable
from stackbus.events.envelope import decode
from stackbus.events.scrub import Scrubbed, Scrubber
from stackbus.metrics import IN_FLIGHT, QUARANTINED, RECONNECTS, RELAYED, SCRUBBED
from stackbus.relay.label import label
from stackbus.services import SERVICES

_TICK = 0.1  # seconds between two checks of the clock and of the request to stop
_DRAIN = 10.0  # seconds to wait for confirms when stopping
_CLOSE = 2.0  # seconds to wait for RabbitMQ to answer when closing the connections
_FIRST_PAUSE = 0.25  # seconds between two sessions

log = structlog.get_logger()

ParametersFactory = Callable[[], Parameters]
"""Returns how to connect to a bus. It is called for each session: a file may hold the URL, and
change with the password. Raises StackbusError while it cannot."""


@dataclass(frozen=True, slots=True)
class RelaySettings:
    """The relay's part of ``settings.py``, which explains each."""

    prefetch: int
    retry_max: float
    rebind: float


class Relay:
    """Relays until it is asked to stop."""

    def __init__(
        self,
        inner: ParametersFactory,
        outer: ParametersFactory,
        scrubber: Scrubber,
        settings: RelaySettings,
    ) -> None:
        """Relay from the bus of ``inner`` to the bus of ``outer``."""
        self._inner = inner
        self._outer = outer
        self._scrubber = scrubber
        self._settings = settings
        self._is_stopping = False

    def stop_on_signals(self) -> None:
        """Stop on SIGTERM and SIGINT."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: self.stop())

    def stop(self) -> None:
        """Ask ``run`` to stop: it takes no new deliveries and waits for those in flight."""
        self._is_stopping = True

    def run(self) -> None:
        """Relay until stopped. Reconnect for ever, with a pause that doubles while nothing works.

        The pause is not the back-off of a retried call, so tenacity does not fit: a session may
        have relayed for months before it ends, and the next pause is then the first one again.
        """
        pause = _FIRST_PAUSE
        while not self._is_stopping:
            reason, was_active = self._run_session()
            if reason is None:
                break
            RECONNECTS.inc()
            pause = _FIRST_PAUSE if was_active else min(pause * 2, self._settings.retry_max)
            log.warning("relay.lost", reason=reason, again_in_seconds=pause)
            end = time.monotonic() + pause
            while time.monotonic() < end and not self._is_stopping:
                time.sleep(min(_TICK, pause))
        log.info("relay.stopped")

    def _run_session(self) -> tuple[str | None, bool]:
        """Run one session. Return why it ended, None for a stop, and whether it took deliveries."""
        try:
            inner, outer = self._inner(), self._outer()
        except StackbusError as error:
            return str(error), False
        session = _Session(inner, outer, self._scrubber, self._settings, lambda: self._is_stopping)
        return session.run(), session.was_active


class _Window:
    """The deliveries that are published and not yet confirmed, by delivery tag.

    RabbitMQ acknowledges up to a tag, so a tag may be acknowledged once no earlier one waits. Two
    channels publish, each with its own sequence numbers, so tags are confirmed out of order.
    """

    def __init__(self) -> None:
        self._unconfirmed: dict[int, None] = {}
        self._last = 0
        self._acknowledged = 0

    def __len__(self) -> int:
        return len(self._unconfirmed)

    def add(self, tag: int) -> None:
        self._unconfirmed[tag] = None
        self._last = tag

    def remove(self, tag: int) -> None:
        self._unconfirmed.pop(tag, None)

    def next_acknowledgement(self) -> int | None:
        """Return the highest tag up to which all are confirmed; None if it has not moved."""
        highest = next(iter(self._unconfirmed)) - 1 if self._unconfirmed else self._last
        if highest <= self._acknowledged:
            return None
        self._acknowledged = highest
        return highest


class _Publisher:
    """A channel in confirm mode: which delivery each of its sequence numbers stands for."""

    def __init__(self, window: _Window) -> None:
        self._window = window
        self._sequence = 0
        self._unconfirmed: dict[int, tuple[int, Counter]] = {}

    def add(self, tag: int, counter: Counter) -> None:
        """Note that the delivery ``tag`` was published; its confirm increments ``counter``."""
        self._sequence += 1
        self._unconfirmed[self._sequence] = (tag, counter)
        self._window.add(tag)

    def confirm(self, sequence: int, *, multiple: bool) -> None:
        """Remove the confirmed deliveries: one publish, or with ``multiple`` all up to it."""
        if not multiple:
            self._confirm(sequence)
            return
        # A dict keeps its order, so the lowest numbers come first.
        for confirmed in list(takewhile(lambda number: number <= sequence, self._unconfirmed)):
            self._confirm(confirmed)

    def _confirm(self, sequence: int) -> None:
        tag, counter = self._unconfirmed.pop(sequence)
        self._window.remove(tag)
        counter.inc()


class _Session:
    """One life of the two connections: from connecting until something ends it."""

    def __init__(
        self,
        inner: Parameters,
        outer: Parameters,
        scrubber: Scrubber,
        settings: RelaySettings,
        is_stopping: Callable[[], bool],
    ) -> None:
        self._inner_parameters = inner
        self._outer_parameters = outer
        self._scrubber = scrubber
        self._settings = settings
        self._is_stopping = is_stopping
        self._loop = IOLoop()
        self._window = _Window()
        self._outer_publisher = _Publisher(self._window)
        self._quarantine_publisher = _Publisher(self._window)
        self._connections: list[BatchingConnection] = []
        self._reason: str | None = None
        self._is_over = False
        self._drain_until: float | None = None
        self._next_bind = 0.0
        self._consumer_tag: str | None = None
        self.was_active = False

    def run(self) -> str | None:
        """Relay until the session ends. Return the reason, None for a stop."""
        try:
            self._connect(self._outer_parameters, self._on_outer_open)
            self._loop.call_later(_TICK, self._on_tick)
            self._loop.start()
            self._close_connections()
        except (pika.exceptions.AMQPError, OSError) as error:
            self._reason = str(translate_error(error))
        finally:
            IN_FLIGHT.set(0)
            self._loop.close()
        return self._reason

    # Opening: the outer connection with its channel, the inner connection, the channel to the
    # quarantine, the channel of the intake, and then deliveries.

    def _connect(
        self, parameters: Parameters, on_open: Callable[[pika.SelectConnection], None]
    ) -> None:
        connection = BatchingConnection(
            parameters,
            on_open_callback=on_open,
            on_open_error_callback=lambda _, error: self._end(
                str(translate_error(_exception(error)))
            ),
            on_close_callback=lambda _, error: self._end(str(translate_error(_exception(error)))),
            custom_ioloop=self._loop,
        )
        self._connections.append(connection)

    def _open_channel(
        self, connection: pika.SelectConnection, on_open: Callable[[Channel], None]
    ) -> None:
        def on_channel_open(channel: Channel) -> None:
            channel.add_on_close_callback(lambda _, error: self._end(f"channel closed: {error}"))
            on_open(channel)

        connection.channel(on_open_callback=on_channel_open)

    def _on_outer_open(self, connection: pika.SelectConnection) -> None:
        self._open_channel(connection, self._on_outer_channel_open)

    def _on_outer_channel_open(self, channel: Channel) -> None:
        self._outer_channel = channel
        channel.add_on_return_callback(
            lambda *_: self._end("the journal is not bound to the outer exchange: apply again")
        )
        channel.confirm_delivery(
            lambda frame: self._on_confirm(frame, self._outer_publisher),
            lambda _: self._connect(self._inner_parameters, self._on_inner_open),
        )

    def _on_inner_open(self, connection: pika.SelectConnection) -> None:
        self._inner_connection = connection
        self._open_channel(connection, self._on_quarantine_channel_open)

    def _on_quarantine_channel_open(self, channel: Channel) -> None:
        self._quarantine_channel = channel
        channel.add_on_return_callback(
            lambda *_: self._end("the quarantine's queue is not bound: apply again")
        )
        channel.confirm_delivery(
            lambda frame: self._on_confirm(frame, self._quarantine_publisher),
            lambda _: self._open_channel(self._inner_connection, self._on_intake_channel_open),
        )

    def _on_intake_channel_open(self, channel: Channel) -> None:
        self._intake_channel = channel
        channel.basic_qos(prefetch_count=self._settings.prefetch, callback=self._consume)

    def _consume(self, _: Method[Any]) -> None:
        self._intake_channel.add_on_cancel_callback(
            lambda _: self._end("the intake queue was deleted: apply again")
        )
        self._consumer_tag = self._intake_channel.basic_consume(INTAKE, self._on_delivery)
        log.info("relay.ready", prefetch=self._settings.prefetch)

    # One delivery, from the intake to the outer exchange or to the quarantine.

    def _on_delivery(
        self, _: Channel, method: Basic.Deliver, __: BasicProperties, body: bytes
    ) -> None:
        if self._is_over:
            return  # RabbitMQ redelivers it
        self.was_active = True
        tag, exchange = method.delivery_tag, method.exchange
        assert tag is not None
        assert exchange is not None
        try:
            scrubbed, notification_label = self._read(exchange, body)
        except Unreadable as error:
            self._quarantine(tag, method, body, str(error))
        except Exception as error:  # noqa: BLE001 -- one message must never stop the others
            log.error("relay.bug", error=type(error).__name__)  # noqa: TRY400 -- no body in a log
            self._quarantine(
                tag, method, body, f"stackbus cannot read this: {type(error).__name__}"
            )
        else:
            self._publish(tag, scrubbed, notification_label)
        IN_FLIGHT.set(len(self._window))

    def _read(self, exchange: str, body: bytes) -> tuple[Scrubbed, Label]:
        notification = decode(body)
        scrubbed = self._scrubber.scrub(body, notification.event_type)
        if scrubbed.paths:
            # The label must not reveal what was scrubbed from the body.
            notification = decode(scrubbed.body)
        return scrubbed, label(exchange, notification)

    def _publish(self, tag: int, scrubbed: Scrubbed, notification_label: Label) -> None:
        if scrubbed.paths:
            _SCRUBBED_BY_SERVICE[notification_label.service].inc()
        self._outer_channel.basic_publish(
            OUTER_EXCHANGE,
            notification_label.routing_key,
            scrubbed.body,
            BasicProperties(**properties_of(notification_label, scrubbed.paths)),
            mandatory=True,
        )
        self._outer_publisher.add(tag, _RELAYED_BY_SERVICE[notification_label.service])

    def _quarantine(self, tag: int, method: Basic.Deliver, body: bytes, reason: str) -> None:
        exchange, routing_key = method.exchange or "", method.routing_key or ""
        log.warning("relay.quarantined", exchange=exchange, reason=reason)
        properties = BasicProperties(**quarantine_properties(reason, exchange, routing_key))
        self._quarantine_channel.basic_publish(QUARANTINE, "", body, properties, mandatory=True)
        self._quarantine_publisher.add(tag, QUARANTINED)

    def _on_confirm(self, frame: Method[Any], publisher: _Publisher) -> None:
        if isinstance(frame.method, Basic.Nack):
            self._end("the bus refused a notification (a queue is full or its node is down)")
            return
        publisher.confirm(frame.method.delivery_tag, multiple=frame.method.multiple)
        # A session that is over may have lost notifications, so it acknowledges no more.
        if not self._is_over and (tag := self._window.next_acknowledgement()) is not None:
            self._intake_channel.basic_ack(tag, multiple=True)
            IN_FLIGHT.set(len(self._window))

    # The clock: stopping, and binding new control exchanges.

    def _on_tick(self) -> None:
        if self._is_over:
            return
        now = time.monotonic()
        if self._is_stopping():
            if self._consumer_tag is None:
                self._end(None)
                return
            if self._drain_until is None:
                self._drain_until = now + _DRAIN
                self._intake_channel.basic_cancel(self._consumer_tag)
            elif not self._window or now > self._drain_until:
                self._end(None)
                return
        elif self._consumer_tag is not None and now >= self._next_bind:
            self._next_bind = now + self._settings.rebind
            self._bind(list(CONTROL_EXCHANGES))
        self._loop.call_later(_TICK, self._on_tick)

    def _bind(self, exchanges: list[str]) -> None:
        """Bind the intake to each control exchange that exists; declare none.

        A service declares its exchange at its first notification, and an exchange that is not
        durable loses its bindings when the broker restarts. So this runs again and again.
        """
        if not exchanges or self._is_over or not self._inner_connection.is_open:
            return
        exchange, *remaining = exchanges

        def bind(channel: Channel) -> None:
            # An exchange that does not exist closes the channel; the remaining follow in any case.
            channel.add_on_close_callback(lambda *_: self._bind(remaining))
            for topic in NOTIFICATION_TOPICS:
                channel.queue_bind(INTAKE, exchange, f"{topic}.*")
            channel.close()

        self._inner_connection.channel(on_open_callback=bind)

    # Ending.

    def _end(self, reason: str | None) -> None:
        if not self._is_over:
            self._is_over = True
            self._reason = reason
            self._loop.stop()

    def _close_connections(self) -> None:
        """Close the connections; drop them if deliveries are unacknowledged, to keep their order.

        ``BatchingConnection.drop`` says why a drop keeps it.
        """
        for connection in self._connections:
            if self._reason is not None or self._window:
                connection.drop()
            elif connection.is_open:
                connection.close()
        end = time.monotonic() + _CLOSE

        def wait() -> None:
            is_closed = all(connection.is_closed for connection in self._connections)
            if is_closed or time.monotonic() > end:
                self._loop.stop()
            else:
                self._loop.call_later(_TICK / 4, wait)

        self._loop.call_later(0, wait)
        self._loop.start()


def _exception(error: BaseException | str) -> BaseException:
    return error if isinstance(error, BaseException) else pika.exceptions.AMQPError(error)


# Looked up once: ``labels`` takes a lock, and this runs for every notification.
_SERVICE_NAMES = (UNKNOWN, *(service.name for service in SERVICES))
_RELAYED_BY_SERVICE = {name: RELAYED.labels(name) for name in _SERVICE_NAMES}
_SCRUBBED_BY_SERVICE = {name: SCRUBBED.labels(name) for name in _SERVICE_NAMES}
