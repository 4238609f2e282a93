"""The table ``told``: the other channels over which a stored notification came as well.

The first channel is in the notification's events. ``query/`` joins both, so that an event lists all
its channels and ``stackbus coverage`` compares them.
"""

from __future__ import annotations

import base64
import struct
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta

import msgspec

from stackbus.history.session import Session

_EPOCH, _MICROSECOND = datetime(1970, 1, 1, tzinfo=UTC), timedelta(microseconds=1)


class Confirmation(msgspec.Struct, frozen=True):
    """One more channel that carried a notification."""

    id: str
    time: datetime
    received: datetime
    service: str
    type: str
    channel: str


class _Channels(msgspec.Struct):
    id: str
    channels: list[str]


class Confirmations:
    """The confirmations of stored notifications."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def add(self, confirmations: Iterable[Confirmation]) -> None:
        """Store confirmations; the same one twice counts once."""
        self._session.insert("told", confirmations)

    def channels_by_id(self, times: Iterable[datetime]) -> dict[str, set[str]]:
        """Return the confirming channels of the notifications of these ``times``, by their ids."""
        return channels_by_id(self._session, "confirmation_channels", times)


def channels_by_id(
    session: Session, query_name: str, times: Iterable[datetime]
) -> dict[str, set[str]]:
    """Return the channels of notifications of these ``times`` by their ids, by a named query.

    The times go into the query as base64 of 64-bit numbers: to parse a list of thousands takes as
    long as to look for them.
    """
    microseconds = [(moment - _EPOCH) // _MICROSECOND for moment in times]
    if not microseconds:
        return {}
    packed = base64.b64encode(struct.pack(f"<{len(microseconds)}q", *microseconds)).decode("ascii")
    rows = session.query(query_name, _Channels, placeholders={"TIMES": packed})
    return {row.id: set(row.channels) for row in rows}
