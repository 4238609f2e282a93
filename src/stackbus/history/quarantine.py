"""The table ``quarantine``: bodies that could not be read, whole, until a release can read them.

The sink adds them; ``stackbus quarantine`` lists, retries and releases them.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime

import msgspec

from stackbus.history.session import Session


@dataclass(frozen=True, slots=True)
class QuarantinedBody:
    """A body that could not be read, with the reason and its origin."""

    received: datetime
    channel: str
    origin: str
    service: str
    reason: str
    body: bytes = field(repr=False)

    @property
    def sha256(self) -> str:
        """The SHA-256 of the body, which identifies it: the same body is stored once."""
        return hashlib.sha256(self.body).hexdigest()

    def to_json(self) -> dict[str, object]:
        """Return the entry as ``quarantine -o json`` prints it."""
        return {
            "digest": self.sha256,
            "received": self.received.isoformat(),
            "channel": self.channel,
            "origin": self.origin,
            "service": self.service,
            "bytes": len(self.body),
            "reason": self.reason,
        }


class _Row(msgspec.Struct):
    digest: str
    received: datetime
    channel: str
    origin: str
    service: str
    reason: str
    body: str
    released: int = 0


class _Size(msgspec.Struct):
    bytes: int


class Quarantine:
    """The bodies in quarantine."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def add(self, bodies: Iterable[QuarantinedBody]) -> None:
        """Store bodies. A body that is there already, or was released, stays so."""
        self._session.insert("quarantine", [_row(body) for body in bodies])

    def release(self, bodies: Iterable[QuarantinedBody]) -> None:
        """Remove bodies that have been read since."""
        self._session.insert("quarantine", [_row(body, is_released=True) for body in bodies])

    def size(self) -> int:
        """Return the size of all bodies in quarantine, in base64, in bytes."""
        return next(self._session.query("quarantined_bytes", _Size)).bytes

    def __iter__(self) -> Iterator[QuarantinedBody]:
        """Yield the bodies in quarantine, a page at a time, in the order of their SHA-256."""
        after = ""
        while page := list(self._session.query("quarantine", _Row, after=after)):
            for row in page:
                yield QuarantinedBody(
                    row.received,
                    row.channel,
                    row.origin,
                    row.service,
                    row.reason,
                    base64.b64decode(row.body),
                )
            after = page[-1].digest


def _row(body: QuarantinedBody, *, is_released: bool = False) -> _Row:
    return _Row(
        body.sha256,
        body.received,
        body.channel,
        body.origin,
        body.service,
        body.reason,
        "" if is_released else base64.b64encode(body.body).decode("ascii"),
        int(is_released),
    )
