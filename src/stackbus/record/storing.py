"""Deliveries are read and stored in processes of their own, a batch each.

``Storing`` is what ``recorder.py`` calls; ``Storer`` does the work over there, with a history of
its own. So the recorder's process does nothing but speak to its channel, and on two cores half as
much again is recorded in the same time. A batch is whole in the history when ``store`` returns; if
the other process dies, nothing of it was promised, and a new one is started.
"""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import signal
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from datetime import datetime
from mmap import ACCESS_READ, mmap
from pathlib import Path

import msgspec

from stackbus.errors import HistoryUnreachable, StackbusError, Unreadable
from stackbus.events.scrub import Scrubber
from stackbus.history.history import History, Prepared, Quarantined
from stackbus.history.wire import in_memory
from stackbus.record.channel import Delivery
from stackbus.record.memory import spare_memory_and_collector
from stackbus.record.reading import prepared

_PR_SET_PDEATHSIG = 1  # prctl(2)

packed: Callable[[Sequence[Delivery]], bytes] = msgspec.msgpack.Encoder().encode
"""Make of deliveries what travels to the other process."""
_decode = msgspec.msgpack.Decoder(list[Delivery]).decode


class QuarantineFull(StackbusError):
    """More came that nobody can read than the settings allow to keep."""


class Outcome(msgspec.Struct, frozen=True):
    """What became of one batch, in notifications by service; ``newest``: its youngest event."""

    told: dict[str, int]
    unknown: dict[str, int]
    new: dict[str, int]
    known: dict[str, int]
    quarantined: int
    newest: datetime | None


class Storer:
    """Reads deliveries and stores them in ``history``."""

    def __init__(self, history: History, scrubber: Scrubber, quarantine_max_bytes: int) -> None:
        """Store in ``history``, and no more unreadable bytes than the last one says."""
        self._history = history
        self._scrubber = scrubber
        self._quarantine_max_bytes = quarantine_max_bytes

    def store(self, deliveries: Iterable[Delivery]) -> Outcome:
        """Store a batch. Raises QuarantineFull, and HistoryError."""
        ready: list[Prepared] = []
        unreadable: list[Quarantined] = []
        for delivery in deliveries:
            try:
                ready += prepared(delivery, self._scrubber)
            except Unreadable as error:
                unreadable.append(self._set_aside(delivery, str(error)))
        if unreadable:
            self._hold_quarantine(unreadable)
        stored = self._history.store(ready, unreadable)
        first = [one for one in ready if one.index == 0]
        return Outcome(
            Counter(one.service for one in first),
            Counter(one.service for one in first if not one.resource_type),
            stored.new_by_service,
            stored.known_by_service,
            len(unreadable),
            max((one.time for one in first), default=None),
        )

    def _set_aside(self, delivery: Delivery, reason: str) -> Quarantined:
        body = delivery.body
        if not delivery.scrubbed:
            body = self._scrubber.mask_secrets(body)
        return Quarantined(
            delivery.received, delivery.channel, delivery.origin, delivery.service, reason, body
        )

    def _hold_quarantine(self, unreadable: Sequence[Quarantined]) -> None:
        size = self._history.quarantined_bytes() + sum(len(one.body) for one in unreadable)
        if size > self._quarantine_max_bytes:
            raise QuarantineFull(
                f"the quarantine would hold {size:,} bytes, more than quarantine_max_bytes allows "
                f"({self._quarantine_max_bytes:,}): somebody sends what is no notification. "
                "`stackbus quarantine` shows it; what came last has been left where it was"
            )


class Storing:
    """The processes that store, as the recorder sees them."""

    def __init__(self, make: Callable[[], Storer], processes: int) -> None:
        """Have ``make`` called over there; it must be a function of a module, or a partial."""
        self.processes = processes
        self._make = make
        self._turn = threading.Lock()
        self._pool: ProcessPoolExecutor | None = None

    def store(self, batch: bytes) -> Outcome:
        """Store a batch over there, as ``packed`` gives it. Raises what ``Storer.store`` raises.

        It goes as a file in memory, which the other process finds among this one's open files.
        """
        with self._turn:
            pool = self._pool = self._pool or ProcessPoolExecutor(
                self.processes,
                multiprocessing.get_context("spawn"),
                _begin,
                (self._make, os.getpid()),
            )
        try:
            with in_memory([batch]) as file:
                return pool.submit(_store, f"/proc/{os.getpid()}/fd/{file}").result()
        except OSError as error:
            reason = f"a batch cannot be given to a process that stores: {error.strerror}"
            raise HistoryUnreachable(reason) from error
        except (BrokenProcessPool, RuntimeError) as error:  # this one, or it was shut down
            with self._turn:
                if self._pool is pool:
                    self._pool = None
            pool.shutdown()
            raise HistoryUnreachable("a process that stores has ended: see the log") from error

    def close(self) -> None:
        """End the other processes, after what they are doing."""
        if self._pool is not None:
            self._pool.shutdown()


_make: Callable[[], Storer] | None = None
_storer: Storer | None = None


def _begin(make: Callable[[], Storer], parent: int) -> None:
    """Begin the other process: it ends with its parent, and a Ctrl-C is the parent's."""
    global _make  # noqa: PLW0603 -- what a pool's process has is its module
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)  # the parent ended before it could be said
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    spare_memory_and_collector()
    _make = make


def _store(batch: str) -> Outcome:
    global _storer  # noqa: PLW0603 -- the same
    assert _make is not None
    if _storer is None:
        _storer = _make()
    with Path(batch).open("rb") as file, mmap(file.fileno(), 0, access=ACCESS_READ) as data:
        deliveries = _decode(data)
    return _storer.store(_taken(deliveries))


def _taken(deliveries: list[Delivery]) -> Iterator[Delivery]:
    """Give each of them in order, and keep none: its body goes when it has been read."""
    deliveries.reverse()
    while deliveries:
        yield deliveries.pop()
