"""The events themselves, as a question wants them.

Called by ``cli/history.py`` for ``stackbus events``. ``listed`` gives those that are there,
``followed`` those that come; both a page at a time, so that a long answer takes no memory.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import msgspec

from stackbus.errors import InputError
from stackbus.events.model import Event
from stackbus.history.history import History, Row
from stackbus.query.filter import FIELDS, Filter, sql_time

_PAGE, _PAGE_WITH_PAYLOAD = 5000, 500
_LOOK = 0.5  # seconds between two looks for what has come
_LATE = timedelta(seconds=30)
"""How much later than it was received an event may be stored, and still be followed."""

_LEAN = ", ".join(f"`{name}`" for name in Row.__struct_fields__ if name != "payload")
_WHOLE = f"{_LEAN}, payload"


class _Count(msgspec.Struct):
    count: int


class _Groups(msgspec.Struct):
    """Groups by column: its texts, and which of them each group has, from 1 on.

    Thousands of lists are read in a fifth of the time that tuples take.
    """

    columns: list[tuple[list[str], list[int]]]
    counts: list[int]


class _Key(msgspec.Struct):
    time: datetime
    id: str
    index: int


def count(history: History, wanted: Filter) -> int:
    """Count the events that are wanted."""
    conditions, parameters = wanted.conditions()
    return next(history.ask("events_count", _Count, conditions, **parameters)).count


def counts(
    history: History, wanted: Filter, fields: Sequence[str]
) -> Iterator[tuple[tuple[str, ...], int]]:
    """Count the events that are wanted by the values of ``fields``, most first.

    Raises InputError for what is no field that is a text.
    """
    for name in fields:
        if name not in FIELDS:
            raise InputError(f"--by: {name!r}: one of {', '.join(FIELDS)}")
    conditions, parameters = wanted.conditions()
    columns = ", ".join(f"any(`{name}`)" for name in fields)
    groups = next(
        history.ask("events_by", _Groups, conditions, columns, _group(fields), **parameters)
    )
    values = (map(["", *texts].__getitem__, places) for texts, places in groups.columns)
    return zip(zip(*values, strict=True), groups.counts, strict=True)


def listed(
    history: History, wanted: Filter, limit: int = 0, *, payload: bool = True
) -> Iterator[Event]:
    """Give the events that are wanted, in the order of their time.

    With a ``limit`` the newest ones; 0 is all. Without ``payload`` theirs is null.
    """
    for page in pages(history, wanted, limit, payload=payload):
        since = history.channels_since({row.time for row in page})
        for row in page:
            channels = tuple(sorted({*row.channels, *since.get(row.id, ())}))
            yield msgspec.structs.replace(row.event(), channels=channels)


def pages(
    history: History, wanted: Filter, limit: int = 0, *, payload: bool = True
) -> Iterator[list[Row]]:
    """Give them as they stand in the history: of the channels only the one that told them first."""
    conditions, parameters = wanted.conditions()
    key: _Key | None = None
    if limit:
        key = next(
            history.ask("events_first", _Key, conditions, skip=limit - 1, **parameters), None
        )
    after = ">="
    size = _PAGE_WITH_PAYLOAD if payload else _PAGE
    while True:
        page = list(
            history.ask(
                "events",
                Row,
                [*conditions, *_from(key, after)],
                columns=_WHOLE if payload else _LEAN,
                page=size,
                **parameters,
                **_bounds(key),
            )
        )
        if page:
            yield page
        if len(page) < size:
            return
        last = page[-1]
        key, after = _Key(last.time, last.id, last.index), ">"


def followed(
    history: History,
    wanted: Filter,
    began: datetime,
    stopped: Callable[[], bool],
    *,
    payload: bool = True,
) -> Iterator[Event]:
    """Give the events that are stored from ``began`` on, as they come, until ``stopped``."""
    since = began
    seen: dict[tuple[str, int], datetime] = {}
    while not stopped():
        newest = since
        for event in listed(
            history, replace(wanted, received_since=since - _LATE), payload=payload
        ):
            newest = max(newest, event.received)
            key = (event.id, event.index)
            if key not in seen:
                seen[key] = event.received
                if event.received >= began:
                    yield event
        since = newest
        seen = {key: received for key, received in seen.items() if received >= since - _LATE}
        time.sleep(_LOOK)


def _group(fields: Sequence[str]) -> str:
    """Give one number of 128 bits for the values of all ``fields``: the sum of their hashes.

    Each field's hash has a key of its own, so that values that change places are another sum; and
    the keys are drawn by lot, so that nobody can choose values whose sums are the same.
    """
    lot = secrets.randbits(64)
    return " + ".join(
        f"reinterpretAsUInt128(sipHash128Keyed((toUInt64({lot}), toUInt64({place})), `{name}`))"
        for place, name in enumerate(fields)
    )


def _from(key: _Key | None, sign: str) -> list[str]:
    if key is None:
        return []
    key_is = "({key_time:DateTime64(6, 'UTC')}, {key_id:String}, {key_index:UInt32})"
    return ["time >= {key_time:DateTime64(6, 'UTC')}", f"(time, id, `index`) {sign} {key_is}"]


def _bounds(key: _Key | None) -> dict[str, Any]:
    if key is None:
        return {}
    return {"key_time": sql_time(key.time), "key_id": key.id, "key_index": key.index}
