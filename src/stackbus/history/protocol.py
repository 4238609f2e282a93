"""The protocol between stackbus and the process that has an embedded history open.

``embedded.py`` sends a Request over a Unix socket, ``server.py`` replies with a Response. Each is a
frame: two lengths, the value as MessagePack, and rows as JSON lines, which a Request inserts and a
Response returns. Both ends are of the same release, so the protocol may change with any of them.
"""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import msgspec

LOCK, SOCKET, LOG = "stackbus.lock", "stackbus.sock", "stackbus.log"
"""Files beside the data. The server holds the lock, listens on the socket and writes the log."""

_FRAME = struct.Struct("!QQ")


class Request(msgspec.Struct, array_like=True):
    """What the server is to do.

    ``text`` is the SQL of ``select`` and ``execute``, and the table of ``insert``. ``lock`` keeps
    other clients from locking until ``unlock`` or the end of the connection.
    """

    verb: Literal["hello", "select", "execute", "insert", "lock", "unlock"]
    text: str = ""
    parameters: dict[str, Any] = {}


class Response(msgspec.Struct, array_like=True):
    """The reason why a request failed, and whether it may succeed later; empty on success."""

    error: str = ""
    is_temporary: bool = False


@dataclass(frozen=True, slots=True)
class Frame:
    """A received frame: the value as MessagePack, and its rows."""

    value: bytearray
    rows: bytearray


def send_frame(connection: socket.socket, value: Request | Response, rows: bytes = b"") -> None:
    """Send a value and its rows. Raises OSError."""
    encoded = msgspec.msgpack.encode(value)
    connection.sendall(_FRAME.pack(len(encoded), len(rows)) + encoded)
    connection.sendall(rows)  # apart, since a batch of many megabytes would be copied


def receive_frame(connection: socket.socket) -> Frame | None:
    """Return the next frame, or None if the peer has closed the connection. Raises OSError."""
    header = _receive(connection, _FRAME.size)
    if header is None:
        return None
    value_length, rows_length = _FRAME.unpack(header)
    value = _receive(connection, value_length)
    rows = _receive(connection, rows_length)
    return None if value is None or rows is None else Frame(value, rows)


def _receive(connection: socket.socket, length: int) -> bytearray | None:
    buffer = bytearray(length)
    unfilled = memoryview(buffer)
    while unfilled:
        count = connection.recv_into(unfilled)
        if not count:
            return None
        unfilled = unfilled[count:]
    return buffer


@contextmanager
def short_path(folder: Path) -> Iterator[str]:
    """Yield a short path to ``folder``: the path of a Unix socket has at most 108 bytes."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{handle}"
    finally:
        os.close(handle)
