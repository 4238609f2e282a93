"""The process that has an embedded history open: ``python -m stackbus.history.server PATH``.

``embedded.py`` starts it. It serves every client that connects, and ends after the last one has
left. It ends at once if another process has the data open.
"""

from __future__ import annotations

import fcntl
import os
import socket
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

import msgspec

from stackbus.errors import HistoryError, HistoryUnreachable
from stackbus.history.engine import ClickHouse
from stackbus.history.protocol import (
    LOCK,
    SOCKET,
    Frame,
    Request,
    Response,
    receive_frame,
    send_frame,
    short_path,
)

_LOCK_TIMEOUT = 60.0  # seconds that a client waits for another client's writes
_FIRST_CLIENT_TIMEOUT = 10.0  # seconds
_LINGER = 0.5  # seconds that the server waits for new clients after the last one has left


class Server:
    """The engine and its clients. Each client has a thread and a session of its own."""

    def __init__(self, path: Path) -> None:
        """Open the data at ``path`` and listen. Raises HistoryError and OSError."""
        self._path = path
        self._engine = ClickHouse.open_here(path)
        self._exclusive = threading.RLock()
        self._clients: set[socket.socket] = set()
        self._deadline = time.monotonic() + _FIRST_CLIENT_TIMEOUT
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        with suppress(FileNotFoundError):
            (path / SOCKET).unlink()
        with short_path(path) as short:
            self._listener.bind(f"{short}/{SOCKET}")
        (path / SOCKET).chmod(0o600)
        self._listener.listen()
        self._listener.settimeout(_LINGER / 2)

    def run(self) -> None:
        """Serve until all clients have left."""
        while self._clients or time.monotonic() < self._deadline:
            with suppress(TimeoutError):
                connection, _ = self._listener.accept()
                connection.settimeout(None)
                self._clients.add(connection)
                threading.Thread(target=self._serve, args=(connection,)).start()
        self._listener.close()
        (self._path / SOCKET).unlink()
        self._engine.close()

    def _serve(self, connection: socket.socket) -> None:
        """Reply to one client until it leaves; then release its locks."""
        locks = 0
        try:
            with connection, suppress(OSError, msgspec.MsgspecError):
                while (frame := receive_frame(connection)) is not None:
                    request = msgspec.msgpack.decode(frame.value, type=Request)
                    response, rows = self._reply(request, frame)
                    if not response.error:
                        locks += {"lock": 1, "unlock": -1}.get(request.verb, 0)
                    del frame  # a batch is many megabytes
                    send_frame(connection, response, rows)
        finally:
            for _ in range(locks):
                self._exclusive.release()
            self._deadline = time.monotonic() + _LINGER
            self._clients.discard(connection)

    def _reply(self, request: Request, frame: Frame) -> tuple[Response, bytes]:
        """Do what a request says; return the response and its rows."""
        try:
            match request.verb:
                case "select":
                    return Response(), self._engine.select(request.text, request.parameters)
                case "insert":
                    self._engine.insert(request.text, [frame.rows])
                case "execute":
                    self._engine.execute(request.text)
                case "lock":
                    if not self._exclusive.acquire(timeout=_LOCK_TIMEOUT):
                        error = (
                            f"the history at {self._path} is locked: another process has been "
                            f"writing for {_LOCK_TIMEOUT:.0f} s"
                        )
                        return Response(error, is_temporary=True), b""
                case "unlock":
                    self._exclusive.release()
        except HistoryError as error:
            return Response(str(error), isinstance(error, HistoryUnreachable)), b""
        return Response(), b""


def main(path: Path) -> int:
    """Serve the history at ``path``; return the exit code."""
    lock = os.open(path / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return 0  # another process has it open
    try:
        server = Server(path)
    except (HistoryError, OSError) as error:
        print(error, file=sys.stderr)  # noqa: T201 -- goes into the log beside the data
        return 1
    server.run()
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
