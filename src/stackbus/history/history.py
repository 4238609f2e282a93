"""The history: store events once, ask for them again. What speaks to an Engine (``engine.py``).

Called by ``sinks/`` (``store``), ``query/`` (``ask``) and the doors that open it (``wiring.py``).
What is stored is there when ``store`` returns, and it is there once, whoever stores it again: a
notification that the history has is not inserted a second time. Recorders that share an embedded
history take turns; on a server two that insert the same at the same moment make rows that replace
each other, which is why queries read FINAL there.
"""

from __future__ import annotations

import base64
import hashlib
import re
import struct
import threading
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from importlib import resources
from typing import Any, Protocol, TypeVar

import msgspec

from stackbus.errors import HistoryError, HistoryUnreachable
from stackbus.events.model import Event
from stackbus.history.proof import BEGINNING, SHORT, batch_hash, line_hash

_MIGRATION = re.compile(r"(\d{4})_\w+\.sql")
_QUERY = re.compile(r"^-- name: (\w+)\n", re.MULTILINE)
_COMMENT = re.compile(r"^[ ]*--.*\n|[ ]+--.*$", re.MULTILINE)
_EPOCH, _MICROSECOND = datetime(1970, 1, 1, tzinfo=UTC), timedelta(microseconds=1)
_encode = msgspec.json.Encoder().encode

R = TypeVar("R", bound=msgspec.Struct)

Parameters = Mapping[str, Any]
Piece = bytes | memoryview


class Engine(Protocol):
    """What runs SQL. Raises HistoryError, or HistoryUnreachable for what may pass.

    ``has_one_writer``: ``exclusive`` does hold all other writers back.
    """

    has_one_writer: bool

    def read(self, sql: str, parameters: Parameters) -> bytes:
        """Run a query; give its rows as JSON, one object a line."""

    def run(self, sql: str) -> None:
        """Run a statement that gives nothing."""

    def write(self, table: str, rows: Sequence[Piece]) -> None:
        """Insert rows in one block: pieces of a text that has a JSON object on each line."""

    def exclusive(self) -> AbstractContextManager[None]:
        """Hold other processes' writes back, where the engine is shared by processes."""

    def close(self) -> None:
        """Let the engine go."""


@dataclass(frozen=True, slots=True)
class Quarantined:
    """A body that could not be read: whole, with the reason and where it came from."""

    received: datetime
    channel: str
    origin: str
    service: str
    reason: str
    body: bytes = field(repr=False)

    @property
    def digest(self) -> str:
        """Identify it: the same body is kept once."""
        return hashlib.sha256(self.body).hexdigest()

    def to_json(self) -> dict[str, object]:
        """Return the entry as ``quarantine -o json`` prints it."""
        return {
            "digest": self.digest,
            "received": self.received.isoformat(),
            "channel": self.channel,
            "origin": self.origin,
            "service": self.service,
            "bytes": len(self.body),
            "reason": self.reason,
        }


@dataclass(frozen=True, slots=True)
class Stored:
    """What became of one ``store``: notifications by service, new or known already."""

    new_by_service: Counter[str]
    known_by_service: Counter[str]
    quarantined: int

    @property
    def new(self) -> int:
        """Count those that are in the history since."""
        return self.new_by_service.total()

    @property
    def known(self) -> int:
        """Count those that were there."""
        return self.known_by_service.total()


class Prepared(msgspec.Struct, frozen=True, gc=False):
    """An event ready to be stored: its JSON as the table takes it, and its hash.

    Beside them only what is asked of it on its way: to hold thousands of whole events for as long
    as a batch takes was a seventh of the time of reading them, and much memory.
    """

    id: str
    index: int
    time: datetime
    received: datetime
    service: str
    type: str
    resource_type: str
    channel: str
    hash: str
    line: bytes

    @classmethod
    def of(cls, event: Event) -> Prepared:
        """Prepare an event.

        An object stays the text that it is (``input_format_json_read_objects_as_strings``); a
        payload that is none travels as the text of its JSON.
        """
        line = _encode(event)
        digest = line_hash(line)
        if bytes(event.payload)[:1] != b"{":
            text = _encode(bytes(event.payload).decode())
            line = _encode(msgspec.structs.replace(event, payload=msgspec.Raw(text)))
        return cls(
            event.id,
            event.index,
            event.time,
            event.received,
            event.service,
            event.type,
            event.resource_type,
            event.channels[0],
            digest,
            line,
        )


@dataclass(frozen=True, slots=True)
class Layout:
    """How the tables are made: on one server, or replicated over the servers of a cluster."""

    cluster: str | None = None


@dataclass(frozen=True, slots=True)
class _Pending:
    """A batch that is being inserted: what is written, and where the chain goes on from it."""

    rows: Sequence[Piece] = field(repr=False)
    chain: str
    ids: frozenset[str]


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """One event as it stands in the table; ``event`` gives it back as it was stored."""

    id: str
    index: int
    time: datetime
    received: datetime
    service: str
    type: str
    action: str
    phase: str
    outcome: str
    priority: str
    publisher: str
    host: str
    resource_type: str
    resource_id: str
    resource_name: str
    project_id: str
    user_id: str
    user_name: str
    actor_project_id: str
    request_id: str
    global_request_id: str
    address: str
    attributes: str
    payload: str = ""
    channels: tuple[str, ...]

    def event(self) -> Event:
        """Give the event, byte for byte as it was stored."""
        values = {name: getattr(self, name) for name in _SHARED}
        return Event(
            attributes=msgspec.json.decode(self.attributes or "{}"),
            payload=msgspec.Raw((self.payload or "null").encode()),
            **values,
        )


_SHARED = tuple(name for name in Row.__struct_fields__ if name not in {"attributes", "payload"})


class _Known(msgspec.Struct):
    id: str
    channels: list[str]


class _Bytes(msgspec.Struct):
    bytes: int


class _Number(msgspec.Struct):
    number: int


class _Count(msgspec.Struct):
    count: int


class _Migrated(msgspec.Struct):
    number: int
    at: str


class _Kept(msgspec.Struct):
    digest: str
    received: datetime
    channel: str
    origin: str
    service: str
    reason: str
    body: str
    released: int = 0


class _Told(msgspec.Struct):
    id: str
    time: datetime
    received: datetime
    service: str
    type: str
    channel: str


class _Position(msgspec.Struct):
    channel: str
    source: str
    position: str
    at: datetime


class History:
    """The history behind one engine; ``recorder`` names whose chain of batches is written.

    Several channels may store through one History, each in a thread of its own.
    """

    def __init__(self, engine: Engine, layout: Layout, recorder: str) -> None:
        self._engine = engine
        self._layout = layout
        self._recorder = recorder
        self._batch = 0
        self._previous = BEGINNING
        self._pending: _Pending | None = None
        self._turn = threading.Lock()

    def close(self) -> None:
        """Let the engine go."""
        self._engine.close()

    @property
    def has_one_writer(self) -> bool:
        """Tell whether no two recorders can store the same event at the same moment."""
        return self._engine.has_one_writer

    def migrate(self) -> None:
        """Bring the tables up to date. Raises HistoryError if they are newer than this stackbus."""
        with self._engine.exclusive():
            self._run(
                "CREATE TABLE IF NOT EXISTS migrations $ON_CLUSTER (number UInt32, at DateTime) "
                "ENGINE = $REPLACING() ORDER BY number"
            )
            had = {one.number for one in self.ask("migrations", _Number)}
            newest = max(migrations())
            if had and max(had) > newest:
                raise HistoryError(
                    f"this history was written by a newer stackbus (migration {max(had)}, this "
                    f"one knows {newest}): upgrade stackbus"
                )
            for number, text in migrations().items():
                if number not in had:
                    self._run(text)
                    self._engine.write("migrations", _lines([_Migrated(number, _now())]))

    # What the recorder writes.

    def store(self, prepared: Sequence[Prepared], quarantined: Sequence[Quarantined]) -> Stored:
        """Store what one batch brought, once. Returns when it is on disk.

        Safe to call again with the same after a failure.
        """
        with self._turn, self._engine.exclusive():
            late = self._settled()
            if quarantined:
                self._engine.write("quarantine", _lines([_kept(one) for one in quarantined]))
            distinct = {(one.id, one.index): one for one in prepared}
            known = self._known(distinct.values())
            fresh: dict[tuple[int, int], list[Prepared]] = {}
            again: dict[tuple[str, str], Prepared] = {}
            for one in distinct.values():
                if one.id not in known:
                    fresh.setdefault((one.time.year, one.time.month), []).append(one)
                elif one.channel not in known[one.id]:
                    again[one.id, one.channel] = one
            for month in fresh.values():
                self._insert(month)
            if again:
                self._engine.write("told", _lines([_told(one) for one in again.values()]))
        there = known.keys() - late
        services = {one.id: one.service for one in distinct.values()}
        new = Counter(service for id_, service in services.items() if id_ not in there)
        told = Counter(one.service for one in prepared if one.index == 0)
        return Stored(new, told - new, len(quarantined))

    def release(self, quarantined: Iterable[Quarantined]) -> None:
        """Take bodies out of the quarantine that could be read since."""
        rows = [_Kept(**{**_fields(_kept(one)), "body": "", "released": 1}) for one in quarantined]
        if rows:
            self._engine.write("quarantine", _lines(rows))

    def save_positions(self, channel: str, positions: Mapping[str, str]) -> None:
        """Remember how far ``channel`` has been read, by source."""
        now = datetime.now(UTC)
        rows = [_Position(channel, source, where, now) for source, where in positions.items()]
        if rows:
            self._engine.write("positions", _lines(rows))

    def expire(self, before: datetime) -> list[int]:
        """Drop the months that ended before ``before``; give them as 202611."""
        last = before.year * 100 + before.month
        gone = [one.number for one in self.ask("months", _Number, before=last)]
        for month in gone:
            for table in ("events", "told"):
                self._run(f"ALTER TABLE $LOCAL({table}) $ON_CLUSTER DROP PARTITION {month:d}")
        return gone

    # What is asked.

    def quarantined_bytes(self) -> int:
        """Tell how much the quarantine holds."""
        return next(iter(self.ask("quarantined_bytes", _Bytes))).bytes

    def quarantined(self) -> Iterator[Quarantined]:
        """Give what is in the quarantine, a few at a time."""
        after = ""
        while True:
            page = list(self.ask("quarantine", _Kept, after=after))
            for one in page:
                after = one.digest
                yield Quarantined(
                    one.received,
                    one.channel,
                    one.origin,
                    one.service,
                    one.reason,
                    base64.b64decode(one.body),
                )
            if not page:
                return

    def channels_since(self, times: Iterable[datetime]) -> dict[str, set[str]]:
        """Tell by which other channels notifications of these ``times`` were told, by their ids."""
        return self._channels("known_again", times)

    def positions(self, channel: str) -> dict[str, str]:
        """Tell how far ``channel`` has been read, by source."""
        return {
            one.source: one.position for one in self.ask("positions", _Position, channel=channel)
        }

    def ask(
        self,
        name: str,
        row: type[R],
        conditions: Sequence[str] = (),
        columns: str = "",
        key: str = "",
        **parameters: object,
    ) -> Iterator[R]:
        """Ask a question of ``queries.sql``; give its rows.

        ``conditions`` stand where the query has ``$CONDITIONS``, ``columns`` at ``$COLUMNS`` and
        ``key`` at ``$KEY``; their values are ``parameters``. ``$FINAL`` merges rows that replace
        each other, where there may be some.
        """
        sql = queries()[name].replace("$CONDITIONS", " AND ".join(conditions) or "true")
        sql = sql.replace("$COLUMNS", columns).replace("$KEY", key)
        sql = sql.replace("$FINAL", "" if self._engine.has_one_writer else "FINAL")
        return self.rows(sql, row, parameters)

    def rows(self, sql: str, row: type[R], parameters: Mapping[str, object]) -> Iterator[R]:
        """Run a query; give its rows."""
        decoder = msgspec.json.Decoder(row)
        for line in self._engine.read(sql, parameters).split(b"\n"):
            if line:
                yield decoder.decode(line)

    # One batch.

    def _insert(self, prepared: Sequence[Prepared]) -> None:
        """Insert one batch, of one month, in one block."""
        hashes = [one.hash for one in prepared]
        chain = batch_hash(self._previous, self._recorder, self._batch, hashes)
        place = (
            f',"recorder":"{self._recorder}","batch":{self._batch},"previous":"{self._previous}",'
            f'"chain":"{chain}","position":'
        ).encode()
        rows: list[Piece] = []
        for position, one in enumerate(prepared):
            # Without its last brace, and not copied: a batch is many megabytes.
            rows.append(memoryview(one.line)[:-1])
            rows.append(b'%b%d,"hash":"%b"}\n' % (place, position, one.hash[:SHORT].encode()))
        self._pending = _Pending(rows, chain, frozenset(one.id for one in prepared))
        self._finish()

    def _settled(self) -> frozenset[str]:
        """Find out what became of an insert that failed; give the ids that came with it after all.

        One block is there or it is not, and meanwhile others may have stored the same: so it is
        looked for where there is one writer, and what is not there is left to whoever brings it
        again. On a cluster of several shards it may be there in part: the very same rows are
        inserted again, and replace themselves.
        """
        if self._pending is None:
            return frozenset()
        ids = self._pending.ids
        if not self._engine.has_one_writer:
            self._finish()
        elif next(self.ask("batch", _Count, recorder=self._recorder, batch=self._batch)).count:
            self._go_on(self._pending)
        else:
            self._pending = None
            return frozenset()
        return ids

    def _finish(self) -> None:
        """Insert what is pending, and go on with the chain once it is there."""
        assert self._pending is not None
        try:
            self._engine.write("events", self._pending.rows)
        except HistoryUnreachable:
            raise
        except HistoryError:
            self._pending = None  # it will never be inserted
            raise
        self._go_on(self._pending)

    def _go_on(self, inserted: _Pending) -> None:
        self._batch += 1
        self._previous = inserted.chain
        self._pending = None

    def _known(self, prepared: Iterable[Prepared]) -> dict[str, set[str]]:
        """Tell which notifications are in the history, and by which channels they were told."""
        times = {one.time for one in prepared}
        known = self._channels("known", times)
        if known:
            for id_, channels in self.channels_since(times).items():
                known.get(id_, set()).update(channels)
        return known

    def _channels(self, name: str, times: Iterable[datetime]) -> dict[str, set[str]]:
        moments = [(moment - _EPOCH) // _MICROSECOND for moment in times]
        if not moments:
            return {}
        packed = struct.pack(f"<{len(moments)}q", *moments)
        text = base64.b64encode(packed).decode("ascii")  # a parameter would be escaped in Python
        found = self.rows(queries()[name].replace("$TIMES", text), _Known, {})
        return {one.id: set(one.channels) for one in found}

    def _run(self, sql: str) -> None:
        for statement in statements(sql, self._layout):
            self._engine.run(statement)


@lru_cache(maxsize=1)
def migrations() -> Mapping[int, str]:
    """Give the numbered migrations, in order."""
    folder = resources.files("stackbus.history") / "schema"
    found = {}
    for file in folder.iterdir():
        if match := _MIGRATION.fullmatch(file.name):
            found[int(match[1])] = file.read_text("utf-8")
    return dict(sorted(found.items()))


def statements(text: str, layout: Layout) -> Iterator[str]:
    """Give the statements of a migration as one server or a cluster wants them.

    ``$LOCAL(name)`` is the table on each server, ``$DISTRIBUTED(name, key)`` the one over them all.
    """
    on_cluster = f"ON CLUSTER '{layout.cluster}'" if layout.cluster else ""
    replicated = "Replicated" if layout.cluster else ""
    suffix = "_local" if layout.cluster else ""
    text = _COMMENT.sub("", text)
    text = text.replace(" $ON_CLUSTER", f" {on_cluster}".rstrip())
    text = text.replace("$REPLACING", f"{replicated}ReplacingMergeTree")
    text = re.sub(r"\$LOCAL\((\w+)\)", rf"\1{suffix}", text)
    for statement in text.split(";"):
        wanted = statement.strip()
        if match := re.fullmatch(r"\$DISTRIBUTED\((\w+), (.*)\)", wanted, re.DOTALL):
            if layout.cluster:
                yield (
                    f"CREATE TABLE IF NOT EXISTS {match[1]} {on_cluster} AS {match[1]}_local "
                    f"ENGINE = Distributed('{layout.cluster}', currentDatabase(), "
                    f"{match[1]}_local, {match[2]})"
                )
        elif wanted:
            yield wanted


@lru_cache(maxsize=1)
def queries() -> Mapping[str, str]:
    """Give the queries of ``queries.sql`` by name."""
    text = (resources.files("stackbus.history") / "queries.sql").read_text("utf-8")
    parts = _QUERY.split(text)[1:]
    sqls = (_COMMENT.sub("", sql).strip() for sql in parts[1::2])
    return dict(zip(parts[::2], sqls, strict=True))


def _lines(rows: Iterable[msgspec.Struct]) -> list[bytes]:
    return [_encode(one) + b"\n" for one in rows]


def _kept(one: Quarantined) -> _Kept:
    return _Kept(
        one.digest,
        one.received,
        one.channel,
        one.origin,
        one.service,
        one.reason,
        base64.b64encode(one.body).decode("ascii"),
    )


def _fields(value: msgspec.Struct) -> dict[str, Any]:
    return msgspec.structs.asdict(value)


def _told(one: Prepared) -> _Told:
    return _Told(one.id, one.time, one.received, one.service, one.type, one.channel)


def _now() -> str:
    return f"{datetime.now(UTC):%Y-%m-%d %H:%M:%S}"
