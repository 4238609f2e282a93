"""What each channel told, what only it told, and what it missed.

Called by ``cli/history.py`` for ``stackbus coverage``. Channels meet in a notification's
message_id: what one of them told and another did not is a loss, to the number.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import datetime

import msgspec

from stackbus.history.history import History
from stackbus.query.filter import Filter


class Missed(msgspec.Struct, frozen=True):
    """One notification that not all channels told."""

    time: datetime
    service: str
    type: str
    id: str
    channels: tuple[str, ...]


class _Group(msgspec.Struct):
    service: str
    channels: tuple[str, ...]
    count: int


@dataclass(frozen=True, slots=True)
class Covered:
    """One channel and one service, in notifications.

    ``missed``: other channels told them. A channel that told nothing of a service is not one of
    its channels, and has missed nothing.
    """

    channel: str
    service: str
    told: int
    only: int
    missed: int

    def to_json(self) -> dict[str, object]:
        """Return the row as ``coverage -o json`` prints it."""
        return {
            "channel": self.channel,
            "service": self.service,
            "told": self.told,
            "only": self.only,
            "missed": self.missed,
        }


@dataclass(frozen=True, slots=True)
class Coverage:
    """The answer: a row for each channel and service, and the notifications that were missed."""

    channels: list[Covered]
    missed: list[Missed]

    def to_json(self) -> dict[str, object]:
        """Return the answer as ``coverage -o json`` prints it."""
        return {
            "coverage": [covered.to_json() for covered in self.channels],
            "missed": [msgspec.to_builtins(notification) for notification in self.missed],
        }


def coverage(history: History, since: datetime | None, until: datetime | None) -> list[Covered]:
    """Compare the channels, service by service."""
    conditions, parameters = Filter(since=since, until=until).conditions()
    groups = list(history.ask("coverage", _Group, conditions, **parameters))
    found = []
    for service in sorted({group.service for group in groups}):
        of_it = [group for group in groups if group.service == service]
        total = sum(group.count for group in of_it)
        for channel in sorted({channel for group in of_it for channel in group.channels}):
            told = sum(group.count for group in of_it if channel in group.channels)
            only = sum(group.count for group in of_it if group.channels == (channel,))
            found.append(Covered(channel, service, told, only, total - told))
    return found


def missed(
    history: History,
    found: list[Covered],
    since: datetime | None,
    until: datetime | None,
    channel: str | None = None,
) -> Iterator[Missed]:
    """List the notifications that one of their service's channels missed, or ``channel`` did."""
    for service in sorted({one.service for one in found}):
        channels = sorted({one.channel for one in found if one.service == service})
        if len(channels) > 1 and (channel is None or channel in channels):
            wanted = replace(Filter({"service": (service,)}), since=since, until=until)
            conditions, parameters = wanted.conditions()
            lacking = [channel] if channel else channels
            yield from history.ask("missed", Missed, conditions, lacking=lacking, **parameters)
