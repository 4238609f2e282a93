"""What travels between a process and the one that has the embedded history open.

Frames over a Unix socket: two lengths, a value as MessagePack, rows as they are. Used by
``engine.py`` and ``serve.py``, of the same release: the socket is no interface for others.
"""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec

LOCK, SOCKET, LOG = "stackbus.lock", "stackbus.sock", "stackbus.log"
"""Files beside the data: who holds the lock has it open, and listens on the socket."""

_FRAME = struct.Struct("!QQ")


class Ask(msgspec.Struct, array_like=True):
    """A question: ``verb`` is read, run, write, lock, unlock or hello; rows go beside it."""

    verb: str
    text: str
    parameters: dict[str, Any] = {}


class Answer(msgspec.Struct, array_like=True):
    """Why there are no rows beside it, and whether that may pass."""

    error: str = ""
    may_pass: bool = False


def send(connection: socket.socket, value: Ask | Answer, rows: bytes = b"") -> None:
    """Send one frame."""
    data = msgspec.msgpack.encode(value)
    connection.sendall(_FRAME.pack(len(data), len(rows)) + data)
    connection.sendall(rows)  # by themselves: they are large


def receive(connection: socket.socket) -> tuple[bytearray, bytearray] | None:
    """Give one frame's value, as MessagePack, and its rows; None at the end."""
    header = _exactly(connection, _FRAME.size)
    if header is None:
        return None
    length, rows_length = _FRAME.unpack(header)
    value = _exactly(connection, length)
    rows = _exactly(connection, rows_length)
    return None if value is None or rows is None else (value, rows)


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
