"""Hashes that reveal a changed, removed, added or reordered event. Pure.

Each recorder writes a chain of batches. The hash of a batch covers the hash of the batch before it
and the hashes of its events in order; it is stored in each of the batch's rows. ``batches.py``
extends the chain; ``query/signing.py`` signs it and ``query/verification.py`` verifies it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

import msgspec

from stackbus.events.model import FIELDS, HASHED_FIELDS, Event

FIRST_PREVIOUS = "0" * 64
"""The ``previous`` of a recorder's first batch, which has no batch before it."""

SHORT = 16
"""Hexadecimal digits of an event's hash in its row and in digests. They identify the event; the
proof is the batch's hash, which covers all 64 digits."""

HASH_VERSION = max(HASHED_FIELDS)
"""The version with which new batches are hashed. It covers all fields of ``Event``."""

_encode = msgspec.json.Encoder().encode


def event_hash(event: Event, version: int) -> str:
    """Return the hash of an event that was recorded with a version of the hashed form.

    Return an empty text, which no stored hash equals, for an event that no recorder can have
    written: its version does not exist, or a field that its version lacks has a value.
    """
    fields = HASHED_FIELDS.get(version)
    if fields is None or any(getattr(event, name) for name in FIELDS[len(fields) :]):
        return ""
    return line_hash(_encode({name: getattr(event, name) for name in fields}))


def line_hash(line: bytes) -> str:
    """Return the SHA-256 of an event's JSON, in hexadecimal.

    For the newest version this JSON is the line that ``events -o jsonl`` prints, as long as one
    channel alone has carried the notification.
    """
    return hashlib.sha256(line).hexdigest()


def batch_hash(
    previous: str, recorder: str, batch: int, version: int, hashes: Iterable[str]
) -> str:
    """Return the hash of a batch: SHA-256 over its predecessor, its identity and its events.

    ``hashes`` are the full hashes of its events, in order. The version is part of the identity;
    version 1 was released without.
    """
    identity = f"{previous} {recorder} {batch}" + (f" {version}" if version > 1 else "")
    digest = hashlib.sha256(identity.encode())
    for hexadecimal in hashes:
        digest.update(hexadecimal.encode("ascii"))
    return digest.hexdigest()
