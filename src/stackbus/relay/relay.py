"""The relay: the one way from the inner to the outer bus.

Called by ``stackbus relay``. Reads top to bottom: ``Relay.run`` lives through one ``_Session``
after another; a session takes each delivery of the intake queue through decode, scrub, label and
publish, and acknowledges it when the outer bus has confirmed it. So each notification arrives at
least once, in order. What cannot be read goes to the quarantine the same way. Whatever goes wrong
ends the session: what was not acknowledged comes again to the next one, or to the other relay
that stands by (the intake has a single active consumer).
"""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice
from typing import Any

import pika
import pika.exceptions
import structlog
from pika.adapters.select_connection import IOLoop
from pika.channel import Channel
from pika.connection import Parameters
from pika.frame import Method
from pika.spec import Basic, BasicProperties

from stackbus.clients.amqp import BatchingConnection, translate_error
from stackbus.errors import StackbusError, Unreadable
from stackbus.events.envelope import decode
from stackbus.events.scrub import Scrubbed, Scrubber
from stackbus.metrics import IN_FLIGHT, QUARANTINED, RECONNECTS, RELAYED, SCRUBBED
from stackbus.relay.label import Label, label
from stackbus.services import SERVICES
from stackbus.services.service import NOTIFICATION_TOPICS, SHARED_EXCHANGE, UNKNOWN

_INTAKE = "stackbus.intake"
_QUARANTINE = "stackbus.quarantine"
_OUTER_EXCHANGE = "stackbus"
_CONTROL_EXCHANGES = (*(service.exchange for service in SERVICES), SHARED_EXCHANGE)

_TICK = 0.1  # seconds between two looks at the clock and the wish to stop
_DRAIN = 10.0  # seconds to wait for confirms when stopping
_MOST_PATHS = 100
_LONGEST_PATH = 200

log = structlog.get_logger()

Place = Callable[[], Parameters]
"""Says how to get into a bus. Its URL may stand in a file that changes with the password."""


@dataclass(frozen=True, slots=True)
class RelaySettings:
    """The knobs of ``settings.py`` that are the relay's."""

    prefetch: int
    retry_max: float
    rebind: float


class Relay:
    """Relays until told to stop."""

    def __init__(
        self, inner: Place, outer: Place, scrubber: Scrubber, settings: RelaySettings
    ) -> None:
        """Relay from ``inner`` to ``outer``, each asked anew for each session."""
        self._inner = inner
        self._outer = outer
        self._scrubber = scrubber
        self._settings = settings
        self._stopping = False

    def stop_on_signals(self) -> None:
        """Take SIGTERM and SIGINT as the wish to stop."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: self.stop())

    def stop(self) -> None:
        """Stop cleanly: take nothing more, wait for what is in flight."""
        self._stopping = True

    def run(self) -> None:
        """Relay until stopped; reconnect for ever, with a pause that grows."""
        pause = 0.25
        while not self._stopping:
            reason, was_active = self._session()
            if reason is None:
                break
            RECONNECTS.inc()
            pause = 0.25 if was_active else min(pause * 2, self._settings.retry_max)
            log.warning("relay.lost", reason=reason, again_in_seconds=pause)
            end = time.monotonic() + pause
            while time.monotonic() < end and not self._stopping:
                time.sleep(min(_TICK, pause))
        log.info("relay.stopped")

    def _session(self) -> tuple[str | None, bool]:
        """Live through one session: why it ended, None for a wished stop; and if it relayed."""
        try:
            inner, outer = self._inner(), self._outer()
        except StackbusError as error:
            return str(error), False
        session = _Session(inner, outer, self._scrubber, self._settings, lambda: self._stopping)
        return session.run(), session.was_active


class _Window:
    """What was published and not yet confirmed, by the tag of its delivery.

    Deliveries are acknowledged in order, so a tag may be acknowledged once no earlier one waits.
    Two channels publish, each with sequence numbers of its own.
    """

    def __init__(self) -> None:
        self._waiting: dict[int, None] = {}
        self._last = 0
        self._acknowledged = 0

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, tag: int) -> None:
        self._waiting[tag] = None
        self._last = tag

    def remove(self, tag: int) -> None:
        self._waiting.pop(tag, None)

    def to_acknowledge(self) -> int | None:
        """Give the highest tag up to which all is confirmed, if it is news."""
        highest = next(iter(self._waiting)) - 1 if self._waiting else self._last
        if highest <= self._acknowledged:
            return None
        self._acknowledged = highest
        return highest


class _Publisher:
    """A channel in confirm mode: which sequence number stands for which delivery."""

    def __init__(self, window: _Window) -> None:
        self._window = window
        self._sequence = 0
        self._tags: dict[int, int] = {}

    def sent(self, tag: int) -> None:
        self._sequence += 1
        self._tags[self._sequence] = tag
        self._window.add(tag)

    def confirmed(self, sequence: int, *, multiple: bool) -> None:
        if not multiple:
            self._window.remove(self._tags.pop(sequence))
            return
        # dicts keep their order, so the confirmed ones stand first
        count = next(
            (place for place, known in enumerate(self._tags) if known > sequence), len(self._tags)
        )
        for known in list(islice(self._tags, count)):
            self._window.remove(self._tags.pop(known))


class _Session:
    """One life of the two connections: from opening them until something ends it."""

    def __init__(
        self,
        inner: Parameters,
        outer: Parameters,
        scrubber: Scrubber,
        settings: RelaySettings,
        wants_stop: Callable[[], bool],
    ) -> None:
        self._parameters = (inner, outer)
        self._scrubber = scrubber
        self._settings = settings
        self._wants_stop = wants_stop
        self._loop = IOLoop()
        self._window = _Window()
        self._outward = _Publisher(self._window)
        self._aside = _Publisher(self._window)
        self._connections: list[BatchingConnection] = []
        self._reason: str | None = None
        self._ended = False
        self._draining_until: float | None = None
        self._next_bind = 0.0
        self._tag: str | None = None
        self.was_active = False

    def run(self) -> str | None:
        """Relay until the session ends; give the reason, None for a wished stop."""
        try:
            self._connect(self._parameters[1], self._outer_opened)
            self._loop.call_later(_TICK, self._tick)
            self._loop.start()
            self._close_connections()
        except (pika.exceptions.AMQPError, OSError) as error:
            self._reason = str(translate_error(error))
        finally:
            IN_FLIGHT.set(0)
            self._loop.close()
        return self._reason

    # Opening: first the outer connection, then the inner one, then deliveries.

    def _connect(
        self, parameters: Parameters, opened: Callable[[pika.SelectConnection], None]
    ) -> None:
        connection = BatchingConnection(
            parameters,
            on_open_callback=opened,
            on_open_error_callback=lambda _, error: self._end(str(translate_error(_cause(error)))),
            on_close_callback=lambda _, error: self._end(str(translate_error(_cause(error)))),
            custom_ioloop=self._loop,
        )
        self._connections.append(connection)

    def _outer_opened(self, connection: pika.SelectConnection) -> None:
        self._open_channel(connection, self._outer_channel_opened)

    def _outer_channel_opened(self, channel: Channel) -> None:
        self._outer = channel
        channel.add_on_return_callback(
            lambda *_: self._end("the journal is not bound to the outer exchange: apply again")
        )
        channel.confirm_delivery(
            lambda frame: self._confirmed(frame, self._outward),
            lambda _: self._connect(self._parameters[0], self._inner_opened),
        )

    def _inner_opened(self, connection: pika.SelectConnection) -> None:
        self._inner_connection = connection
        self._open_channel(connection, self._aside_channel_opened)

    def _aside_channel_opened(self, channel: Channel) -> None:
        self._aside_channel = channel
        channel.add_on_return_callback(
            lambda *_: self._end("the quarantine's queue is not bound: apply again")
        )
        channel.confirm_delivery(
            lambda frame: self._confirmed(frame, self._aside),
            lambda _: self._open_channel(self._inner_connection, self._inner_channel_opened),
        )

    def _inner_channel_opened(self, channel: Channel) -> None:
        self._inner = channel
        channel.basic_qos(prefetch_count=self._settings.prefetch, callback=self._consume)

    def _consume(self, _: Method[Any]) -> None:
        self._inner.add_on_cancel_callback(
            lambda _: self._end("the intake queue went away: apply again")
        )
        self._tag = self._inner.basic_consume(_INTAKE, self._delivered)
        log.info("relay.ready", prefetch=self._settings.prefetch)

    def _open_channel(
        self, connection: pika.SelectConnection, opened: Callable[[Channel], None]
    ) -> None:
        def with_close(channel: Channel) -> None:
            channel.add_on_close_callback(lambda _, error: self._end(f"channel closed: {error}"))
            opened(channel)

        connection.channel(on_open_callback=with_close)

    # One delivery, from the intake to the outer exchange or to the quarantine.

    def _delivered(
        self, _: Channel, method: Basic.Deliver, __: BasicProperties, body: bytes
    ) -> None:
        if self._ended:
            return  # it comes again
        self.was_active = True
        tag, exchange = method.delivery_tag, method.exchange
        assert tag is not None
        assert exchange is not None
        try:
            scrubbed, known = self._read(exchange, body)
        except Unreadable as error:
            self._set_aside(tag, method, body, str(error))
        except Exception as error:  # noqa: BLE001 -- one message must never stop the others
            log.error("relay.bug", error=type(error).__name__)  # noqa: TRY400 -- no body in a log
            self._set_aside(tag, method, body, f"stackbus cannot read this: {type(error).__name__}")
        else:
            self._publish(tag, scrubbed, known)
        IN_FLIGHT.set(len(self._window))

    def _read(self, exchange: str, body: bytes) -> tuple[Scrubbed, Label]:
        notification = decode(body)
        scrubbed = self._scrubber.scrub(body, notification.event_type)
        if scrubbed.paths:
            # The label must not say what the body no longer does.
            notification = decode(scrubbed.body)
        return scrubbed, label(exchange, notification)

    def _publish(self, tag: int, scrubbed: Scrubbed, known: Label) -> None:
        headers: dict[str, Any] | None = None
        if scrubbed.paths:
            headers = {"x-stackbus-scrubbed": _shown(scrubbed.paths)}
            _scrubbed_of[known.service].inc()
        properties = BasicProperties(
            content_type="application/json",
            content_encoding="utf-8",
            delivery_mode=2,
            message_id=known.message_id,
            type=known.event_type,
            app_id=known.service,
            timestamp=known.timestamp,
            headers=headers,
        )
        self._outer.basic_publish(
            _OUTER_EXCHANGE, known.routing_key, scrubbed.body, properties, mandatory=True
        )
        self._outward.sent(tag)
        _relayed_of[known.service].inc()

    def _set_aside(self, tag: int, method: Basic.Deliver, body: bytes, reason: str) -> None:
        QUARANTINED.inc()
        log.warning("relay.quarantined", exchange=method.exchange, reason=reason)
        properties = BasicProperties(
            delivery_mode=2,
            headers={
                "x-stackbus-reason": reason,
                "x-stackbus-exchange": method.exchange,
                "x-stackbus-routing-key": method.routing_key,
            },
        )
        self._aside_channel.basic_publish(_QUARANTINE, "", body, properties, mandatory=True)
        self._aside.sent(tag)

    def _confirmed(self, frame: Method[Any], publisher: _Publisher) -> None:
        if isinstance(frame.method, Basic.Nack):
            self._end("the bus refused a notification (a queue is full or its node is down)")
            return
        publisher.confirmed(frame.method.delivery_tag, multiple=frame.method.multiple)
        # After the session's end its acknowledgements could be about what was not stored.
        if not self._ended and (tag := self._window.to_acknowledge()) is not None:
            self._inner.basic_ack(tag, multiple=True)
            IN_FLIGHT.set(len(self._window))

    # The clock: stopping, and binding what has come since.

    def _tick(self) -> None:
        if self._ended:
            return
        now = time.monotonic()
        if self._wants_stop():
            if self._tag is None:
                self._end(None)
                return
            if self._draining_until is None:
                self._draining_until = now + _DRAIN
                self._inner.basic_cancel(self._tag)
            elif not self._window or now > self._draining_until:
                self._end(None)
                return
        elif self._tag is not None and now >= self._next_bind:
            self._next_bind = now + self._settings.rebind
            self._bind(list(_CONTROL_EXCHANGES))
        self._loop.call_later(_TICK, self._tick)

    def _bind(self, exchanges: list[str]) -> None:
        """Bind the intake to each control exchange that there is, never declaring one.

        A service declares its exchange at its first notification, and one that is not durable
        loses its bindings when the broker restarts; so this is done again and again.
        """
        if not exchanges or self._ended or not self._inner_connection.is_open:
            return
        exchange, *others = exchanges

        def bind(channel: Channel) -> None:
            # An exchange that does not exist closes the channel: then on with the others.
            channel.add_on_close_callback(lambda *_: self._bind(others))
            for topic in NOTIFICATION_TOPICS:
                channel.queue_bind(_INTAKE, exchange, f"{topic}.*")
            channel.close()

        self._inner_connection.channel(on_open_callback=bind)

    # Ending.

    def _end(self, reason: str | None) -> None:
        if not self._ended:
            self._ended = True
            self._reason = reason
            self._loop.stop()

    def _close_connections(self) -> None:
        """Close what is open: politely when all is acknowledged, else so that order is kept."""
        for connection in self._connections:
            if self._reason is not None or self._window:
                connection.drop()
            elif connection.is_open:
                connection.close()
        end = time.monotonic() + 2.0

        def wait() -> None:
            if time.monotonic() > end or all(one.is_closed for one in self._connections):
                self._loop.stop()
            else:
                self._loop.call_later(_TICK / 4, wait)

        self._loop.call_later(0, wait)
        self._loop.start()


def _cause(error: BaseException | str) -> BaseException:
    return error if isinstance(error, BaseException) else pika.exceptions.AMQPError(error)


def _shown(paths: tuple[str, ...]) -> list[str]:
    """Give the paths as a header that fits a frame, however many there are."""
    shown = [path[:_LONGEST_PATH] for path in paths[:_MOST_PATHS]]
    if len(paths) > _MOST_PATHS:
        shown.append(f"... and {len(paths) - _MOST_PATHS} more")
    return shown


_NAMES = (UNKNOWN, *(service.name for service in SERVICES))
_relayed_of = {name: RELAYED.labels(name) for name in _NAMES}
_scrubbed_of = {name: SCRUBBED.labels(name) for name in _NAMES}
