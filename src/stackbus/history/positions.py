"""The table ``positions``: how far a channel has read each of its sources, such as a log file."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime

import msgspec

from stackbus.history.session import Session


class _Row(msgspec.Struct):
    channel: str
    source: str
    position: str
    at: datetime


class Positions:
    """The positions of channels that resume where they stopped."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def load(self, channel: str) -> dict[str, str]:
        """Return the positions of a channel by source."""
        rows = self._session.query("positions", _Row, channel=channel)
        return {row.source: row.position for row in rows}

    def save(self, channel: str, positions: Mapping[str, str]) -> None:
        """Store the positions of a channel by source; the newest of a source counts."""
        now = datetime.now(UTC)
        self._session.insert(
            "positions",
            [_Row(channel, source, position, now) for source, position in positions.items()],
        )
