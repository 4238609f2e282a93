"""What could not be read: try it again, with this stackbus.

Called by ``stackbus quarantine --retry``.
"""

from __future__ import annotations

from dataclasses import dataclass

from stackbus.errors import Unreadable
from stackbus.events.scrub import Scrubber
from stackbus.history.history import History, Quarantined
from stackbus.record.channel import Delivery
from stackbus.record.reading import prepared


@dataclass(frozen=True, slots=True)
class Retried:
    """What became of the quarantine: counts of bodies."""

    released: int
    left: int


def retry(history: History, scrubber: Scrubber) -> Retried:
    """Read all of the quarantine again; what can be read goes into the history."""
    released = left = 0
    for one in history.quarantined():
        try:
            ready = prepared(_delivery(one), scrubber)
        except Unreadable:
            left += 1
            continue
        history.store(ready, [])
        history.release([one])
        released += 1
    return Retried(released, left)


def _delivery(one: Quarantined) -> Delivery:
    return Delivery(
        channel=one.channel,
        origin=one.origin,
        body=one.body,
        received=one.received,
        service=one.service,
    )
