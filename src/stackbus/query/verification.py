"""Verification: find what was changed, removed, added or reordered since it was recorded.

``stackbus verify`` calls ``verify_history``, which needs the history and the digests alone. It
hashes each event again. Signed events are compared with their digest, one by one; events that no
digest lists yet are compared with the chain of batches in the history itself.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from stackbus.events.model import Event
from stackbus.history.chain import FIRST_PREVIOUS, SHORT, batch_hash, event_hash
from stackbus.history.events import LinkedEvent
from stackbus.history.history import History
from stackbus.query.signing import (
    Digest,
    DigestBatch,
    DigestEvent,
    Head,
    UnsignedBatch,
    read_digests,
    unsigned_batches,
)

_EVENTS_PER_QUERY = 5000

Progress = Callable[[str], None]
Identity = tuple[str, int]
"""The ``id`` and the ``index`` of an event."""


@dataclass(frozen=True, slots=True)
class Discrepancy:
    """A difference between the history and what was recorded.

    ``kind`` is changed, removed, added, reordered, or digest. ``event`` is the ``<id> <index>`` of
    the event, if it is about one; ``place`` is its place in the chain, or the digest's file.
    """

    kind: str
    event: str
    place: str
    message: str


@dataclass(slots=True)
class Verdict:
    """The result of a verification: numbers of events and digests, and the discrepancies."""

    signed: int = 0
    unsigned: int = 0
    expired: int = 0
    digests: int = 0
    signed_until: datetime | None = None
    discrepancies: list[Discrepancy] = field(default_factory=list)

    def to_json(self) -> dict[str, object]:
        """Return the verdict as ``verify -o json`` prints it."""
        return {
            "signed": self.signed,
            "unsigned": self.unsigned,
            "expired": self.expired,
            "digests": self.digests,
            "signed_until": str(self.signed_until) if self.signed_until else None,
            "findings": [asdict(discrepancy) for discrepancy in self.discrepancies],
            "verified": not self.discrepancies,
        }

    def report(self, kind: str, location: str, message: str, event: str = "") -> None:
        """Add a discrepancy."""
        self.discrepancies.append(Discrepancy(kind, event, location, message))


class _Month(msgspec.Struct):
    number: int


class _Identity(msgspec.Struct):
    id: str
    index: int


def verify_history(
    history: History,
    folder: Path,
    key: Ed25519PublicKey | None,
    expired_before: datetime | None,
    report_progress: Progress = lambda _: None,
) -> Verdict:
    """Verify all of a history against the digests in ``folder``.

    Without a ``key`` no digest counts. Months that ended before ``expired_before`` may be missing
    as a whole, since the retention drops them.
    """
    verdict = Verdict()
    months = {row.number for row in history.session.query("months", _Month, before=999912)}
    heads: dict[str, Head] = {}
    for digest in _valid_digests(folder, key, verdict) if key else ():
        for group in _consecutive(digest.batches):
            report_progress(f"verifying {digest.hour}:00, {verdict.signed:,} signed events so far")
            for batch in group:
                if batch.month not in months:
                    _verify_missing_month(batch, expired_before, verdict)
            present = [batch for batch in group if batch.month in months]
            _verify_signed(history, present, verdict)
        heads = digest.heads
        verdict.signed_until = digest.made
    _verify_unsigned(history, heads, expired_before, verdict, report_progress)
    _join_moved(verdict)
    return verdict


def _valid_digests(folder: Path, key: Ed25519PublicKey, verdict: Verdict) -> Iterator[Digest]:
    """Yield the signed digests in order; report one that is missing, foreign or damaged."""
    number, previous = 1, FIRST_PREVIOUS
    for file in read_digests(folder):
        name = file.path.name
        if file.number != number:
            message = f"missing: the file after {number - 1} is {file.number}"
            verdict.report("digest", f"digest {number}", message)
        try:
            digest = file.decode()
        except ValueError as error:
            verdict.report("digest", name, f"changed: {error}")
            digest = None
        if digest is not None and not file.is_signed_by(key):
            verdict.report("digest", name, "its signature is missing, or another key's")
            digest = None
        if digest is not None:
            if file.number == number and digest.previous != previous:
                verdict.report("digest", name, "the digest before it is not the one that it names")
            if digest.number != file.number:
                verdict.report("digest", name, f"renamed: it is number {digest.number}")
            verdict.digests += 1
            yield digest
        number, previous = file.number + 1, file.sha256


def _consecutive(batches: Sequence[DigestBatch]) -> Iterator[list[DigestBatch]]:
    """Yield groups of consecutive batches of one chain, as large as a query should be."""
    group: list[DigestBatch] = []
    count = 0
    for batch in batches:
        follows = (
            group and group[-1].recorder == batch.recorder and group[-1].batch + 1 == batch.batch
        )
        if group and (not follows or count + len(batch.events) > _EVENTS_PER_QUERY):
            yield group
            group, count = [], 0
        group.append(batch)
        count += len(batch.events)
    if group:
        yield group


def _verify_missing_month(
    batch: DigestBatch, expired_before: datetime | None, verdict: Verdict
) -> None:
    """Count the events of a batch as expired, or report them as removed."""
    if expired_before and batch.month < expired_before.year * 100 + expired_before.month:
        verdict.expired += len(batch.events)
        return
    for position, event in enumerate(batch.events):
        verdict.report(
            "removed",
            _location(batch.recorder, batch.batch, position),
            f"all events of month {batch.month} are missing, and the retention has not reached it",
            f"{event.id} {event.index}",
        )


def _verify_signed(history: History, batches: Sequence[DigestBatch], verdict: Verdict) -> None:
    """Compare consecutive batches with their digest."""
    if not batches:
        return
    rows_by_batch: dict[int, list[LinkedEvent]] = {}
    for row in history.events.batches(batches[0].recorder, batches[0].batch, batches[-1].batch):
        rows_by_batch.setdefault(row.link.batch, []).append(row)
    for batch in batches:
        verdict.signed += len(batch.events)
        rows = rows_by_batch.get(batch.batch, [])
        hashes = _SignedBatch(history, batch, rows, verdict).compare()
        if hashes is None:
            continue
        links = {(row.link.previous, row.link.chain, row.link.hash_version) for row in rows}
        signed_link = (batch.previous, batch.chain, batch.hash_version)
        chain = batch_hash(batch.previous, batch.recorder, batch.batch, batch.hash_version, hashes)
        if chain != batch.chain or links - {signed_link}:
            verdict.report(
                "changed",
                _location(batch.recorder, batch.batch),
                "the batch as a whole differs from the signed one",
            )


class _SignedBatch:
    """One batch of a digest beside its rows in the history."""

    def __init__(
        self, history: History, batch: DigestBatch, rows: Sequence[LinkedEvent], verdict: Verdict
    ) -> None:
        self._history = history
        self._batch = batch
        self._rows = rows
        self._verdict = verdict
        self._positions = {_identity(event): n for n, event in enumerate(batch.events)}
        self._hashes: dict[int, str] = {}
        self._accounted: set[Identity] = set()

    def compare(self) -> list[str] | None:
        """Report each difference; return the events' full hashes in order if there is none.

        Return None too if a row is in another batch, on a server that kept the copy of another
        recorder: then the batch as a whole cannot be hashed.
        """
        discrepancies = len(self._verdict.discrepancies)
        for row in self._rows:
            self._compare_row(row)
        for identity, position in self._positions.items():
            if identity not in self._accounted:
                if self._is_in_other_batch(identity):
                    return None
                name = f"{identity[0]} {identity[1]}"
                self._report("removed", name, position, "it is no longer in the history")
        if len(self._verdict.discrepancies) > discrepancies:
            return None
        return [self._hashes[position] for position in sorted(self._hashes)]

    def _compare_row(self, row: LinkedEvent) -> None:
        event, link = row.event, row.link
        identity, name = _identity(event), _name(event)
        if identity in self._positions and identity not in self._accounted:
            self._accounted.add(identity)
            position = self._positions[identity]
            full_hash = event_hash(event, link.hash_version)
            if full_hash[:SHORT] != self._batch.events[position].hash:
                self._report("changed", name, position, _describe(event))
            elif link.position != position:
                message = f"it was recorded at position {position}"
                self._report("reordered", name, link.position, message)
            elif link.hash != full_hash[:SHORT]:
                self._report("changed", name, position, "its hash in the history was replaced")
            self._hashes[position] = full_hash
        elif (replaced := self._replaced_event(link.position)) is not None:
            self._accounted.add(_identity(replaced))
            message = f"its identity is {name} now"
            self._report("changed", f"{replaced.id} {replaced.index}", link.position, message)
        else:
            message = f"it is not in the digest: {_describe(event)}"
            self._report("added", name, link.position, message)

    def _replaced_event(self, position: int) -> DigestEvent | None:
        """Return the signed event at a position that has one row, which is not that event's."""
        if position >= len(self._batch.events):
            return None
        signed = self._batch.events[position]
        identities = {_identity(row.event) for row in self._rows}
        rows = sum(row.link.position == position for row in self._rows)
        return signed if rows == 1 and _identity(signed) not in identities else None

    def _is_in_other_batch(self, identity: Identity) -> bool:
        if self._history.session.has_one_writer:
            return False
        rows = self._history.session.query(
            "event_in_other_batch",
            _Identity,
            id=identity[0],
            index=identity[1],
            recorder=self._batch.recorder,
            batch=self._batch.batch,
        )
        return next(rows, None) is not None

    def _report(self, kind: str, event: str, position: int, message: str) -> None:
        location = _location(self._batch.recorder, self._batch.batch, position)
        self._verdict.report(kind, location, message, event)


def _verify_unsigned(
    history: History,
    heads: Mapping[str, Head],
    expired_before: datetime | None,
    verdict: Verdict,
    report_progress: Progress,
) -> None:
    """Compare the batches that no digest lists with the chains that they are part of."""
    ends = dict(heads)
    batches = unsigned_batches(history, dict(heads))
    for batch in sorted(batches, key=lambda batch: (batch.recorder, batch.batch)):
        report_progress(f"verifying unsigned batches, {verdict.unsigned:,} events so far")
        end = ends.get(batch.recorder, Head(-1, FIRST_PREVIOUS))
        location = _location(batch.recorder, batch.batch)
        # The retention may have dropped a batch of an old month before it was signed.
        if batch.batch != end.batch + 1 and expired_before is None:
            message = f"batches {end.batch + 1} to {batch.batch - 1} are missing"
            verdict.report("removed", location, message)
        elif batch.batch == end.batch + 1 and batch.previous != end.chain:
            verdict.report("changed", location, "it does not follow the batch before it")
        _verify_unsigned_batch(history, batch, verdict)
        ends[batch.recorder] = Head(batch.batch, batch.chain)


def _verify_unsigned_batch(history: History, batch: UnsignedBatch, verdict: Verdict) -> None:
    """Compare the rows of a batch with their hashes and with the batch's hash."""
    rows = list(history.events.batches(batch.recorder, batch.batch, batch.batch))
    verdict.unsigned += len(rows)
    location = _location(batch.recorder, batch.batch)
    discrepancies = len(verdict.discrepancies)
    hashes = [event_hash(row.event, row.link.hash_version) for row in rows]
    for row, full_hash in zip(rows, hashes, strict=True):
        if not full_hash or full_hash[:SHORT] != row.link.hash:
            verdict.report("changed", location, _describe(row.event), _name(row.event))
    counts = Counter(row.link.position for row in rows)
    for position, count in counts.items():
        if count > 1:
            names = ", ".join(_name(row.event) for row in rows if row.link.position == position)
            verdict.report("added", location, f"position {position} has {count} events", names)
    if missing := set(range(max(counts) + 1)) - set(counts):
        message = f"positions {sorted(missing)[:20]} are missing; no digest names their events yet"
        verdict.report("removed", location, message)
    chain = batch_hash(batch.previous, batch.recorder, batch.batch, batch.hash_version, hashes)
    if len(verdict.discrepancies) == discrepancies and chain != batch.chain:
        message = (
            f"its {len(rows)} events differ from the recorded ones, or their order does: an event "
            "was moved, replaced with its hash, or removed from the end; no digest names it yet"
        )
        verdict.report("reordered", location, message)


def _join_moved(verdict: Verdict) -> None:
    """Report an event that was removed in one place and added in another as reordered."""
    removed, added = (
        {
            entry.event: entry
            for entry in verdict.discrepancies
            if entry.kind == kind and entry.event
        }
        for kind in ("removed", "added")
    )
    for event in removed.keys() & added.keys():
        old, new = removed[event], added[event]
        verdict.discrepancies.remove(old)
        number = verdict.discrepancies.index(new)
        message = f"it was recorded at {old.place}"
        verdict.discrepancies[number] = Discrepancy("reordered", event, new.place, message)


def _identity(event: Event | DigestEvent) -> Identity:
    return event.id, event.index


def _name(event: Event) -> str:
    return f"{event.id} {event.index}"


def _describe(event: Event) -> str:
    return f"{event.type} of {event.time:%Y-%m-%d %H:%M:%S}"


def _location(recorder: str, batch: int, position: int | None = None) -> str:
    suffix = "" if position is None else f", position {position}"
    return f"{recorder}, batch {batch}{suffix}"
