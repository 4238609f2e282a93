"""The table ``events``: store each notification's events once, and read them back.

The sink stores, ``query/`` reads. A notification that is in the table is not inserted again: a
second channel that carried it becomes a confirmation. Recorders that share an
embedded history take turns. On a server, two that insert the same notification at the same moment
make rows that replace each other, which is why queries read FINAL there.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime

import msgspec

from stackbus.events.model import FIELD_INFO, FIELDS, Event
from stackbus.history.batches import Batches, EventRow
from stackbus.history.confirmations import Confirmation, Confirmations, channels_by_id
from stackbus.history.session import Session

_AS_TEXT = ("attributes", "payload")  # stored as the text of their JSON
_Row = msgspec.defstruct(
    "_Row",
    [
        (name, str, "null") if name in _AS_TEXT else (name, info.type)
        for name, info in FIELD_INFO.items()
    ],
    frozen=True,
    kw_only=True,
    gc=False,
)
_COLUMNS = ", ".join(f"`{name}`" for name in FIELDS)
_COLUMNS_WITHOUT_PAYLOAD = ", ".join(f"`{name}`" for name in FIELDS if name != "payload")


class Link(msgspec.Struct, frozen=True):
    """The place of an event in its recorder's chain, as its row has it."""

    recorder: str
    batch: int
    position: int
    hash: str
    previous: str
    chain: str
    hash_version: int


@dataclass(frozen=True, slots=True)
class LinkedEvent:
    """An event with its place in the chain."""

    event: Event
    link: Link


@dataclass(frozen=True, slots=True)
class StoreResult:
    """The notifications of one ``store`` by service: new ones, and those stored before."""

    new_by_service: Counter[str]
    duplicates_by_service: Counter[str]

    @property
    def new(self) -> int:
        """The number of new notifications."""
        return self.new_by_service.total()

    @property
    def duplicates(self) -> int:
        """The number of notifications that were stored before."""
        return self.duplicates_by_service.total()


class _Month(msgspec.Struct):
    number: int


class Events:
    """The events of a history. Threads may share it; they take turns to store."""

    def __init__(self, session: Session, confirmations: Confirmations, recorder: str) -> None:
        self._session = session
        self._confirmations = confirmations
        self._batches = Batches(session, recorder)
        self._turn = threading.Lock()

    def store(self, rows: Sequence[EventRow]) -> StoreResult:
        """Store events once; return when they are on disk.

        After an error the caller may store the same events again.
        """
        with self._turn, self._session.exclusive():
            recovered = self._batches.recover()
            distinct = {(row.id, row.index): row for row in rows}
            channels = self._channels_by_id(distinct.values())
            new_by_month: dict[tuple[int, int], list[EventRow]] = {}
            confirmations: dict[tuple[str, str], Confirmation] = {}
            for row in distinct.values():
                if row.id not in channels:
                    new_by_month.setdefault((row.time.year, row.time.month), []).append(row)
                elif row.channel not in channels[row.id]:
                    confirmations[row.id, row.channel] = _confirmation(row)
            for month in new_by_month.values():
                self._batches.append(month)
            self._confirmations.add(confirmations.values())
        stored_before = channels.keys() - recovered
        services = {row.id: row.service for row in distinct.values()}
        new = Counter(service for id_, service in services.items() if id_ not in stored_before)
        total = Counter(row.service for row in rows if row.index == 0)
        return StoreResult(new, total - new)

    def query(
        self,
        name: str,
        conditions: Sequence[str] = (),
        *,
        with_payload: bool = True,
        **parameters: object,
    ) -> Iterator[Event]:
        """Run a query of ``queries.sql`` that selects ``$COLUMNS``; return its events.

        Each event is as it was stored: ``channels`` has the first channel alone, and its payload is
        null if it was not asked for.
        """
        columns = _COLUMNS if with_payload else _COLUMNS_WITHOUT_PAYLOAD
        lines = self._session.query_lines(name, conditions, {"COLUMNS": columns}, **parameters)
        decode = msgspec.json.Decoder(_Row).decode
        return (_event(decode(line)) for line in lines)

    def batches(self, recorder: str, first: int, last: int) -> Iterator[LinkedEvent]:
        """Return the events of batches ``first`` to ``last`` of a chain, in order."""
        columns = f"{_COLUMNS}, {', '.join(Link.__struct_fields__)}"
        lines = self._session.query_lines(
            "batch_rows", (), {"COLUMNS": columns}, recorder=recorder, first=first, last=last
        )
        decode_row = msgspec.json.Decoder(_Row).decode
        decode_link = msgspec.json.Decoder(Link).decode
        return (LinkedEvent(_event(decode_row(line)), decode_link(line)) for line in lines)

    def expire(self, before: datetime) -> list[int]:
        """Drop the months that ended before ``before``; return them, such as 202611."""
        current = before.year * 100 + before.month
        expired = [row.number for row in self._session.query("months", _Month, before=current)]
        for month in expired:
            for table in ("events", "told"):
                self._session.execute(
                    f"ALTER TABLE $LOCAL({table}) $ON_CLUSTER DROP PARTITION {month:d}"
                )
        return expired

    def _channels_by_id(self, rows: Iterable[EventRow]) -> dict[str, set[str]]:
        """Return the channels of the notifications that are in the history, by their ids."""
        times = {row.time for row in rows}
        channels = channels_by_id(self._session, "event_channels", times)
        if channels:
            for id_, confirming in self._confirmations.channels_by_id(times).items():
                channels.get(id_, set()).update(confirming)
        return channels


def _event(row: msgspec.Struct) -> Event:
    values = msgspec.structs.asdict(row)
    values["attributes"] = msgspec.json.decode(values["attributes"] or "{}")
    values["payload"] = msgspec.Raw((values["payload"] or "null").encode())
    return Event(**values)


def _confirmation(row: EventRow) -> Confirmation:
    return Confirmation(row.id, row.time, row.received, row.service, row.type, row.channel)
