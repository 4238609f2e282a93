"""The process that has an embedded history open: ``python -m stackbus.history.serve PATH``.

Started by ``engine.py``, by whoever comes first; it serves everybody who comes, and ends when the
last of them has left. If another one has the data open already, it ends at once.
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
from stackbus.history.engine import Direct
from stackbus.history.wire import LOCK, SOCKET, Answer, Ask, receive, send, short_path

_PATIENCE = 60.0  # seconds that one guest waits for another to have written
_FIRST_GUEST = 10.0  # seconds
_LINGER = 0.5  # seconds after the last one has left


class Server:
    """The engine and its guests; each has a thread and a session of its own."""

    def __init__(self, path: Path) -> None:
        """Open the data at ``path``. Raises HistoryError."""
        self._path = path
        self._engine = Direct.embedded(path)
        self._exclusive = threading.RLock()
        self._guests: set[object] = set()
        self._left_at = time.monotonic() + _FIRST_GUEST
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        with suppress(FileNotFoundError):
            (path / SOCKET).unlink()
        with short_path(path) as short:
            self._listener.bind(f"{short}/{SOCKET}")
        (path / SOCKET).chmod(0o600)
        self._listener.listen()
        self._listener.settimeout(_LINGER / 2)

    def run(self) -> None:
        """Serve until everybody has left."""
        while self._guests or time.monotonic() - self._left_at < _LINGER:
            with suppress(TimeoutError):
                connection, _ = self._listener.accept()
                connection.settimeout(None)
                guest = object()
                self._guests.add(guest)
                threading.Thread(target=self._serve, args=(connection, guest)).start()
        self._listener.close()
        (self._path / SOCKET).unlink()
        self._engine.close()

    def _serve(self, connection: socket.socket, guest: object) -> None:
        """Answer one guest until it leaves."""
        locks = 0
        try:
            with connection, suppress(OSError, msgspec.MsgspecError):
                while (question := receive(connection)) is not None:
                    try:
                        ask = msgspec.msgpack.decode(question.value, type=Ask)
                        answer, rows = self._answered(ask, question.file)
                    finally:
                        question.close()
                    if not answer.error:
                        locks += {"lock": 1, "unlock": -1}.get(ask.verb, 0)
                    send(connection, answer, rows)
        finally:
            for _ in range(locks):
                self._exclusive.release()
            self._left_at = time.monotonic()
            self._guests.discard(guest)

    def _answered(self, ask: Ask, file: int | None) -> tuple[Answer, bytes]:
        """Do what is asked; give the answer, and the rows that go beside it."""
        try:
            match ask.verb:
                case "read":
                    return Answer(), self._engine.read(ask.text, ask.parameters)
                case "write":
                    if file is None:  # this process has too many open
                        return Answer("a batch came without its rows", may_pass=True), b""
                    self._engine.write_from(ask.text, file)
                case "run":
                    self._engine.run(ask.text)
                case "lock":
                    if not self._exclusive.acquire(timeout=_PATIENCE):
                        error = "another process writes to the history, and does not end"
                        return Answer(error, may_pass=True), b""
                case "unlock":
                    self._exclusive.release()
        except HistoryError as error:
            return Answer(str(error), may_pass=isinstance(error, HistoryUnreachable)), b""
        return Answer(), b""


def main(path: Path) -> int:
    """Serve the history at ``path``; give the exit code."""
    lock = os.open(path / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return 0  # another one has it open
    try:
        server = Server(path)
    except (HistoryError, OSError) as error:
        print(error, file=sys.stderr)  # noqa: T201 -- into the log beside the data
        return 1
    server.run()
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
