"""What travels between a process and the one that has the embedded history open.

Frames over a Unix socket: two lengths, a value as MessagePack, rows as they are. Rows to be written
lie in a file in memory, which goes along as a descriptor: a batch is many megabytes, and is copied
once. Used by ``engine.py`` and ``serve.py``, of the same release: the socket is no interface for
others.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from stackbus.history.history import Piece

LOCK, SOCKET, LOG = "stackbus.lock", "stackbus.sock", "stackbus.log"
"""Files beside the data: who holds the lock has it open, and listens on the socket."""

_FRAME = struct.Struct("!QQ")
_MOST_PIECES = 1024  # that Linux writes at once (IOV_MAX)


class Ask(msgspec.Struct, array_like=True):
    """A question: ``verb`` is read, run, write, lock, unlock or hello; a file may go with it."""

    verb: str
    text: str
    parameters: dict[str, Any] = {}


class Answer(msgspec.Struct, array_like=True):
    """Why there are no rows beside it, and whether that may pass."""

    error: str = ""
    may_pass: bool = False


@contextmanager
def in_memory(pieces: Sequence[Piece]) -> Iterator[int]:
    """Give the descriptor of a file in memory with these pieces in it, for as long as is needed.

    Raises OSError where there is no room.
    """
    file = os.memfd_create("stackbus-batch")
    try:
        for first in range(0, len(pieces), _MOST_PIECES):
            _write(file, pieces[first : first + _MOST_PIECES])
        yield file
    finally:
        os.close(file)


def _write(file: int, pieces: Sequence[Piece]) -> None:
    written = os.writev(file, pieces)
    if written != sum(len(one) for one in pieces):  # it stops at 2 GB, or for want of memory
        raise OSError(errno.ENOMEM, os.strerror(errno.ENOMEM))


def send(
    connection: socket.socket, value: Ask | Answer, rows: bytes = b"", file: int | None = None
) -> None:
    """Send one frame, with the descriptor of a ``file``."""
    data = msgspec.msgpack.encode(value)
    header = _FRAME.pack(len(data), len(rows))
    # A header is shorter than any buffer: it goes as a whole, and takes the descriptor along.
    socket.send_fds(connection, [header], [] if file is None else [file])
    connection.sendall(data)
    connection.sendall(rows)  # by themselves: they are large


@dataclass(frozen=True, slots=True)
class Frame:
    """What came: a value as MessagePack, the rows beside it, and the descriptor of a file."""

    value: bytearray
    rows: bytearray
    file: int | None

    def close(self) -> None:
        """Close its file, if one came with it."""
        if self.file is not None:
            os.close(self.file)


def receive(connection: socket.socket) -> Frame | None:
    """Give one frame; None at the end. Whoever has it closes its file."""
    header, files, _, _ = socket.recv_fds(connection, _FRAME.size, 1)
    with ExitStack() as unclaimed:
        for file in files:
            unclaimed.callback(os.close, file)
        if len(header) < _FRAME.size:
            return None
        length, rows_length = _FRAME.unpack(header)
        value = _exactly(connection, length)
        rows = _exactly(connection, rows_length)
        if value is None or rows is None:
            return None
        unclaimed.pop_all()
        return Frame(value, rows, files[0] if files else None)


def _exactly(connection: socket.socket, length: int) -> bytearray | None:
    data = bytearray(length)
    rest = memoryview(data)
    while rest:
        count = connection.recv_into(rest)
        if not count:
            return None
        rest = rest[count:]
    return data


@contextmanager
def short_path(folder: Path) -> Iterator[str]:
    """Give a name of ``folder`` that leaves room in a socket's 108 bytes, however deep it lies."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{handle}"
    finally:
        os.close(handle)
