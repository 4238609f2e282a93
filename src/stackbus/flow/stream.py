"""The parts of a stream: ``Source``, ``Delivery``, ``Sink`` and ``Outcome``. Values, no network.

``loop.py`` receives deliveries from a source and writes them to a sink, in batches. The source
learns the position of the last delivery written; the deliveries after it come again when the source
is subscribed to the next time.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from datetime import datetime
from typing import Any, Protocol

import msgspec


class Delivery(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One message of a source: the body of a bus message, a line of a log, a document.

    ``origin`` names the place in the source, for people. ``service`` is the emitter's name, or ""
    if the source does not know it. ``scrubbed`` is true if the relay has removed secrets already.
    ``position`` belongs to the source: to commit it is to commit every delivery before it.
    """

    channel: str
    origin: str
    body: bytes
    received: datetime
    service: str = ""
    scrubbed: bool = False
    position: Any = None

    def __repr__(self) -> str:
        """Return a text without the body, which may hold a secret."""
        return f"Delivery({self.channel}, {self.origin}, {len(self.body)} bytes)"


class Subscription(Protocol):
    """A source that is open."""

    def receive(self, seconds: float) -> list[Delivery]:
        """Return the deliveries that have arrived; wait for the first at most ``seconds``.

        Raises StackbusError when the source is lost.
        """

    def commit(self, position: Any) -> None:
        """Record that every delivery up to ``position`` is written."""


class Source(Protocol):
    """A place that deliveries come from: a topic's queues, log files, an index."""

    name: str

    def subscribe(self) -> AbstractContextManager[Subscription]:
        """Open the source after the last committed position.

        Raises StackbusError; the loop tries again if the error is transient.
        """


class Channel(Source, Protocol):
    """A source of notifications for the history."""

    @staticmethod
    def extract(body: bytes) -> bytes:
        """Return the notification in the body of a delivery.

        Raises Unreadable, with a reason that quotes nothing of the body.
        """


class Outcome(msgspec.Struct, frozen=True):
    """The result of one write, in deliveries; ``newest`` is the latest time among their events."""

    written: int = 0
    duplicates: int = 0
    rejected: int = 0
    newest: datetime | None = None


class Sink(Protocol):
    """A place that batches are written to: the history, a topic, a destination."""

    concurrency: int
    """Batches that may be written at the same time, each by a thread of its own."""

    def write(self, batch: Sequence[Delivery]) -> Outcome:
        """Write a batch of at least one delivery; return when all of it is safe.

        Raises StackbusError. After a transient error the loop writes the same batch again, and
        after a crash the source delivers it again, so a sink must recognise duplicates.
        """

    def close(self) -> None:
        """Finish the writes in progress and release all resources."""
