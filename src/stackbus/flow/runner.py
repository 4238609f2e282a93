"""The streams of one command: their loops in threads, its chores, signals and progress.

``run`` ends when every loop has ended. An error in one loop stops the others.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import dataclass

import structlog

from stackbus.errors import StackbusError
from stackbus.flow.loop import Loop

_CONNECT_SECONDS = 10.0  # the longest wait for the first delivery of the leading source
_TICK = 0.2  # seconds between two reports of progress

log = structlog.get_logger()

Progress = Callable[[Sequence[Loop]], None]


@dataclass(slots=True)
class Chore:
    """Work beside the loops: done at the start, and then every ``seconds``.

    A chore that fails is logged, and done again when it is next due.
    """

    name: str
    seconds: float
    work: Callable[[], object]
    due: float = 0.0

    def do_if_due(self) -> None:
        """Do the work if it is due."""
        if time.monotonic() >= self.due:
            self.due = time.monotonic() + self.seconds
            try:
                self.work()
            except StackbusError as error:
                log.warning("stream.chore_failed", chore=self.name, reason=str(error))


def stop_on_signals(loops: Sequence[Loop]) -> None:
    """Stop the loops on SIGTERM and SIGINT."""

    def stop(*_: object) -> None:
        for loop in loops:
            loop.stop()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)


def run(
    loops: Sequence[Loop],
    *,
    leader: str,
    until_idle: float | None,
    progress: Progress,
    chores: Sequence[Chore],
) -> None:
    """Run the loops until they end, and do the ``chores`` meanwhile.

    The loop of the source named ``leader`` starts first. The others start when it has caught up or
    ended, or when its source cannot be reached: so the leader's copy of a notification is written
    first, and the others' are duplicates. Raises the first error when all loops have ended.
    """
    leaders = [loop for loop in loops if loop.name == leader]
    with ThreadPoolExecutor(len(loops), "stream") as pool:

        def run_loop(loop: Loop) -> None:
            if loop not in leaders:
                _wait_for(leaders)
            loop.run(until_idle)

        runs = [pool.submit(run_loop, loop) for loop in loops]
        try:
            pending = set(runs)
            while pending:
                done, pending = wait(pending, _TICK, FIRST_EXCEPTION)
                progress(loops)
                if any(future.exception() is not None for future in done):
                    break
                for chore in chores:
                    chore.do_if_due()
        finally:
            for loop in loops:
                loop.stop()
    for future in runs:
        future.result()


def _wait_for(leaders: Sequence[Loop]) -> None:
    end = time.monotonic() + _CONNECT_SECONDS
    while not all(loop.has_caught_up for loop in leaders):
        if time.monotonic() > end and not any(loop.tally.received for loop in leaders):
            return
        time.sleep(_TICK)
