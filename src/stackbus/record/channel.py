"""What a channel is: the Protocol between ``recorder.py`` and ``channels/``. Values, no network.

A channel is opened, gives deliveries, and is told which of them are in the history: what it was
not told comes again the next time it is opened.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from datetime import datetime
from typing import Any, Protocol

import msgspec


class Delivery(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One thing as a channel brought it: a body of the bus, a line of a log, a document.

    ``service`` is the emitter's name where the channel tells it; ``scrubbed``: it came through
    stackbus' relay, which has searched it for secrets. ``mark`` is the channel's own: committing it
    commits all that came before.
    """

    channel: str
    origin: str
    body: bytes
    received: datetime
    service: str = ""
    scrubbed: bool = False
    mark: Any = None

    def __repr__(self) -> str:
        """Show no body: a secret may be in it."""
        return f"Delivery({self.channel}, {self.origin}, {len(self.body)} bytes)"


class Source(Protocol):
    """An opened channel."""

    def receive(self, seconds: float) -> list[Delivery]:
        """Give what has come; wait at most so long for it. Raises StackbusError when it broke."""

    def commit(self, mark: Any) -> None:
        """Take note that everything up to the delivery with ``mark`` is in the history."""


class Channel(Protocol):
    """A way by which notifications come."""

    name: str

    def opened(self) -> AbstractContextManager[Source]:
        """Open it. Raises StackbusError while that cannot be done."""
