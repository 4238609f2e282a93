"""The home of a test cloud: its folder, ports, password and processes.

``cloud.py`` brings the cloud up and down in it; ``members.py`` writes each service's configuration
for it. Ports are chosen once, below the range of Linux's ephemeral ports, and stay the same after a
restart. A process that outlives its command has a file in ``run/`` with its id and start time, so
that only processes are ended that were started here.
"""

from __future__ import annotations

import json
import os
import secrets
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from stackbus.broker.node import LOOPBACK, free_port, is_free
from stackbus.demo.recipes import Folders, service_environment
from stackbus.errors import StackbusError
from stackbus.files import write_private

STOP_SECONDS = 20.0


def wait_until(condition: Callable[[], object], seconds: float, pause: float = 0.2) -> bool:
    """Poll until ``condition`` returns something true; return False after ``seconds``.

    The only place in the test cloud that sleeps.
    """
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(pause)  # noqa: TID251 -- the polling helper
    return True


class Failed(StackbusError):
    """A part of the test cloud failed."""


_PORTS = range(10_000, 20_000)
"""Below the ports that stackbus chooses for its bus: nobody listens on ours yet."""


@dataclass
class CloudHome:
    """The folder of one test cloud. Ports and password are stored in its ``cloud.json``."""

    folder: Path
    stopping: threading.Event = field(default_factory=threading.Event)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        self.folder = self.folder.resolve()
        self._file = self.folder / "cloud.json"
        stored = json.loads(self._file.read_text("utf-8")) if self._file.exists() else {}
        self._ports: dict[str, int] = stored.get("ports", {})
        self.password: str = stored.get("password") or secrets.token_hex(12)

    def port(self, name: str) -> int:
        """Return the port of ``name``: a free one the first time, then always the same."""
        with self._lock:
            if name not in self._ports:
                self._ports[name] = free_port(LOOPBACK, set(self._ports.values()), _PORTS)
                self.save()
            return self._ports[name]

    def check_ports(self) -> None:
        """Raise Failed if another process has taken a port while the cloud was down.

        The port cannot be changed: Keystone's catalogue and the databases have it.
        """
        if self.running():
            return
        for name, port in self._ports.items():
            if not is_free(LOOPBACK, port):
                raise Failed(
                    f"port {port}, this cloud's {name}, is in use: run make cloud-down, end the "
                    f"process that uses it, or start again with rm -rf {self.folder}"
                )

    def url(self, name: str, path: str = "") -> str:
        """Return the URL of an API."""
        return f"http://{LOOPBACK}:{self.port(name)}{path}"

    def save(self) -> None:
        """Store ports and password for the next start."""
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        values = {"ports": self._ports, "password": self.password}
        write_private(self._file, json.dumps(values, indent=2))

    def etc(self, name: str) -> Path:
        """Return the folder of a service's configuration."""
        return self.folder / "etc" / name

    def state(self, name: str) -> Path:
        """Return the folder of a service's data."""
        return self.folder / "state" / name

    def venv(self, name: str) -> Path:
        """Return the folder of a service's Python environment."""
        return self.folder / "venv" / name

    def folders(self, name: str) -> Folders:
        """Return the three folders of a service."""
        return Folders(etc=self.etc(name), state=self.state(name), venv=self.venv(name))

    def log(self, name: str) -> Path:
        """Return the file with the output of a process."""
        return self.folder / "log" / f"{name}.log"

    def last_lines(self, name: str, count: int = 15) -> str:
        """Return the last lines of a log."""
        try:
            return "\n".join(self.log(name).read_text("utf-8", "replace").splitlines()[-count:])
        except OSError:
            return "(no log)"

    def environment(self, name: str, extra: Mapping[str, str]) -> dict[str, str]:
        """Return the environment of a service's programs, with ``extra`` variables."""
        return {**service_environment(self.venv(name)), **extra}

    def run(
        self, name: str, command: Sequence[str], environment: Mapping[str, str] | None = None
    ) -> None:
        """Run a command with its output in a log of ``name``. Raises Failed."""
        log = self.log(f"{name}-setup")
        log.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with log.open("ab") as output:
            process = subprocess.Popen(
                command,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        while process.poll() is None:
            if self.stopping.wait(0.1):
                _end(process.pid, None)
                process.wait()
        if process.returncode:
            end = "\n".join(log.read_text("utf-8", "replace").splitlines()[-15:])
            raise Failed(f"{name}: {Path(command[0]).name} failed ({process.returncode}):\n{end}")

    def start(self, name: str, command: Sequence[str], environment: Mapping[str, str]) -> None:
        """Start a process that keeps running, unless it runs already."""
        if self.pid(name) is not None:
            return
        self.log(name).parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with self._lock, self.log(name).open("ab") as output:
            if self.stopping.is_set():
                raise Failed(f"{name}: not started: stopping")
            process = subprocess.Popen(
                command,
                env=dict(environment),
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
            identity = {"pid": process.pid, "started": _start_time(process.pid)}
            (self.folder / "run").mkdir(mode=0o700, exist_ok=True)
            write_private(self.folder / "run" / f"{name}.json", json.dumps(identity))

    def pid(self, name: str) -> int | None:
        """Return the process id of ``name``, None if that process has ended."""
        try:
            identity = json.loads((self.folder / "run" / f"{name}.json").read_text("utf-8"))
        except OSError:
            return None
        pid, started = int(identity["pid"]), identity["started"]
        return pid if started is not None and _start_time(pid) == started else None

    def running(self) -> list[str]:
        """Return the names of running processes, in the order in which they started."""
        files = (self.folder / "run").glob("*.json")
        names = [file.stem for file in sorted(files, key=lambda file: file.stat().st_mtime_ns)]
        return [name for name in names if self.pid(name) is not None]

    def stop(self, name: str) -> None:
        """End a process and every other process of its session."""
        pid = self.pid(name)
        if pid is not None:
            _end(pid, STOP_SECONDS)
        (self.folder / "run" / f"{name}.json").unlink(missing_ok=True)


def _end(session: int, stop_seconds: float | None) -> None:
    """End every process of a session: SIGTERM to its leader, then SIGKILL to all."""
    for sign, seconds in ((signal.SIGTERM, stop_seconds or 3.0), (signal.SIGKILL, 10.0)):
        for pid in _members(session) if sign == signal.SIGKILL else [session]:
            try:
                os.kill(pid, sign)
            except ProcessLookupError:
                continue
        if wait_until(lambda: not _members(session), seconds, 0.1):
            return


def _members(session: int) -> list[int]:
    members = []
    for path in Path("/proc").iterdir():
        if path.name.isdigit():
            fields = _read_stat(int(path.name))
            if fields is not None and int(fields[3]) == session and fields[0] != "Z":
                members.append(int(path.name))
    return members


def _start_time(pid: int) -> str | None:
    """Return the start of a process in ticks since boot, None if it has ended (proc(5))."""
    fields = _read_stat(pid)
    return fields[19] if fields is not None and fields[0] != "Z" else None


def _read_stat(pid: int) -> list[str] | None:
    try:
        text = Path(f"/proc/{pid}/stat").read_text("utf-8")
    except (FileNotFoundError, ProcessLookupError):
        return None
    return text.rpartition(")")[2].split()
