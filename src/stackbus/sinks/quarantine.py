"""Reads the bodies in quarantine again, with this version of stackbus.

``stackbus quarantine --retry`` does so after an upgrade; the events go into the history.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import structlog

from stackbus.errors import Unreadable
from stackbus.events.scrub import Scrubber
from stackbus.flow.stream import Delivery
from stackbus.history.history import History
from stackbus.history.quarantine import QuarantinedBody
from stackbus.sinks.history import Extract, prepare

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class RetryResult:
    """The number of bodies that left the quarantine, and of those that are still in it."""

    released: int
    left: int


def retry(
    history: History, scrubber: Scrubber, extracts: Mapping[str, Extract], region: str
) -> RetryResult:
    """Read every body in quarantine again; store those that are readable now.

    ``extracts`` holds the ``extract`` of each source, by channel. A body of another channel, which
    a newer stackbus may have recorded, is left and logged.
    """
    released = left = 0
    for item in history.quarantine:
        extract = extracts.get(item.channel)
        if extract is None:
            log.warning("quarantine.unknown_channel", channel=item.channel, origin=item.origin)
            left += 1
            continue
        try:
            rows = prepare(_as_delivery(item), extract, scrubber, region)
        except Unreadable:
            left += 1
            continue
        history.events.store(rows)
        history.quarantine.release([item])
        released += 1
    return RetryResult(released, left)


def _as_delivery(item: QuarantinedBody) -> Delivery:
    return Delivery(
        channel=item.channel,
        origin=item.origin,
        body=item.body,
        received=item.received,
        service=item.service,
    )
