"""The hashes by which a changed, removed, added or reordered event is seen. Pure.

What one recorder writes is a chain of batches: each batch's hash is made of the one before and of
its events' hashes in order, and stands in each of its rows. ``history.py`` chains what it writes,
``query/proof.py`` signs the ends of the chains and verifies them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

import msgspec

from stackbus.events.model import Event

BEGINNING = "0" * 64
"""What stands before a recorder's first batch."""

SHORT = 16
"""Hexadecimal digits of an event's hash that stand beside it and in digests. They only point at
the event; what proves it is its batch's hash, which is made of all 64."""

_encode = msgspec.json.Encoder().encode


def event_hash(event: Event) -> str:
    """Hash one event."""
    return line_hash(_encode(event))


def line_hash(line: bytes) -> str:
    """Hash an event's JSON: SHA-256, in hexadecimal.

    It is the line that ``events -o jsonl`` prints, as long as one channel alone has told it.
    """
    return hashlib.sha256(line).hexdigest()


def batch_hash(previous: str, recorder: str, batch: int, hashes: Iterable[str]) -> str:
    """Hash one batch: SHA-256 of the one before, of whose it is, and of its events' hashes."""
    digest = hashlib.sha256(f"{previous} {recorder} {batch}".encode())
    for one in hashes:
        digest.update(one.encode("ascii"))
    return digest.hexdigest()
