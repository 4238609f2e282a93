"""The recorder's loop: one channel -> batch -> history -> commit. Top to bottom.

Run by ``recording.py``. This thread takes what comes; others have it read and stored
(``storing.py``), a batch each, while the next one fills. What is not in the history is not
committed, so whatever dies, the channel brings it again; what was stored and not committed is
recognised by the history. Whatever is away is waited for.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import structlog

from stackbus import metrics
from stackbus.errors import HistoryError, HistoryUnreachable, InputError, StackbusError
from stackbus.record.channel import Channel, Delivery, Source
from stackbus.record.storing import Outcome, QuarantineFull, Storing, packed

_GLANCE = 0.02  # seconds that one look at the channel takes when nothing comes
_HEARTBEAT = 5.0  # seconds at most between two looks at the channel, when no more may be read
_FIRST_PAUSE = 0.2  # seconds
_EMPTY, _FRESH = 1.0, 10.0  # seconds: a channel where nothing comes, a notification that is new

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class RecordSettings:
    """What the loop needs of the settings: counts, bytes and seconds."""

    batch: int
    batch_bytes: int
    batch_seconds: float
    retry_max: float


@dataclass(slots=True)
class _Batch:
    """What has come and is on its way to no process yet."""

    deliveries: list[Delivery] = field(default_factory=list)
    bytes: int = 0

    def add(self, deliveries: list[Delivery]) -> None:
        """Take what has come."""
        self.deliveries += deliveries
        self.bytes += sum(len(one.body) for one in deliveries)

    def cut(self, count: int, size: int) -> tuple[_Batch, _Batch]:
        """Cut at most so many off its beginning, of so many bytes (one at least); give both parts.

        More than a batch may come at one look at the channel.
        """
        end = total = 0
        for one in self.deliveries:
            total += len(one.body)
            if end and (end >= count or total > size):
                total -= len(one.body)
                break
            end += 1
        rest = _Batch(self.deliveries[end:], self.bytes - total)
        return _Batch(self.deliveries[:end], total), rest


@dataclass(slots=True)
class Tally:
    """What a recorder has done so far, in notifications."""

    told: int = 0
    stored: int = 0
    known: int = 0
    quarantined: int = 0


class Recorder:
    """One recorder of one channel; ``run`` is the one verb, ``stop`` ends it from elsewhere."""

    def __init__(self, channel: Channel, storing: Storing, settings: RecordSettings) -> None:
        self._channel = channel
        self._storing = storing
        self._settings = settings
        self._stopping = threading.Event()
        self._batch = _Batch()
        self._since = 0.0
        self._inserts: deque[tuple[Any, Future[Outcome]]] = deque()
        """The mark of the last delivery of each batch that is being stored: it commits them all."""
        self._last = 0.0
        self._lag: float | None = None
        self._has_ended = False
        self.tally = Tally()

    @property
    def name(self) -> str:
        """Name the channel."""
        return self._channel.name

    @property
    def has_caught_up(self) -> bool:
        """Tell whether nothing more waits: what comes is fresh, nothing comes, or it has ended."""
        return self._has_ended or self._idle >= _EMPTY or (self._lag or _FRESH) < _FRESH

    @property
    def _idle(self) -> float:
        """Tell for how many seconds nothing has come and nothing has been under way."""
        return time.monotonic() - self._last if self._last else 0.0

    def stop(self) -> None:
        """End after what is being inserted has been committed."""
        self._stopping.set()

    def run(self, until_idle: float | None = None) -> None:
        """Record until ``stop``, or until nothing has come for ``until_idle`` seconds.

        Raises QuarantineFull, and HistoryError for what waiting does not mend.
        """
        with ThreadPoolExecutor(self._storing.processes, f"insert-{self.name}") as inserter:
            try:
                self._run(inserter, until_idle)
            finally:
                self._has_ended = True
                self._stopping.set()  # an insert that waits for the history gives up
                self._storing.close()

    def _run(self, inserter: ThreadPoolExecutor, until_idle: float | None) -> None:
        pause = _FIRST_PAUSE
        while not self._stopping.is_set():
            began = time.monotonic()
            try:
                with self._channel.opened() as source:
                    self._last = time.monotonic()
                    self._record(source, inserter, until_idle)
                    return
            except StackbusError as error:
                if not _may_pass(error):
                    raise
                log.warning(
                    "record.lost", channel=self.name, reason=str(error), again_in=round(pause, 1)
                )
            # What was not committed comes again.
            self._batch = _Batch()
            while self._inserts:
                with suppress(_Stopped):
                    self._count(self._inserts.popleft()[1].result())
            if time.monotonic() - began > self._settings.retry_max:
                pause = _FIRST_PAUSE
            self._stopping.wait(pause)
            pause = min(pause * 2, self._settings.retry_max)

    def _record(
        self, source: Source, inserter: ThreadPoolExecutor, until_idle: float | None
    ) -> None:
        looked = time.monotonic()
        while True:
            now = time.monotonic()
            if not self._is_full() or now - looked > _HEARTBEAT:
                self._take(source)
                looked = now
            else:
                with suppress(TimeoutError):
                    self._inserts[0][1].exception(timeout=_GLANCE)
            self._commit(source)
            stopping = self._stopping.is_set()
            has_room = len(self._inserts) < self._storing.processes
            if self._batch.deliveries and has_room and (stopping or self._is_due()):
                self._since = now
                self._hand_over(inserter)
            is_idle = until_idle is not None and self._idle >= until_idle
            if not self._inserts and not self._batch.deliveries and (stopping or is_idle):
                return
            if stopping and self._inserts:
                # What is away is not waited for any longer; what is under way is.
                with suppress(_Stopped):
                    self._inserts[0][1].result()
                    self._commit(source)
                    continue
                return

    def _take(self, source: Source) -> None:
        deliveries = source.receive(_GLANCE)
        if not deliveries:
            return
        if not self._batch.deliveries:
            self._since = time.monotonic()
        self._last = time.monotonic()
        self._batch.add(deliveries)
        self.tally.told += len(deliveries)

    def _hand_over(self, inserter: ThreadPoolExecutor) -> None:
        """Have a batch stored. From here on it is held once: packed."""
        batch, self._batch = self._batch.cut(self._settings.batch, self._settings.batch_bytes)
        count, mark = len(batch.deliveries), batch.deliveries[-1].mark
        insert = inserter.submit(self._store, packed(batch.deliveries), count)
        self._inserts.append((mark, insert))

    def _is_full(self) -> bool:
        return (
            len(self._batch.deliveries) >= self._settings.batch
            or self._batch.bytes >= self._settings.batch_bytes
        )

    def _is_due(self) -> bool:
        return self._is_full() or time.monotonic() - self._since >= self._settings.batch_seconds

    def _commit(self, source: Source) -> None:
        """Commit what has been stored since, in order; raise what stopped it."""
        while self._inserts and self._inserts[0][1].done():
            mark, insert = self._inserts.popleft()
            self._count(insert.result())
            source.commit(mark)
            self._last = time.monotonic()

    def _store(self, batch: bytes, count: int) -> Outcome:
        """Store one batch of so many, however long the history is away. Runs in the other thread.

        Raises _Stopped if the recorder is to end meanwhile.
        """
        pause = _FIRST_PAUSE
        while True:
            try:
                with metrics.INSERT_SECONDS.time():
                    outcome = self._storing.store(batch)
            except HistoryUnreachable as error:
                log.warning(
                    "record.history_away",
                    channel=self.name,
                    reason=str(error),
                    again_in=round(pause, 1),
                )
                if self._stopping.wait(pause):
                    raise _Stopped(str(error)) from error
                pause = min(pause * 2, self._settings.retry_max)
            else:
                metrics.BATCH.observe(count)
                return outcome

    def _count(self, outcome: Outcome) -> None:
        self.tally.stored += sum(outcome.new.values())
        self.tally.known += sum(outcome.known.values())
        self.tally.quarantined += outcome.quarantined
        metrics.RECORD_QUARANTINED.labels(self.name).inc(outcome.quarantined)
        for metric, counts in (
            (metrics.RECEIVED, outcome.told),
            (metrics.STORED, outcome.new),
            (metrics.DOUBLED, outcome.known),
        ):
            for service, count in counts.items():
                metric.labels(service, self.name).inc(count)
        for service, count in outcome.unknown.items():
            metrics.UNKNOWN.labels(service).inc(count)
        if outcome.newest is not None:
            self._lag = (datetime.now(UTC) - outcome.newest).total_seconds()
            metrics.RECORD_LAG.labels(self.name).set(self._lag)


def _may_pass(error: StackbusError) -> bool:
    """Tell whether waiting may mend it: the channel or the history is away."""
    if isinstance(error, HistoryError):
        return isinstance(error, HistoryUnreachable)
    return not isinstance(error, QuarantineFull | InputError)


class _Stopped(StackbusError):
    """The recorder is to end while the history is away: nothing was committed."""
