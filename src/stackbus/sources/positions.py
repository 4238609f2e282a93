"""The store of a source's positions, for sources whose server keeps none."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol


class Positions(Protocol):
    """A store of positions, by channel and by source; ``history/positions.py`` is one."""

    def load(self, channel: str) -> dict[str, str]:
        """Return the saved positions of a channel, by source. Raises StackbusError."""

    def save(self, channel: str, positions: Mapping[str, str]) -> None:
        """Save positions of a channel, by source. Raises StackbusError."""
