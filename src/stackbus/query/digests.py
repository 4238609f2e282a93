"""Digests: what a history holds, signed with a key of the administrator's, hour by hour.

Called by ``stackbus sign``, by ``stackbus record`` when it has a key, and read by ``proof.py``.
A digest is a file, gzipped JSON, with its Ed25519 signature beside it; it lists the batches that
were recorded since the one before, with each event's identity and the beginning of its hash, and
names the one before by its SHA-256. Nothing of it is kept in the history.
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
from stackbus.history.history import History
from stackbus.history.proof import BEGINNING

_NAME = re.compile(r"(\d{6})-(\d{4}-\d\d-\d\dT\d\d)\.json\.gz")
_MOST_EVENTS = 250_000
"""Events of one digest at most; an hour that has more gets several."""
_AT_ONCE = 20_000
_PATIENCE = 60.0  # seconds that one signer waits for another


class Head(msgspec.Struct, frozen=True, array_like=True):
    """Where a recorder's chain ended when a digest was made."""

    batch: int
    chain: str


class Listed(msgspec.Struct, frozen=True, array_like=True):
    """One event of a digest: its identity, and the beginning of its hash."""

    id: str
    index: int
    hash: str


class Batch(msgspec.Struct, frozen=True):
    """One batch of a digest; ``month`` is its partition of the history, as 202611."""

    recorder: str
    batch: int
    month: int
    previous: str
    chain: str
    events: tuple[Listed, ...]


class Digest(msgspec.Struct, frozen=True):
    """What was recorded in one hour; ``heads`` are the ends of all chains so far."""

    number: int
    hour: str
    made: datetime
    previous: str
    heads: dict[str, Head]
    batches: tuple[Batch, ...]


@dataclass(frozen=True, slots=True)
class Written:
    """A digest's file, as it was found."""

    path: Path
    number: int
    content: bytes

    @property
    def sha256(self) -> str:
        """Identify it: the next one names it so."""
        return hashlib.sha256(self.content).hexdigest()

    def read(self) -> Digest:
        """Decode it. Raises ValueError."""
        try:
            return msgspec.json.decode(gzip.decompress(self.content), type=Digest)
        except (OSError, EOFError, msgspec.MsgspecError) as error:
            raise ValueError(f"{self.path}: no digest: {error}") from error

    def is_signed(self, key: Ed25519PublicKey) -> bool:
        """Tell whether the file beside it is its signature."""
        try:
            key.verify(_signature(self.path).read_bytes(), self.content)
        except (InvalidSignature, OSError):
            return False
        return True


class _Unsigned(msgspec.Struct):
    recorder: str
    batch: int
    month: int
    previous: str
    chain: str
    received: datetime
    count: int


class _Event(msgspec.Struct):
    batch: int
    id: str
    index: int
    hash: str


def sign(
    history: History,
    folder: Path,
    key: Ed25519PrivateKey,
    now: datetime,
    progress: Callable[[str], None] = lambda _: None,
    *,
    only_past_hours: bool = False,
) -> list[Path]:
    """Sign what has been recorded since the last digest; give the new files.

    ``only_past_hours`` leaves the running hour to a later call.
    """
    busy = f"another stackbus writes digests into {folder}"
    with locked(folder / ".lock", _PATIENCE, busy):
        last = next(reversed(written(folder)), None)
        digest = last.read() if last else None
        number, previous = (digest.number, last.sha256) if digest and last else (0, BEGINNING)
        heads = dict(digest.heads) if digest else {}
        hour = digest.hour if digest else ""
        made = []
        for group in _groups(unsigned(history, heads), hour):
            hour = group[0][0]
            if only_past_hours and hour >= _hour(now):
                break
            batches = [one for _, one in group]
            number += 1
            progress(f"signing {sum(one.count for one in batches):,} events of {hour}:00")
            heads.update({one.recorder: Head(one.batch, one.chain) for one in batches})
            content = msgspec.json.encode(
                Digest(number, hour, now, previous, dict(heads), tuple(_filled(history, batches)))
            )
            packed = gzip.compress(content, mtime=0)
            path = folder / f"{number:06d}-{hour}.json.gz"
            write_private(_signature(path), key.sign(packed))
            write_private(path, packed)
            previous = hashlib.sha256(packed).hexdigest()
            made.append(path)
        return made


def written(folder: Path) -> list[Written]:
    """Give the digests of a folder, in order."""
    found = []
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        if match := _NAME.fullmatch(path.name):
            try:
                found.append(Written(path, int(match[1]), path.read_bytes()))
            except OSError as error:
                raise StackbusError(f"{path}: cannot be read: {error.strerror}") from error
    return found


def unsigned(history: History, heads: dict[str, Head]) -> list[_Unsigned]:
    """Give the batches that come after ``heads``, in the order in which they were recorded."""
    found = history.ask(
        "batches_after",
        _Unsigned,
        recorders=list(heads),
        batches=[head.batch for head in heads.values()],
    )
    by_chain: dict[str, list[_Unsigned]] = {}
    for one in found:
        by_chain.setdefault(one.recorder, []).append(one)
    # Within a chain the number is the order, whatever the clock said.
    for chain in by_chain.values():
        for before, one in pairwise(chain):
            one.received = max(one.received, before.received)
    ordered = [one for chain in by_chain.values() for one in chain]
    return sorted(ordered, key=lambda one: (one.received, one.recorder, one.batch))


def private_key(path: Path) -> Ed25519PrivateKey:
    """Read the administrator's key, PEM. Raises InputError."""
    try:
        key = serialization.load_pem_private_key(path.read_bytes(), None)
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from None
    except (ValueError, TypeError):
        key = None
    if not isinstance(key, Ed25519PrivateKey):
        raise InputError(
            f"{path}: no private Ed25519 key without a passphrase; make one with: "
            "openssl genpkey -algorithm ed25519 -out signing.pem"
        )
    return key


def public_key(path: Path) -> Ed25519PublicKey:
    """Read the public key that verifies, PEM, or the private one that has it. Raises InputError."""
    try:
        data = path.read_bytes()
        if b"PRIVATE" in data:
            return private_key(path).public_key()
        key = serialization.load_pem_public_key(data)
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from None
    except (ValueError, TypeError):
        key = None
    if not isinstance(key, Ed25519PublicKey):
        raise InputError(
            f"{path}: no public Ed25519 key; take it from the private one with: "
            "openssl pkey -in signing.pem -pubout -out signing.pub"
        )
    return key


def _groups(batches: Sequence[_Unsigned], earliest: str) -> Iterator[list[tuple[str, _Unsigned]]]:
    """Give the batches hour by hour, never before ``earliest``, and not too many at once."""
    group: list[tuple[str, _Unsigned]] = []
    count = 0
    for one in batches:
        hour = max(_hour(one.received), earliest)
        if group and (hour != group[0][0] or count + one.count > _MOST_EVENTS):
            yield group
            group, count = [], 0
        group.append((hour, one))
        count += one.count
    if group:
        yield group


def _filled(history: History, batches: Sequence[_Unsigned]) -> Iterator[Batch]:
    """Give the batches with their events, asked for a few batches at a time."""
    for recorder in dict.fromkeys(one.recorder for one in batches):
        chain = [one for one in batches if one.recorder == recorder]
        while chain:
            count = 0
            some: list[_Unsigned] = []
            while chain and (not some or count + chain[0].count <= _AT_ONCE):
                some.append(chain.pop(0))
                count += some[-1].count
            events: dict[int, list[Listed]] = {}
            for event in history.ask(
                "batch_events",
                _Event,
                recorder=recorder,
                first=some[0].batch,
                last=some[-1].batch,
            ):
                events.setdefault(event.batch, []).append(Listed(event.id, event.index, event.hash))
            for one in some:
                yield Batch(
                    recorder,
                    one.batch,
                    one.month,
                    one.previous,
                    one.chain,
                    tuple(events.get(one.batch, ())),
                )


def _signature(path: Path) -> Path:
    return path.with_name(path.name + ".sig")


def _hour(moment: datetime) -> str:
    return f"{moment:%Y-%m-%dT%H}"
