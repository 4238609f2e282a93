"""Several recorders in one process: one a channel, into one history.

Called by ``stackbus record``. What waits on the bus goes first: its copies tell more of the actor
than a log does, and the copy that comes first is the one that is kept. The other channels begin
when the bus is empty or what comes is fresh, or when it cannot be reached.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import dataclass

import structlog

from stackbus.errors import StackbusError
from stackbus.record.channels.bus import BUS
from stackbus.record.memory import spare_memory_and_collector
from stackbus.record.recorder import Recorder

_FIRST_LOOK = 10.0  # seconds that the bus may take to be reached before the others begin
_EACH = 0.2  # seconds between two looks at how it goes

log = structlog.get_logger()

Progress = Callable[[Sequence[Recorder]], None]


@dataclass(slots=True)
class Chore:
    """What is done beside recording: at once, and again each so many ``seconds``.

    A chore that cannot be done is told in the log and tried the next time.
    """

    name: str
    seconds: float
    work: Callable[[], object]
    due: float = 0.0

    def do_if_due(self) -> None:
        """Do it, if it is time."""
        if time.monotonic() >= self.due:
            self.due = time.monotonic() + self.seconds
            try:
                self.work()
            except StackbusError as error:
                log.warning("record.chore_failed", chore=self.name, reason=str(error))


def stop_on_signals(recorders: Sequence[Recorder]) -> None:
    """Take SIGTERM and SIGINT as the wish to stop."""

    def stop(*_: object) -> None:
        for recorder in recorders:
            recorder.stop()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)


def run(
    recorders: Sequence[Recorder],
    until_idle: float | None,
    progress: Progress,
    chores: Sequence[Chore],
) -> None:
    """Record over all channels until they end, and do the ``chores`` meanwhile.

    Raises what stopped the first of them that failed, when all have ended.
    """
    spare_memory_and_collector()
    buses = [one for one in recorders if one.name == BUS]
    with ThreadPoolExecutor(len(recorders), "record") as pool:

        def record(recorder: Recorder) -> None:
            if recorder.name != BUS and buses:
                _wait_for(buses)
            recorder.run(until_idle)

        runs = [pool.submit(record, recorder) for recorder in recorders]
        try:
            waiting = set(runs)
            while waiting:
                done, waiting = wait(waiting, _EACH, FIRST_EXCEPTION)
                progress(recorders)
                if any(one.exception() is not None for one in done):
                    break
                for chore in chores:
                    chore.do_if_due()
        finally:
            for recorder in recorders:
                recorder.stop()
    for one in runs:
        one.result()


def _wait_for(buses: Sequence[Recorder]) -> None:
    """Wait until the bus has caught up, has ended, or is not to be reached."""
    end = time.monotonic() + _FIRST_LOOK
    while not all(one.has_caught_up for one in buses):
        if time.monotonic() > end and not any(one.tally.told for one in buses):
            return
        time.sleep(_EACH)
