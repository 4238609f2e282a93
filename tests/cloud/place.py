"""Where a test cloud lives: its folder, its ports, its password, its processes.

Used by ``cloud.py``, which brings it up and down, and by ``members.py``, which writes each
service's configuration. Ports are drawn once, free and below the range of clients' ports, and
stay the same over restarts. Every process that outlives its command has a file in ``run/`` with its
process id and start time: what is ended is what was started, never what bears its name.
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
from stackbus.errors import StackbusError
from stackbus.files import write_private

STOP_SECONDS = 20.0


def wait_until(condition: Callable[[], object], seconds: float, pause: float = 0.2) -> bool:
    """Poll until ``condition`` returns something true; return False after ``seconds``.

    The only place in the test cloud that sleeps.
    """
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(pause)  # noqa: TID251 -- the polling helper
    return True


class Failed(StackbusError):
    """A part of the test cloud that did not do what it should."""


_PORTS = range(10_000, 20_000)
"""Below those that stackbus draws for its bus, while ours are drawn and nobody listens yet."""


@dataclass
class Place:
    """The folder of one test cloud, and what is remembered in it."""

    folder: Path
    stopping: threading.Event = field(default_factory=threading.Event)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        self.folder = self.folder.resolve()
        self._file = self.folder / "cloud.json"
        known = json.loads(self._file.read_text("utf-8")) if self._file.exists() else {}
        self._ports: dict[str, int] = known.get("ports", {})
        self.password: str = known.get("password") or secrets.token_hex(12)

    def port(self, name: str) -> int:
        """Give the port of ``name``: always the same, drawn free the first time."""
        with self._lock:
            if name not in self._ports:
                self._ports[name] = free_port(LOOPBACK, set(self._ports.values()), _PORTS)
                self.remember()
            return self._ports[name]

    def check_ports(self) -> None:
        """Raise Failed if somebody else has taken a port while the cloud was down.

        A port cannot just be changed then: it stands in Keystone's catalogue and in databases.
        """
        if self.running():
            return
        for name, port in self._ports.items():
            if not is_free(LOOPBACK, port):
                raise Failed(
                    f"port {port}, this cloud's {name}, is in use: by what is left of it "
                    f"(make cloud-down), or by another process; else begin anew: rm -rf {self.folder}"
                )

    def url(self, name: str, path: str = "") -> str:
        """Give the address of an API."""
        return f"http://{LOOPBACK}:{self.port(name)}{path}"

    def remember(self) -> None:
        """Keep ports and password for the next start."""
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        known = {"ports": self._ports, "password": self.password}
        write_private(self._file, json.dumps(known, indent=2))

    def etc(self, name: str) -> Path:
        """Give the folder of a service's configuration."""
        return self.folder / "etc" / name

    def state(self, name: str) -> Path:
        """Give the folder of what a service keeps."""
        return self.folder / "state" / name

    def venv(self, name: str) -> Path:
        """Give a service's own environment."""
        return self.folder / "venv" / name

    def log(self, name: str) -> Path:
        """Give the file with what a process prints."""
        return self.folder / "log" / f"{name}.log"

    def last_lines(self, name: str, count: int = 15) -> str:
        """Give the end of a log."""
        try:
            return "\n".join(self.log(name).read_text("utf-8", "replace").splitlines()[-count:])
        except OSError:
            return "(no log)"

    def environment(self, name: str, more: Mapping[str, str]) -> dict[str, str]:
        """Give the environment of a service's programs: its own venv first, none of ours."""
        kept = {
            key: value
            for key, value in os.environ.items()
            if key not in ("VIRTUAL_ENV", "PYTHONPATH", "PYTHONDONTWRITEBYTECODE")
            and not key.startswith(("OS_", "STACKBUS_"))
        }
        path = f"{self.venv(name) / 'bin'}:{kept.get('PATH', '')}"
        fixed = {"PATH": path, "PYTHONUNBUFFERED": "1", "PYTHONWARNINGS": "ignore"}
        return {**kept, **fixed, **more}

    def run(
        self, name: str, command: Sequence[str], environment: Mapping[str, str] | None = None
    ) -> None:
        """Run a command to its end, its output into the log of ``name``. Raises Failed."""
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
        """Start a process that stays; nothing if it runs already."""
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
            told = {"pid": process.pid, "started": _started(process.pid)}
            (self.folder / "run").mkdir(mode=0o700, exist_ok=True)
            write_private(self.folder / "run" / f"{name}.json", json.dumps(told))

    def pid(self, name: str) -> int | None:
        """Give the process id of ``name``, or None if that process is no more."""
        try:
            known = json.loads((self.folder / "run" / f"{name}.json").read_text("utf-8"))
        except OSError:
            return None
        pid, started = int(known["pid"]), known["started"]
        return pid if started is not None and _started(pid) == started else None

    def running(self) -> list[str]:
        """Name the processes that were started and not yet ended, in the order they started."""
        files = sorted((self.folder / "run").glob("*.json"), key=lambda one: one.stat().st_mtime_ns)
        return [one.stem for one in files if self.pid(one.stem) is not None]

    def stop(self, name: str) -> None:
        """End a process, and what it left in its session."""
        pid = self.pid(name)
        if pid is not None:
            _end(pid, STOP_SECONDS)
        (self.folder / "run" / f"{name}.json").unlink(missing_ok=True)


def _end(session: int, patience: float | None) -> None:
    """End every process of a session, kindly first."""
    for sign, seconds in ((signal.SIGTERM, patience or 3.0), (signal.SIGKILL, 10.0)):
        for pid in _members(session) if sign == signal.SIGKILL else [session]:
            try:
                os.kill(pid, sign)
            except ProcessLookupError:
                continue
        if wait_until(lambda: not _members(session), seconds, 0.1):
            return


def _members(session: int) -> list[int]:
    found = []
    for one in Path("/proc").iterdir():
        if one.name.isdigit():
            fields = _stat(int(one.name))
            if fields is not None and int(fields[3]) == session and fields[0] != "Z":
                found.append(int(one.name))
    return found


def _started(pid: int) -> str | None:
    """Give when a process started, in ticks since boot; None if there is none (proc(5))."""
    fields = _stat(pid)
    return fields[19] if fields is not None and fields[0] != "Z" else None


def _stat(pid: int) -> list[str] | None:
    try:
        text = Path(f"/proc/{pid}/stat").read_text("utf-8")
    except (FileNotFoundError, ProcessLookupError):
        return None
    return text.rpartition(")")[2].split()
