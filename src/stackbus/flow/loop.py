"""The loop of one stream: receive, collect a batch, write it, commit its position, reconnect.

``runner.py`` runs one ``Loop`` for each source. The thread that calls ``Loop.run`` receives
deliveries and commits positions; other threads write the batches to the sink, while the next batch
is collected. A position is committed when its batch and every batch before it are written, so the
source delivers again whatever a crash interrupts. While the source or the sink is unavailable the
loop waits and tries again; an error that waiting cannot mend ends it.
"""

from __future__ import annotations

import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import prometheus_client
import structlog
from tenacity import RetryCallState, Retrying, retry_if_exception, wait_exponential

from stackbus.errors import StackbusError
from stackbus.flow.stream import Delivery, Outcome, Sink, Source, Subscription

_RECEIVE_SECONDS = 0.02  # the longest wait for a delivery
_KEEPALIVE_SECONDS = 5.0  # a connection that is not served for longer may miss its heartbeat
_FIRST_PAUSE = 0.2  # seconds before the second attempt
_QUIET_SECONDS = 1.0  # a source without deliveries for this long has no backlog
_FRESH_SECONDS = 10.0  # a source whose newest event is younger than this has no backlog

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class LoopSettings:
    """The limits of a loop: of one batch, and the longest pause between two attempts."""

    batch: int  # deliveries
    batch_bytes: int
    batch_seconds: float
    retry_max: float  # seconds


@dataclass(slots=True)
class Tally:
    """The deliveries of a loop so far, by outcome."""

    received: int = 0
    written: int = 0
    duplicates: int = 0
    rejected: int = 0


class Loop:
    """The stream from one source to one sink."""

    def __init__(
        self,
        source: Source,
        sink: Sink,
        settings: LoopSettings,
        received: prometheus_client.Counter,
    ) -> None:
        """Prepare a loop; ``received`` counts deliveries by service and channel."""
        self._source = source
        self._sink = sink
        self._settings = settings
        self._received = received
        self._stopping = threading.Event()
        self._buffer = _Buffer(settings)
        self._writes: deque[_Write] = deque()
        self._last_activity: float | None = None
        self._lag: float | None = None
        self._has_ended = False
        self.tally = Tally()

    @property
    def name(self) -> str:
        """Return the name of the source."""
        return self._source.name

    @property
    def has_caught_up(self) -> bool:
        """Return whether the source has no backlog, or the loop has ended."""
        is_fresh = self._lag is not None and self._lag < _FRESH_SECONDS
        return self._has_ended or self._idle_seconds >= _QUIET_SECONDS or is_fresh

    @property
    def _idle_seconds(self) -> float:
        """Return for how long nothing was received or committed."""
        return 0.0 if self._last_activity is None else time.monotonic() - self._last_activity

    def stop(self) -> None:
        """End the loop after the deliveries received so far are written and committed."""
        self._stopping.set()

    def run(self, until_idle: float | None = None) -> None:
        """Run until ``stop``, or until nothing has arrived for ``until_idle`` seconds.

        Raises the first error that is not transient.
        """
        with ThreadPoolExecutor(self._sink.concurrency, f"write-{self.name}") as writers:
            try:
                with suppress(_Stopped):
                    self._run(writers, until_idle)
            finally:
                self._has_ended = True
                self._stopping.set()  # ends a write that waits for the sink
                self._sink.close()

    def _run(self, writers: ThreadPoolExecutor, until_idle: float | None) -> None:
        for attempt in self._retrying(self._log_source_lost):
            with attempt:
                self._discard()
                began = time.monotonic()
                try:
                    with self._source.subscribe() as subscription:
                        self._last_activity = time.monotonic()
                        self._stream(subscription, writers, until_idle)
                except StackbusError:
                    if time.monotonic() - began > self._settings.retry_max:
                        attempt.retry_state.attempt_number = 1  # it worked: pause briefly again
                    raise

    def _stream(
        self, subscription: Subscription, writers: ThreadPoolExecutor, until_idle: float | None
    ) -> None:
        last_receive = time.monotonic()
        while not self._stopping.is_set():
            if not self._buffer.is_full or time.monotonic() - last_receive > _KEEPALIVE_SECONDS:
                self._receive(subscription)
                last_receive = time.monotonic()
            else:
                wait([self._writes[0].result], _RECEIVE_SECONDS)
            self._commit(subscription)
            if self._buffer.is_due and self._has_room:
                self._hand_over(writers)
            is_pending = self._buffer.deliveries or self._writes
            if until_idle is not None and self._idle_seconds >= until_idle and not is_pending:
                return
        while self._buffer.deliveries or self._writes:
            if self._buffer.deliveries and self._has_room:
                self._hand_over(writers)
            else:
                wait([self._writes[0].result])
                self._commit(subscription)

    @property
    def _has_room(self) -> bool:
        return len(self._writes) < self._sink.concurrency

    def _receive(self, subscription: Subscription) -> None:
        deliveries = subscription.receive(_RECEIVE_SECONDS)
        if not deliveries:
            return
        self._last_activity = time.monotonic()
        self._buffer.add(deliveries)
        self.tally.received += len(deliveries)
        counts = Counter((delivery.service, delivery.channel) for delivery in deliveries)
        for (service, channel), count in counts.items():
            self._received.labels(service, channel).inc(count)

    def _hand_over(self, writers: ThreadPoolExecutor) -> None:
        batch = self._buffer.take_batch()
        self._writes.append(_Write(batch[-1].position, writers.submit(self._write, batch)))

    def _write(self, batch: Sequence[Delivery]) -> Outcome:
        """Write a batch, however long the sink is unavailable. Runs in a writer's thread."""
        return self._retrying(self._log_sink_unavailable)(self._sink.write, batch)

    def _commit(self, subscription: Subscription) -> None:
        """Commit the batches that are written, in order. Raises the error of a failed write."""
        while self._writes and self._writes[0].result.done():
            write = self._writes.popleft()
            self._count(write.result.result())
            subscription.commit(write.position)
            self._last_activity = time.monotonic()

    def _discard(self) -> None:
        """Forget the deliveries of a lost subscription: uncommitted ones come again."""
        self._buffer.clear()
        while self._writes:
            self._count(self._writes.popleft().result.result())

    def _count(self, outcome: Outcome) -> None:
        self.tally.written += outcome.written
        self.tally.duplicates += outcome.duplicates
        self.tally.rejected += outcome.rejected
        if outcome.newest is not None:
            self._lag = (datetime.now(UTC) - outcome.newest).total_seconds()

    def _retrying(self, before_pause: Callable[[RetryCallState], None]) -> Retrying:
        """Return a retry of transient errors that ends with _Stopped when the loop stops."""
        return Retrying(
            retry=retry_if_exception(_is_transient),
            wait=wait_exponential(multiplier=_FIRST_PAUSE, max=self._settings.retry_max),
            before_sleep=before_pause,
            sleep=self._pause,
        )

    def _pause(self, seconds: float) -> None:
        if self._stopping.wait(seconds):
            raise _Stopped

    def _log_source_lost(self, state: RetryCallState) -> None:
        log.warning("stream.source_lost", source=self.name, **_retry_fields(state))

    def _log_sink_unavailable(self, state: RetryCallState) -> None:
        log.warning("stream.sink_unavailable", source=self.name, **_retry_fields(state))


class _Buffer:
    """Deliveries received and not yet handed over to the sink."""

    def __init__(self, settings: LoopSettings) -> None:
        self._settings = settings
        self._bytes = 0
        self._since = 0.0  # when the collection of the next batch began
        self.deliveries: list[Delivery] = []

    @property
    def is_full(self) -> bool:
        """Return whether the deliveries fill a batch."""
        return (
            len(self.deliveries) >= self._settings.batch
            or self._bytes >= self._settings.batch_bytes
        )

    @property
    def is_due(self) -> bool:
        """Return whether a batch is full, or its first delivery has waited long enough."""
        is_old = time.monotonic() - self._since >= self._settings.batch_seconds
        return bool(self.deliveries) and (self.is_full or is_old)

    def add(self, deliveries: list[Delivery]) -> None:
        if not self.deliveries:
            self._since = time.monotonic()
        self.deliveries += deliveries
        self._bytes += _size(deliveries)

    def take_batch(self) -> list[Delivery]:
        """Remove and return the first deliveries: at least one, at most a batch."""
        count = size = 0
        for delivery in self.deliveries[: self._settings.batch]:
            size += len(delivery.body)
            if count and size > self._settings.batch_bytes:
                break
            count += 1
        batch, self.deliveries = self.deliveries[:count], self.deliveries[count:]
        self._bytes -= _size(batch)
        self._since = time.monotonic()
        return batch

    def clear(self) -> None:
        self.deliveries = []
        self._bytes = 0


@dataclass(frozen=True, slots=True)
class _Write:
    """A batch that is being written, and the position of its last delivery."""

    position: Any
    result: Future[Outcome]


class _Stopped(Exception):
    """The loop was stopped while it waited for its source or its sink."""


def _size(deliveries: Sequence[Delivery]) -> int:
    return sum(len(delivery.body) for delivery in deliveries)


def _is_transient(error: BaseException) -> bool:
    return isinstance(error, StackbusError) and error.is_transient


def _retry_fields(state: RetryCallState) -> dict[str, object]:
    error = state.outcome.exception() if state.outcome else None
    return {"reason": str(error), "retry_in": round(state.upcoming_sleep, 1)}
