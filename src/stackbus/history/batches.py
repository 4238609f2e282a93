"""Batches: the chain of batches in which one recorder writes its events.

``events.py`` appends the rows of new events, a batch for each month; each is inserted in one block
with its place in the chain (``chain.py``).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime

import msgspec

from stackbus.errors import HistoryError, HistoryUnreachable
from stackbus.events.model import Event
from stackbus.history.chain import FIRST_PREVIOUS, HASH_VERSION, SHORT, batch_hash, line_hash
from stackbus.history.engine import Rows
from stackbus.history.session import Session

_encode = msgspec.json.Encoder().encode


class EventRow(msgspec.Struct, frozen=True, gc=False):
    """An event on its way into the table: its JSON, its hash, and the fields looked at on the way.

    Thousands of whole events, held for as long as a batch takes, cost a seventh of the time of
    reading them, and much memory.
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
    def from_event(cls, event: Event) -> EventRow:
        """Encode and hash an event.

        A payload that is an object is stored as its text, byte for byte (the engine's setting
        ``input_format_json_read_objects_as_strings``). Any other is encoded as a JSON string of its
        text, so that it is stored as that text too.
        """
        line = _encode(event)
        line_sha256 = line_hash(line)
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
            line_sha256,
            line,
        )


@dataclass(frozen=True, slots=True)
class _Batch:
    """A batch with its rows as they are inserted, and its hash."""

    rows: Rows = field(repr=False)
    chain: str
    ids: frozenset[str]


class _Count(msgspec.Struct):
    count: int


class Batches:
    """The chain of one recorder. Callers take turns."""

    def __init__(self, session: Session, recorder: str) -> None:
        self._session = session
        self._recorder = recorder
        self._number = 0
        self._previous = FIRST_PREVIOUS
        self._pending: _Batch | None = None
        """The batch whose insert failed, so that it may or may not be in the table."""

    def append(self, rows: Sequence[EventRow]) -> None:
        """Insert the events of one month as the next batch, in one block.

        Raises HistoryUnreachable if the insert may have failed: call ``recover`` before the next.
        """
        hashes = [row.hash for row in rows]
        chain = batch_hash(self._previous, self._recorder, self._number, HASH_VERSION, hashes)
        link = (
            f',"recorder":"{self._recorder}","batch":{self._number},'
            f'"hash_version":{HASH_VERSION},"previous":"{self._previous}","chain":"{chain}",'
            '"position":'
        ).encode()
        pieces: list[bytes | memoryview] = []
        for position, row in enumerate(rows):
            # The line without its closing brace, and not copied: a batch is many megabytes.
            pieces.append(memoryview(row.line)[:-1])
            pieces.append(b'%b%d,"hash":"%b"}\n' % (link, position, row.hash[:SHORT].encode()))
        self._pending = _Batch(pieces, chain, frozenset(row.id for row in rows))
        self._insert_pending()

    def recover(self) -> frozenset[str]:
        """Settle an insert that failed; return the ids of its notifications if it is in the table.

        An insert is atomic, but another writer may have stored the same notifications meanwhile.
        With one writer the table is asked: a batch that is not there is dropped, since its channel
        delivers it again. On a cluster of several shards a part of it may be there, so the same
        rows are inserted again and replace themselves.
        """
        pending = self._pending
        if pending is None:
            return frozenset()
        if not self._session.has_one_writer:
            self._insert_pending()
            return pending.ids
        if self._is_in_table():
            self._advance(pending)
            return pending.ids
        self._pending = None
        return frozenset()

    def _is_in_table(self) -> bool:
        rows = self._session.query("batch", _Count, recorder=self._recorder, batch=self._number)
        return next(rows).count > 0

    def _insert_pending(self) -> None:
        assert self._pending is not None
        try:
            self._session.insert_lines("events", self._pending.rows)
        except HistoryUnreachable:
            raise
        except HistoryError:
            self._pending = None  # the engine refuses these rows, now and later
            raise
        self._advance(self._pending)

    def _advance(self, inserted: _Batch) -> None:
        self._number += 1
        self._previous = inserted.chain
        self._pending = None
