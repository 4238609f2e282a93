"""Keep a few child processes running until told to stop.

Called by ``wiring.py`` for ``stackbus up``: the node's port mapper, the node, the relay. A child
that ends is started again, after a pause that grows; the children end with this process, even if
it is killed. Stopping goes in the opposite order, each child by its own process id.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import structlog

from stackbus.processes import end_with_parent

_LONGEST_PAUSE = 15.0  # seconds

log = structlog.get_logger()


@dataclass(slots=True)
class Child:
    """One process to keep: its command line holds no secret, its environment may."""

    name: str
    command: list[str]
    environment: Mapping[str, str] = field(repr=False)
    output: Path
    folder: Path
    stop_seconds: float = 60.0
    process: subprocess.Popen[bytes] | None = field(default=None, repr=False)
    failures: int = 0
    started: float = 0.0
    next_start: float = 0.0

    def start(self) -> None:
        """Start the process; what it prints goes to the end of its log."""
        self.output.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with self.output.open("ab") as output:
            self.process = subprocess.Popen(  # noqa: S603 -- our own command
                self.command,
                env=dict(self.environment),
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C is for us; we end the children in order
                preexec_fn=partial(  # noqa: PLW1509 -- we have one thread
                    end_with_parent, os.getpid(), signal.SIGTERM
                ),
            )
        self.started = time.monotonic()
        log.info("child.started", child=self.name, pid=self.process.pid)

    def stop(self) -> None:
        """Ask the process to end, and end it if it does not."""
        if self.process is None or self.process.poll() is not None:
            return
        self.process.terminate()
        try:
            self.process.wait(self.stop_seconds)
        except subprocess.TimeoutExpired:
            log.warning("child.killed", child=self.name, after_seconds=self.stop_seconds)
            self.process.kill()
            self.process.wait()
        log.info("child.stopped", child=self.name)

    def last_lines(self, count: int = 12) -> str:
        """Give the end of what the process printed, for an error's text."""
        try:
            with self.output.open("rb") as file:
                file.seek(max(0, self.output.stat().st_size - 8192))
                lines = file.read().decode("utf-8", "replace").splitlines()
        except OSError:
            return ""
        return "\n".join(lines[-count:])


class Supervisor:
    """The children, in the order in which they start."""

    def __init__(self) -> None:
        """Begin with no child; ``stop`` is asked for by SIGTERM, SIGINT and SIGHUP."""
        self._children: list[Child] = []
        self.stopping = False

    def catch_signals(self) -> None:
        """Take SIGTERM, SIGINT and SIGHUP as the wish to stop."""
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, lambda *_: setattr(self, "stopping", True))

    def add(self, child: Child) -> None:
        """Start a child and keep it running from now on."""
        self._children.append(child)
        child.start()

    def watch(self) -> None:
        """Start again what has ended; called over and over."""
        now = time.monotonic()
        for child in self._children:
            if child.process is None or child.process.poll() is None:
                continue
            if child.next_start <= child.started:
                # It has just ended. One that ran for a while starts at once.
                ran = now - child.started
                child.failures = 0 if ran > 2 * _LONGEST_PAUSE else child.failures + 1
                pause = min(_LONGEST_PAUSE, 0.5 * 2 ** min(child.failures, 8))
                child.next_start = now + pause
                log.warning(
                    "child.ended",
                    child=child.name,
                    code=child.process.returncode,
                    again_in_seconds=pause,
                )
            elif child.next_start <= now:
                child.start()

    def run(self, each_second: Callable[[], None]) -> None:
        """Watch until a stop is asked for; ``each_second`` is called about once a second."""
        next_call = time.monotonic()
        while not self.stopping:
            self.watch()
            if time.monotonic() >= next_call:
                next_call = time.monotonic() + 1.0
                each_second()
            time.sleep(0.1)

    def stop(self) -> None:
        """End the children, the last started first."""
        for child in reversed(self._children):
            child.stop()
