"""Embedded: the engine of an embedded history, through the process that has its data open.

chDB accepts one process for a folder. ``server.py`` is that process: the first client starts it,
all clients reach it over a Unix socket beside the data (``protocol.py``), and it ends after the
last one. So ``stackbus events`` works beside a recorder, and the engine takes no time from the
recorder's own interpreter.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TypeVar

import msgspec

from stackbus.errors import HistoryError, HistoryUnreachable, InputError
from stackbus.history.engine import Parameters, Rows
from stackbus.history.protocol import (
    LOG,
    SOCKET,
    Request,
    Response,
    receive_frame,
    send_frame,
    short_path,
)

_START_SECONDS = 60.0
_ALLOCATORS = {
    "JE_MALLOC_CONF": "dirty_decay_ms:200,muzzy_decay_ms:0",
    "MALLOC_MMAP_THRESHOLD_": str(1024 * 1024),
}
"""How soon the server's allocators, chDB's own jemalloc and the C library's, return freed memory.
jemalloc keeps it for five seconds by default: half of the memory in use during a backlog."""

R = TypeVar("R")


class Embedded:
    """The engine of the data at a path. It starts the server again whenever it has ended."""

    has_one_writer = True

    def __init__(self, path: Path) -> None:
        """Connect. Raises InputError for a path that cannot be created, and HistoryError."""
        try:
            path.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"{path}: cannot be created: {error.strerror}") from None
        self._path = path
        self._connecting = threading.Lock()
        self._connection: _Connection | None = None
        self._connect()

    def select(self, sql: str, parameters: Parameters) -> bytes:
        """Run a query; run it again if the server ended meanwhile."""
        request = Request("select", sql, dict(parameters))
        with suppress(_ServerEnded):
            return self._use(lambda connection: connection.request(request))
        return self._use(lambda connection: connection.request(request))

    def execute(self, sql: str) -> None:
        """Run a statement."""
        self._use(lambda connection: connection.request(Request("execute", sql)))

    def insert(self, table: str, rows: Rows) -> None:
        """Insert rows in one block."""
        block = b"".join(rows)
        self._use(lambda connection: connection.request(Request("insert", table), block))

    @contextmanager
    def exclusive(self) -> Iterator[None]:
        """Keep the writes of other processes out."""
        connection = self._use(_lock)
        try:
            yield
        finally:
            with suppress(HistoryUnreachable):  # the server unlocks when a connection ends
                connection.request(Request("unlock"))

    def close(self) -> None:
        """Close the connection; the server ends if it was the last one."""
        if self._connection is not None:
            self._connection.close()

    def _use(self, work: Callable[[_Connection], R]) -> R:
        connection = self._connect()
        try:
            return work(connection)
        except _ServerEnded:
            with self._connecting:
                if self._connection is connection:
                    connection.close()
                    self._connection = None
            raise

    def _connect(self) -> _Connection:
        with self._connecting:
            if self._connection is None:
                self._connection = _connect(self._path)
            return self._connection


def _lock(connection: _Connection) -> _Connection:
    connection.request(Request("lock"))
    return connection


def _connect(path: Path) -> _Connection:
    """Connect to the server of the data at ``path``; start it if it does not run."""
    server: subprocess.Popen[bytes] | None = None
    deadline = time.monotonic() + _START_SECONDS
    while True:
        with suppress(OSError, _ServerEnded):
            return _Connection(path)
        if server is None or server.poll() is not None:
            if server is not None and server.returncode > 0:  # not killed by a signal
                text = (path / LOG).read_text("utf-8", "replace").strip().splitlines()
                reason = text[-1] if text else f"exit code {server.returncode}"
                raise HistoryError(f"the history at {path} cannot be opened: {reason}")
            server = _start_server(path)
        if time.monotonic() > deadline:
            raise HistoryUnreachable(
                f"the history at {path} was not open after {_START_SECONDS:.0f} s: see {path / LOG}"
            )
        time.sleep(0.05)


def _start_server(path: Path) -> subprocess.Popen[bytes]:
    try:
        log = os.open(path / LOG, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        try:
            return subprocess.Popen(  # noqa: S603 -- our own module
                [sys.executable, "-m", "stackbus.history.server", str(path)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # Ctrl-C ends the client alone
                env={**_ALLOCATORS, **os.environ},
            )
        finally:
            os.close(log)
    except OSError as error:
        raise HistoryUnreachable(
            f"the history at {path}: its server cannot be started: {error.strerror}"
        ) from error


class _ServerEnded(HistoryUnreachable):
    """The server has ended. The next request starts it again."""


class _Connection:
    """A connection to the server. Threads take turns."""

    def __init__(self, path: Path) -> None:
        """Connect and wait for the server's greeting. Raises OSError or _ServerEnded."""
        self._path = path
        self._turn = threading.Lock()
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            with short_path(path) as short:
                self._socket.connect(f"{short}/{SOCKET}")
            self.request(Request("hello"))
        except BaseException:
            self._socket.close()
            raise

    def request(self, request: Request, rows: bytes = b"") -> bytes:
        """Send a request with its rows; return the rows of the response. Raises HistoryError."""
        with self._turn:
            try:
                send_frame(self._socket, request, rows)
                frame = receive_frame(self._socket)
            except OSError:
                frame = None
        if frame is None:
            raise _ServerEnded(f"the server of the history at {self._path} has ended")
        response = msgspec.msgpack.decode(frame.value, type=Response)
        if response.error:
            raise (HistoryUnreachable if response.is_temporary else HistoryError)(response.error)
        return bytes(frame.rows)

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()
