"""Keep child processes running until a stop is requested.

``stackbus up`` runs the node's port mapper, the node, the relay and a recorder with it. A child
that ends is started again after a pause, which doubles with each failure. The children end with
this process, even if it is killed. They are stopped in reverse order, each by its process id.
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

_MIN_PAUSE, _MAX_PAUSE = 0.5, 15.0  # seconds
_STABLE_AFTER = 2 * _MAX_PAUSE  # seconds after which a child's earlier failures do not count

log = structlog.get_logger()


@dataclass(slots=True)
class Child:
    """One process to keep running. Its command line holds no secret, its environment may."""

    name: str
    command: list[str]
    environment: Mapping[str, str] = field(repr=False)
    output: Path
    folder: Path
    stop_seconds: float = 60.0
    process: subprocess.Popen[bytes] | None = field(default=None, repr=False)
    started_at: float = 0.0
    pause: float = _MIN_PAUSE
    restart_at: float | None = None

    def start(self) -> None:
        """Start the process, with its output appended to its log."""
        self.output.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with self.output.open("ab") as output:
            self.process = subprocess.Popen(  # noqa: S603 -- our own command
                self.command,
                env=dict(self.environment),
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C stops this process, which stops them in order
                preexec_fn=partial(  # noqa: PLW1509 -- this process has one thread
                    end_with_parent, os.getpid(), signal.SIGTERM
                ),
            )
        self.started_at = time.monotonic()
        self.restart_at = None
        log.info("child.started", child=self.name, pid=self.process.pid)

    def has_ended(self) -> bool:
        """Return whether the process was started and has ended."""
        return self.process is not None and self.process.poll() is not None

    def stop(self) -> None:
        """End the process: SIGTERM, and SIGKILL after ``stop_seconds``."""
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
        """Return the last lines of the process's output, for the text of an error."""
        try:
            with self.output.open("rb") as file:
                file.seek(max(0, self.output.stat().st_size - 8192))
                lines = file.read().decode("utf-8", "replace").splitlines()
        except OSError:
            return ""
        return "\n".join(lines[-count:])


class Supervisor:
    """The children, in the order in which they were started."""

    def __init__(self) -> None:
        self._children: list[Child] = []
        self.stopping = False

    def catch_signals(self) -> None:
        """Stop at SIGTERM, SIGINT and SIGHUP."""
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, lambda *_: setattr(self, "stopping", True))

    def add(self, child: Child) -> None:
        """Start a child and keep it running from now on."""
        self._children.append(child)
        child.start()

    def watch(self) -> None:
        """Restart each child that has ended and whose pause is over; called repeatedly."""
        now = time.monotonic()
        for child in self._children:
            if not child.has_ended():
                continue
            if child.restart_at is None:
                _schedule_restart(child, now)
            elif child.restart_at <= now:
                child.start()

    def run(self, each_second: Callable[[], None]) -> None:
        """Watch until a stop is requested, and call ``each_second`` about once a second."""
        next_call = time.monotonic()
        while not self.stopping:
            self.watch()
            if time.monotonic() >= next_call:
                next_call = time.monotonic() + 1.0
                each_second()
            time.sleep(0.1)

    def stop(self) -> None:
        """Stop the children, the last started first."""
        for child in reversed(self._children):
            child.stop()


def _schedule_restart(child: Child, now: float) -> None:
    """Set the time of the next start; the pause doubles unless the child ran for a while."""
    is_stable = now - child.started_at > _STABLE_AFTER
    child.pause = _MIN_PAUSE if is_stable else min(_MAX_PAUSE, child.pause * 2)
    child.restart_at = now + child.pause
    assert child.process is not None
    log.warning(
        "child.ended",
        child=child.name,
        code=child.process.returncode,
        again_in_seconds=child.pause,
    )
