"""The history as a sink: each delivery is read into events, and a batch is stored at once.

A batch goes through this file from top to bottom. ``flow/loop.py`` calls ``HistorySink.write``,
which sends the batch to a process of its own (``_Worker``); there ``_serve`` receives it, and
``HistoryWriter.write`` reads every delivery (``prepare``) and stores the batch in the history. So
the loop's process does nothing but serve its source, and reading uses the other cores.

If the worker's process dies, nothing of its batch is promised: the loop writes the batch again, in
a new process.
"""

from __future__ import annotations

import gc
import multiprocessing
import os
import queue
import signal
import traceback
from collections import Counter
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess

import msgspec
from msgspec import structs

from stackbus import metrics
from stackbus.errors import HistoryUnreachable, StackbusError, Unreadable
from stackbus.events.envelope import decode
from stackbus.events.normalise import normalise
from stackbus.events.scrub import Scrubber
from stackbus.flow.stream import Delivery, Outcome
from stackbus.history.batches import EventRow
from stackbus.history.history import History
from stackbus.history.quarantine import QuarantinedBody
from stackbus.processes import end_with_parent

Extract = Callable[[bytes], bytes]
"""Returns the notification in a delivery's body: a source's ``extract``. Raises Unreadable."""

_spawn = multiprocessing.get_context("spawn")
_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(list[Delivery]).decode


class QuarantineFull(StackbusError):
    """The quarantine would grow beyond the limit in the settings."""


class HistorySink:
    """Writes batches to the history, each in one of several processes."""

    def __init__(self, make_writer: Callable[[], HistoryWriter], processes: int) -> None:
        """Prepare ``processes`` workers; ``make_writer``, a picklable function, runs in each."""
        self.concurrency = processes
        self._idle: queue.LifoQueue[_Worker] = queue.LifoQueue()
        for _ in range(processes):
            self._idle.put(_Worker(make_writer))

    def write(self, batch: Sequence[Delivery]) -> Outcome:
        """Store a batch. Raises QuarantineFull, and HistoryError; HistoryUnreachable is transient.

        May be called by as many threads at a time as there are processes.
        """
        worker = self._idle.get()
        try:
            with metrics.INSERT_SECONDS.time():
                result = worker.write(_encode(batch))
        finally:
            self._idle.put(worker)
        return _count(result, batch[0].channel, len(batch))

    def close(self) -> None:
        """Stop the processes, each when its write is finished."""
        workers = [self._idle.get() for _ in range(self.concurrency)]
        for worker in workers:
            worker.stop()
            self._idle.put(worker)


class WriteResult(msgspec.Struct, frozen=True):
    """The result of storing one batch: notifications by service, and bodies in quarantine.

    ``untyped`` are of a type that no service's file describes. ``newest`` is the latest event time.
    """

    new: dict[str, int]
    duplicates: dict[str, int]
    untyped: dict[str, int]
    quarantined: int
    newest: datetime | None


def _count(result: WriteResult, channel: str, size: int) -> Outcome:
    """Add the result of a batch of ``size`` deliveries to the metrics; return its sums."""
    metrics.BATCH.observe(size)
    metrics.RECORD_QUARANTINED.labels(channel).inc(result.quarantined)
    for service, count in result.new.items():
        metrics.STORED.labels(service, channel).inc(count)
    for service, count in result.duplicates.items():
        metrics.DOUBLED.labels(service, channel).inc(count)
    for service, count in result.untyped.items():
        metrics.UNKNOWN.labels(service).inc(count)
    if result.newest is not None:
        lag = (datetime.now(UTC) - result.newest).total_seconds()
        metrics.RECORD_LAG.labels(channel).set(lag)
    return Outcome(
        written=sum(result.new.values()),
        duplicates=sum(result.duplicates.values()),
        rejected=result.quarantined,
        newest=result.newest,
    )


class _Worker:
    """A process that writes one batch at a time, and this process' end of the pipe to it."""

    def __init__(self, make_writer: Callable[[], HistoryWriter]) -> None:
        self._make_writer = make_writer
        self._process: BaseProcess | None = None
        self._pipe: Connection | None = None

    def write(self, batch: bytes) -> WriteResult:
        """Have the process store a batch; start the process first if there is none.

        Raises the error that stopped it there, and HistoryUnreachable if the process dies.
        """
        pipe = self._pipe or self._start()
        try:
            pipe.send_bytes(batch)
            answer = pipe.recv()
        except (EOFError, OSError) as error:
            self.stop()
            raise HistoryUnreachable(
                "the process that stores batches has ended: the log above may say why"
            ) from error
        if isinstance(answer, BaseException):
            raise answer
        assert isinstance(answer, WriteResult)
        return answer

    def stop(self) -> None:
        """Close the pipe, which ends the process, and wait for its end."""
        if self._process is not None and self._pipe is not None:
            self._pipe.close()
            self._process.join()
            self._process = self._pipe = None

    def _start(self) -> Connection:
        ours, theirs = _spawn.Pipe()
        with theirs:
            self._process = _spawn.Process(
                target=_serve, args=(self._make_writer, theirs, os.getpid()), daemon=True
            )
            self._process.start()
        self._pipe = ours
        return ours


def _serve(make_writer: Callable[[], HistoryWriter], pipe: Connection, parent: int) -> None:
    """Store the batches that come through the pipe until it is closed. Runs in the worker."""
    end_with_parent(parent, signal.SIGKILL)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)  # the parent decides when the worker ends
    gc.set_threshold(100_000)
    writer: HistoryWriter | None = None
    while True:
        try:
            batch = _decode(pipe.recv_bytes())
        except EOFError:
            return
        try:
            writer = writer or make_writer()
            pipe.send(writer.write(batch))
        except StackbusError as error:
            pipe.send(error)
        except Exception as error:  # noqa: BLE001 -- it is raised in the parent
            error.add_note(f"In the process that stores batches:\n{traceback.format_exc()}")
            pipe.send(error)


class HistoryWriter:
    """Reads the deliveries of one source and stores their events in ``history``."""

    def __init__(
        self,
        history: History,
        extract: Extract,
        scrubber: Scrubber,
        region: str,
        quarantine_max_bytes: int,
    ) -> None:
        """Read with the source's ``extract``; limit the quarantine to ``quarantine_max_bytes``.

        ``region`` is the region of the cloud whose notifications the recorder receives.
        """
        self._history = history
        self._extract = extract
        self._scrubber = scrubber
        self._region = region
        self._quarantine_max_bytes = quarantine_max_bytes

    def write(self, batch: Sequence[Delivery]) -> WriteResult:
        """Store the events of a batch, and its unreadable bodies in quarantine.

        Raises QuarantineFull, and HistoryError.
        """
        rows: list[EventRow] = []
        unreadable: list[QuarantinedBody] = []
        for delivery in batch:
            try:
                rows += prepare(delivery, self._extract, self._scrubber, self._region)
            except Unreadable as error:
                unreadable.append(self._quarantine(delivery, str(error)))
        if unreadable:
            self._check_quarantine_size(unreadable)
            self._history.quarantine.add(unreadable)
        stored = self._history.events.store(rows)
        first = [row for row in rows if row.index == 0]  # one for each notification
        return WriteResult(
            new=stored.new_by_service,
            duplicates=stored.duplicates_by_service,
            untyped=Counter(row.service for row in first if not row.resource_type),
            quarantined=len(unreadable),
            newest=max((row.time for row in first), default=None),
        )

    def _quarantine(self, delivery: Delivery, reason: str) -> QuarantinedBody:
        body = delivery.body
        if not delivery.scrubbed:
            body = self._scrubber.mask_secrets(body)
        return QuarantinedBody(
            delivery.received, delivery.channel, delivery.origin, delivery.service, reason, body
        )

    def _check_quarantine_size(self, unreadable: Sequence[QuarantinedBody]) -> None:
        size = self._history.quarantine.size() + sum(len(item.body) for item in unreadable)
        if size > self._quarantine_max_bytes:
            raise QuarantineFull(
                f"the quarantine would hold {size:,} bytes, more than quarantine_max_bytes allows "
                f"({self._quarantine_max_bytes:,}): something sends bodies that are not "
                "notifications. `stackbus quarantine` lists them; the last batch stays in its "
                "source"
            )


def prepare(
    delivery: Delivery, extract: Extract, scrubber: Scrubber, region: str
) -> list[EventRow]:
    """Return the events of a delivery, ready to store; secrets are removed if none were before.

    Raises Unreadable, whatever the body holds, with a reason that quotes nothing of it.
    """
    try:
        body = extract(delivery.body)
        if not delivery.scrubbed:
            # Some names are secret in one event type only, so the type is read first.
            body = scrubber.scrub(body, decode(body).event_type).body
        events = normalise(body, delivery.channel, delivery.received, delivery.service)
        return [EventRow.from_event(structs.replace(event, region=region)) for event in events]
    except Unreadable:
        raise
    except Exception as error:  # an error in one body must not stop the others
        raise Unreadable(f"stackbus cannot read this: {type(error).__name__}") from error
