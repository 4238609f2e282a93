"""Coverage: compare the channels, notification by notification, over a span of time.

Channels meet in a notification's message_id: if one channel carried it and another did not, the
other has lost it. ``stackbus coverage`` prints the result.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import datetime

import msgspec

from stackbus.history.history import History
from stackbus.query.filter import EventFilter


class MissedNotification(msgspec.Struct, frozen=True):
    """A notification, and the channels over which it came: not all channels of its service."""

    time: datetime
    service: str
    type: str
    id: str
    channels: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ChannelCoverage:
    """The notifications of one service over one channel, counted.

    ``told`` came over it, ``only`` over no other, ``missed`` over others alone. A channel that
    carried nothing of a service has no coverage of it, so it has missed nothing.
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

    channels: list[ChannelCoverage]
    missed: list[MissedNotification]

    def to_json(self) -> dict[str, object]:
        """Return the answer as ``coverage -o json`` prints it."""
        return {
            "coverage": [row.to_json() for row in self.channels],
            "missed": [msgspec.to_builtins(notification) for notification in self.missed],
        }


class _Group(msgspec.Struct):
    service: str
    channels: tuple[str, ...]
    count: int


def compare_channels(
    history: History, since: datetime | None, until: datetime | None
) -> list[ChannelCoverage]:
    """Return the coverage of each service by each of its channels."""
    conditions, parameters = EventFilter(since=since, until=until).conditions()
    groups = list(history.session.query("coverage", _Group, conditions, **parameters))
    coverage = []
    for service in sorted({group.service for group in groups}):
        service_groups = [group for group in groups if group.service == service]
        total = sum(group.count for group in service_groups)
        for channel in sorted({name for group in service_groups for name in group.channels}):
            received = sum(group.count for group in service_groups if channel in group.channels)
            only = sum(group.count for group in service_groups if group.channels == (channel,))
            coverage.append(ChannelCoverage(channel, service, received, only, total - received))
    return coverage


def list_missed(
    history: History,
    coverage: list[ChannelCoverage],
    since: datetime | None,
    until: datetime | None,
    channel: str | None = None,
) -> Iterator[MissedNotification]:
    """Yield the notifications that ``channel`` missed, or any channel of their service."""
    for service in sorted({entry.service for entry in coverage}):
        channels = sorted({entry.channel for entry in coverage if entry.service == service})
        if len(channels) > 1 and (channel is None or channel in channels):
            event_filter = replace(EventFilter({"service": (service,)}), since=since, until=until)
            conditions, parameters = event_filter.conditions()
            lacking = [channel] if channel else channels
            yield from history.session.query(
                "missed", MissedNotification, conditions, lacking=lacking, **parameters
            )
