"""Verify a history: find what was changed, removed, added or reordered since it was recorded.

Called by ``stackbus verify``. Needs the history and the digests alone. Each event is hashed anew;
what is signed is held against its digest, event by event; what is not signed yet against the
chain of batches that stands in the history itself.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from stackbus.history.history import History, Row
from stackbus.history.proof import BEGINNING, SHORT, batch_hash, event_hash
from stackbus.query.digests import Batch, Digest, Head, Listed, unsigned, written

_AT_ONCE = 5000
_COLUMNS = (
    ", ".join(f"`{name}`" for name in Row.__struct_fields__)
    + ", recorder, batch, position, hash, previous, chain"
)


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is not as it was recorded.

    ``kind``: changed, removed, added, reordered, or digest. ``event`` is ``<id> <index>`` where it
    is about one, ``place`` where it stands or stood.
    """

    kind: str
    event: str
    place: str
    message: str


@dataclass(slots=True)
class Verdict:
    """What was looked at, in events, and what was found."""

    signed: int = 0
    unsigned: int = 0
    expired: int = 0
    digests: int = 0
    signed_until: datetime | None = None
    findings: list[Finding] = field(default_factory=list)

    def to_json(self) -> dict[str, object]:
        """Return the verdict as ``verify -o json`` prints it."""
        return {
            "signed": self.signed,
            "unsigned": self.unsigned,
            "expired": self.expired,
            "digests": self.digests,
            "signed_until": str(self.signed_until) if self.signed_until else None,
            "findings": [asdict(finding) for finding in self.findings],
            "verified": not self.findings,
        }


class _Placed(Row, frozen=True, kw_only=True):
    recorder: str
    batch: int
    position: int
    hash: str
    previous: str
    chain: str


class _Month(msgspec.Struct):
    number: int


class _Key(msgspec.Struct):
    id: str
    index: int


def verify(
    history: History,
    folder: Path,
    key: Ed25519PublicKey | None,
    expired_before: datetime | None,
    progress: Callable[[str], None] = lambda _: None,
) -> Verdict:
    """Verify all of a history; ``expired_before``: months that ended then may be gone as a whole.

    Without a ``key`` nothing counts as signed.
    """
    verdict = Verdict()
    there = {one.number for one in history.ask("months", _Month, before=999912)}
    heads: dict[str, Head] = {}
    for digest in _digests(folder, key, verdict) if key else ():
        for some in _some(digest.batches):
            progress(f"verifying {digest.hour}:00, {verdict.signed:,} signed events so far")
            present = [one for one in some if one.month in there]
            for gone in (one for one in some if one.month not in there):
                _gone(gone, expired_before, verdict)
            _signed(history, present, verdict)
        heads = digest.heads
        verdict.signed_until = digest.made
    _unsigned(history, heads, expired_before, verdict, progress)
    _moved(verdict)
    return verdict


def _digests(folder: Path, key: Ed25519PublicKey, verdict: Verdict) -> Iterator[Digest]:
    """Give the digests in order; tell of one that is missing, foreign or broken."""

    def say(place: str, message: str) -> None:
        verdict.findings.append(Finding("digest", "", place, message))

    expected, previous = 1, BEGINNING
    for one in written(folder):
        if one.number != expected:
            say(f"digest {expected}", f"missing: after {expected - 1} comes {one.number}")
        try:
            digest = one.read()
        except ValueError as error:
            say(one.path.name, f"changed: {error}")
            digest = None
        if digest is not None and not one.is_signed(key):
            say(one.path.name, "its signature is missing, or not of this key")
            digest = None
        if digest is not None:
            if one.number == expected and digest.previous != previous:
                say(one.path.name, "it names another one before it: that one was exchanged")
            if digest.number != one.number:
                say(one.path.name, f"it is number {digest.number}: renamed")
            verdict.digests += 1
            yield digest
        expected, previous = one.number + 1, one.sha256


def _some(batches: Sequence[Batch]) -> Iterator[list[Batch]]:
    """Give consecutive batches of one chain, a few at a time."""
    some: list[Batch] = []
    count = 0
    for one in batches:
        follows = some and some[-1].recorder == one.recorder and some[-1].batch + 1 == one.batch
        if some and (not follows or count + len(one.events) > _AT_ONCE):
            yield some
            some, count = [], 0
        some.append(one)
        count += len(one.events)
    if some:
        yield some


def _gone(batch: Batch, expired_before: datetime | None, verdict: Verdict) -> None:
    """Tell of a batch whose month is not there: retention took it, or somebody did."""
    if _is_expired(batch.month, expired_before):
        verdict.expired += len(batch.events)
        return
    verdict.findings.extend(
        Finding(
            "removed",
            f"{event.id} {event.index}",
            _place(batch.recorder, batch.batch, position),
            f"the whole month {batch.month} is gone, and no retention explains it",
        )
        for position, event in enumerate(batch.events)
    )


def _is_expired(month: int, expired_before: datetime | None) -> bool:
    if expired_before is None:
        return False
    return month < expired_before.year * 100 + expired_before.month


def _signed(history: History, batches: Sequence[Batch], verdict: Verdict) -> None:
    """Hold batches against what their digest says of them."""
    if not batches:
        return
    found: dict[int, list[_Placed]] = {}
    for row in _rows(history, batches[0].recorder, batches[0].batch, batches[-1].batch):
        found.setdefault(row.batch, []).append(row)
    for batch in batches:
        verdict.signed += len(batch.events)
        before = len(verdict.findings)
        rows = found.get(batch.batch, [])
        hashes = _hold(history, batch, rows, verdict)
        if len(verdict.findings) == before and hashes is not None:
            chain = batch_hash(batch.previous, batch.recorder, batch.batch, hashes)
            marks = {(row.previous, row.chain) for row in rows}
            if chain != batch.chain or marks - {(batch.previous, batch.chain)}:
                verdict.findings.append(
                    Finding(
                        "changed",
                        "",
                        _place(batch.recorder, batch.batch),
                        "the batch as a whole is not the one that was signed",
                    )
                )


def _hold(
    history: History, batch: Batch, rows: Sequence[_Placed], verdict: Verdict
) -> list[str] | None:
    """Hold one batch's rows against its digest; give their hashes if each is where it belongs."""
    expected = {(one.id, one.index): position for position, one in enumerate(batch.events)}
    counted = Counter(row.position for row in rows)
    hashes: dict[int, str] = {}
    seen = set()

    def say(kind: str, event: str, position: int, message: str) -> None:
        place = _place(batch.recorder, batch.batch, position)
        verdict.findings.append(Finding(kind, event, place, message))

    for row in rows:
        key, name = (row.id, row.index), f"{row.id} {row.index}"
        full = event_hash(row.event())
        if key in expected and key not in seen:
            seen.add(key)
            position = expected[key]
            if full[:SHORT] != batch.events[position].hash:
                say("changed", name, position, _which(row))
            elif row.position != position:
                say("reordered", name, row.position, f"it stood at position {position}")
            elif row.hash != full[:SHORT]:
                say("changed", name, position, "its hash in the history was exchanged")
            hashes[position] = full
        elif (
            row.position < len(batch.events)
            and counted[row.position] == 1
            and not any((one.id, one.index) == _key(batch.events[row.position]) for one in rows)
        ):
            was = batch.events[row.position]
            seen.add(_key(was))
            say("changed", f"{was.id} {was.index}", row.position, f"it says {name} now")
        else:
            say("added", name, row.position, f"not in the digest; {_which(row)}")
    for key, position in expected.items():
        if key in seen:
            continue
        if _is_elsewhere(history, key, batch):
            return None  # a server kept the copy that another recorder stored at the same moment
        say("removed", f"{key[0]} {key[1]}", position, "it is no longer in the history")
    return [hashes[position] for position in sorted(hashes)]


def _is_elsewhere(history: History, key: tuple[str, int], batch: Batch) -> bool:
    if history.has_one_writer:
        return False
    found = history.ask(
        "event_elsewhere",
        _Key,
        id=key[0],
        index=key[1],
        recorder=batch.recorder,
        batch=batch.batch,
    )
    return next(found, None) is not None


def _unsigned(
    history: History,
    heads: Mapping[str, Head],
    expired_before: datetime | None,
    verdict: Verdict,
    progress: Callable[[str], None],
) -> None:
    """Hold what no digest covers against the chain that it is part of itself."""
    ends = dict(heads)
    for one in sorted(unsigned(history, dict(heads)), key=lambda one: (one.recorder, one.batch)):
        progress(f"verifying what is not signed yet, {verdict.unsigned:,} events so far")
        rows = list(_rows(history, one.recorder, one.batch, one.batch))
        verdict.unsigned += len(rows)
        end = ends.get(one.recorder, Head(-1, BEGINNING))
        place = _place(one.recorder, one.batch)

        def say(kind: str, message: str, event: str = "", place: str = place) -> None:
            verdict.findings.append(Finding(kind, event, place, message))

        # Retention may have taken old months' batches before they were signed.
        if one.batch != end.batch + 1 and expired_before is None:
            say("removed", f"batches {end.batch + 1} to {one.batch - 1} are gone")
        elif one.batch == end.batch + 1 and one.previous != end.chain:
            say("changed", "it does not follow the batch before it")
        before = len(verdict.findings)
        for row in rows:
            if event_hash(row.event())[:SHORT] != row.hash:
                say("changed", _which(row), f"{row.id} {row.index}")
        positions = [row.position for row in rows]
        for position, count in Counter(positions).items():
            if count > 1:
                twice = ", ".join(
                    f"{row.id} {row.index}" for row in rows if row.position == position
                )
                say("added", f"position {position} stands there {count} times", twice)
        if missing := set(range(max(positions) + 1)) - set(positions):
            say("removed", f"positions {sorted(missing)[:20]} are empty; no digest names them yet")
        hashes = [event_hash(row.event()) for row in rows]
        chain = batch_hash(one.previous, one.recorder, one.batch, hashes)
        if len(verdict.findings) == before and chain != one.chain:
            say(
                "reordered",
                f"its {len(rows)} events are not those that were recorded, in this order: one was "
                "moved, exchanged with its hash, or taken from the end; no digest says which yet",
            )
        ends[one.recorder] = Head(one.batch, one.chain)


def _moved(verdict: Verdict) -> None:
    """Say of an event that was taken from one place and stands in another that it was moved."""
    removed = {one.event: one for one in verdict.findings if one.kind == "removed" and one.event}
    added = {one.event: one for one in verdict.findings if one.kind == "added" and one.event}
    for event in removed.keys() & added.keys():
        was, now = removed[event], added[event]
        verdict.findings.remove(was)
        place = verdict.findings.index(now)
        verdict.findings[place] = Finding("reordered", event, now.place, f"it stood at {was.place}")


def _rows(history: History, recorder: str, first: int, last: int) -> Iterator[_Placed]:
    return history.ask(
        "batch_rows", _Placed, columns=_COLUMNS, recorder=recorder, first=first, last=last
    )


def _key(event: Listed) -> tuple[str, int]:
    return event.id, event.index


def _which(row: _Placed) -> str:
    return f"{row.type} of {row.time:%Y-%m-%d %H:%M:%S}"


def _place(recorder: str, batch: int, position: int | None = None) -> str:
    where = f"{recorder}, batch {batch}"
    return where if position is None else f"{where}, position {position}"
