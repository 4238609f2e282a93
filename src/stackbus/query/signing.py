"""Digests: files in which the administrator's key signs the history, hour by hour.

``stackbus sign`` writes them, and ``stackbus record`` once an hour if it has a key;
``verification.py`` reads them. A digest is gzipped JSON with its Ed25519 signature in a file beside
it. It lists the batches recorded since the digest before it, with the identity and the short hash
of each event, and names the digest before it by its SHA-256. The history keeps none of it.
"""

from __future__ import annotations

import gzip
import hashlib
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise
from pathlib import Path

import msgspec
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from stackbus.errors import InputError, StackbusError
from stackbus.files import locked, write_private
from stackbus.history.chain import FIRST_PREVIOUS
from stackbus.history.history import History

_NAME = re.compile(r"(\d{6})-(\d{4}-\d\d-\d\dT\d\d)\.json\.gz")
_MAX_EVENTS = 250_000
"""Maximum number of events in a digest. An hour that has more gets several digests."""
_EVENTS_PER_QUERY = 20_000
_LOCK_TIMEOUT = 60.0  # seconds


class Head(msgspec.Struct, frozen=True, array_like=True):
    """The last batch of a recorder's chain when a digest was made."""

    batch: int
    chain: str


class DigestEvent(msgspec.Struct, frozen=True, array_like=True):
    """An event in a digest: its identity and its short hash."""

    id: str
    index: int
    hash: str


class DigestBatch(msgspec.Struct, frozen=True):
    """A batch in a digest. ``month`` is its partition of the history, such as 202611.

    ``hash_version`` is the version of the hashed form (``history/chain.py``). Digests from before
    there were others lack it.
    """

    recorder: str
    batch: int
    month: int
    previous: str
    chain: str
    events: tuple[DigestEvent, ...]
    hash_version: int = 1


class Digest(msgspec.Struct, frozen=True):
    """The batches recorded in one hour; ``heads`` are the ends of all chains so far."""

    number: int
    hour: str
    made: datetime
    previous: str
    heads: dict[str, Head]
    batches: tuple[DigestBatch, ...]


@dataclass(frozen=True, slots=True)
class DigestFile:
    """The file of a digest, as it was read."""

    path: Path
    number: int
    content: bytes

    @property
    def sha256(self) -> str:
        """The SHA-256 by which the next digest names this one."""
        return hashlib.sha256(self.content).hexdigest()

    def decode(self) -> Digest:
        """Return the digest. Raises ValueError."""
        try:
            return msgspec.json.decode(gzip.decompress(self.content), type=Digest)
        except (OSError, EOFError, msgspec.MsgspecError) as error:
            raise ValueError(f"{self.path}: not a digest: {error}") from error

    def is_signed_by(self, key: Ed25519PublicKey) -> bool:
        """Return whether the file beside it is its signature by ``key``."""
        try:
            key.verify(_signature_path(self.path).read_bytes(), self.content)
        except (InvalidSignature, OSError):
            return False
        return True


class UnsignedBatch(msgspec.Struct):
    """A batch that no digest lists yet; ``count`` is the number of its events."""

    recorder: str
    batch: int
    month: int
    hash_version: int
    previous: str
    chain: str
    received: datetime
    count: int


class _EventHash(msgspec.Struct):
    batch: int
    id: str
    index: int
    hash: str


def sign_history(
    history: History,
    folder: Path,
    key: Ed25519PrivateKey,
    now: datetime,
    report_progress: Callable[[str], None] = lambda _: None,
    *,
    only_past_hours: bool = False,
) -> list[Path]:
    """Sign the batches recorded since the last digest in ``folder``; return the new files.

    ``only_past_hours`` leaves the current hour to a later call. Raises StackbusError if another
    process signs there.
    """
    busy = (
        f"{folder} is locked: another stackbus process has been writing digests there for "
        f"{_LOCK_TIMEOUT:.0f} s"
    )
    with locked(folder / ".lock", _LOCK_TIMEOUT, busy):
        last = next(reversed(read_digests(folder)), None)
        digest = last.decode() if last else None
        number, previous = (digest.number, last.sha256) if digest and last else (0, FIRST_PREVIOUS)
        heads = dict(digest.heads) if digest else {}
        paths = []
        for hour, batches in _by_hour(unsigned_batches(history, heads), digest):
            if only_past_hours and hour >= _hour(now):
                break
            number += 1
            report_progress(
                f"signing {sum(batch.count for batch in batches):,} events of {hour}:00"
            )
            heads.update({batch.recorder: Head(batch.batch, batch.chain) for batch in batches})
            listed = tuple(_with_events(history, batches))
            content = msgspec.json.encode(Digest(number, hour, now, previous, dict(heads), listed))
            compressed = gzip.compress(content, mtime=0)
            path = folder / f"{number:06d}-{hour}.json.gz"
            write_private(_signature_path(path), key.sign(compressed))
            write_private(path, compressed)
            previous = hashlib.sha256(compressed).hexdigest()
            paths.append(path)
        return paths


def read_digests(folder: Path) -> list[DigestFile]:
    """Return the digests of a folder in order. Raises StackbusError for an unreadable file."""
    digests = []
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        if match := _NAME.fullmatch(path.name):
            try:
                digests.append(DigestFile(path, int(match[1]), path.read_bytes()))
            except OSError as error:
                raise StackbusError(f"{path}: cannot be read: {error.strerror}") from error
    return digests


def unsigned_batches(history: History, heads: dict[str, Head]) -> list[UnsignedBatch]:
    """Return the batches that follow ``heads``, in the order in which they were recorded.

    Within a chain the batch number is the order, whatever the recorder's clock said.
    """
    batches = history.session.query(
        "batches_after",
        UnsignedBatch,
        recorders=list(heads),
        batches=[head.batch for head in heads.values()],
    )
    chains: dict[str, list[UnsignedBatch]] = {}
    for batch in batches:
        chains.setdefault(batch.recorder, []).append(batch)
    for chain in chains.values():
        for before, batch in pairwise(chain):
            batch.received = max(batch.received, before.received)
    return sorted(
        (batch for chain in chains.values() for batch in chain),
        key=lambda batch: (batch.received, batch.recorder, batch.batch),
    )


def read_private_key(path: Path) -> Ed25519PrivateKey:
    """Read the administrator's private key, PEM. Raises InputError."""
    try:
        key = serialization.load_pem_private_key(path.read_bytes(), None)
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from None
    except (ValueError, TypeError):
        key = None
    if not isinstance(key, Ed25519PrivateKey):
        raise InputError(
            f"{path}: not a private Ed25519 key without a passphrase; create one with: "
            "openssl genpkey -algorithm ed25519 -out signing.pem"
        )
    return key


def read_public_key(path: Path) -> Ed25519PublicKey:
    """Read the administrator's public key, PEM, from its own file or from the private key's.

    Raises InputError.
    """
    try:
        data = path.read_bytes()
        if b"PRIVATE" in data:
            return read_private_key(path).public_key()
        key = serialization.load_pem_public_key(data)
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from None
    except (ValueError, TypeError):
        key = None
    if not isinstance(key, Ed25519PublicKey):
        raise InputError(
            f"{path}: not a public Ed25519 key; derive it from the private key with: "
            "openssl pkey -in signing.pem -pubout -out signing.pub"
        )
    return key


def _by_hour(
    batches: Sequence[UnsignedBatch], last: Digest | None
) -> Iterator[tuple[str, list[UnsignedBatch]]]:
    """Yield the batches of each hour, at most ``_MAX_EVENTS`` events at a time.

    No hour is before that of the ``last`` digest, even if the clock was set back.
    """
    earliest = last.hour if last else ""
    group: list[UnsignedBatch] = []
    group_hour, count = "", 0
    for batch in batches:
        hour = max(_hour(batch.received), earliest)
        if group and (hour != group_hour or count + batch.count > _MAX_EVENTS):
            yield group_hour, group
            group, count = [], 0
        group.append(batch)
        group_hour = hour
        count += batch.count
    if group:
        yield group_hour, group


def _with_events(history: History, batches: Sequence[UnsignedBatch]) -> Iterator[DigestBatch]:
    """Yield the batches with their events, chain by chain, a few batches per query."""
    for recorder in dict.fromkeys(batch.recorder for batch in batches):
        chain = [batch for batch in batches if batch.recorder == recorder]
        while chain:
            count = 0
            group: list[UnsignedBatch] = []
            while chain and (not group or count + chain[0].count <= _EVENTS_PER_QUERY):
                group.append(chain.pop(0))
                count += group[-1].count
            events: dict[int, list[DigestEvent]] = {}
            for event in history.session.query(
                "batch_events",
                _EventHash,
                recorder=recorder,
                first=group[0].batch,
                last=group[-1].batch,
            ):
                entry = DigestEvent(event.id, event.index, event.hash)
                events.setdefault(event.batch, []).append(entry)
            for batch in group:
                yield DigestBatch(
                    recorder,
                    batch.batch,
                    batch.month,
                    batch.previous,
                    batch.chain,
                    tuple(events.get(batch.batch, ())),
                    batch.hash_version,
                )


def _signature_path(path: Path) -> Path:
    return path.with_name(path.name + ".sig")


def _hour(time: datetime) -> str:
    return f"{time:%Y-%m-%dT%H}"
