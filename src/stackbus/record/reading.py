"""One delivery becomes events: the notification is found, searched for secrets, and read. Pure.

Called by ``storing.py`` with each delivery, and by ``quarantine.py`` with what is tried again; the
events go into the history.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from stackbus.errors import Unreadable
from stackbus.events.envelope import decode
from stackbus.events.model import Event
from stackbus.events.normalise import normalise
from stackbus.events.scrub import Scrubber
from stackbus.history.history import Prepared
from stackbus.record.channel import Delivery
from stackbus.record.channels.bus import BUS
from stackbus.record.channels.documents import OPENSEARCH, notification_in_document
from stackbus.record.channels.lines import LOG, notification_in_line

_FOUND_IN: Mapping[str, Callable[[bytes], bytes]] = {
    BUS: lambda body: body,
    LOG: notification_in_line,
    OPENSEARCH: notification_in_document,
}
"""How the notification is found in what a channel brought."""


def prepared(delivery: Delivery, scrubber: Scrubber) -> list[Prepared]:
    """Read one delivery, ready for the history.

    Raises Unreadable, with a reason that quotes nothing of it, whatever is in it.
    """
    try:
        return [Prepared.of(event) for event in read(delivery, scrubber)]
    except Unreadable:
        raise
    except Exception as error:  # one body must never stop the others
        raise Unreadable(f"stackbus cannot read this: {type(error).__name__}") from error


def read(delivery: Delivery, scrubber: Scrubber) -> list[Event]:
    """Read one delivery, searched for secrets if nobody has done so. Raises Unreadable."""
    body = _FOUND_IN[delivery.channel](delivery.body)
    if not delivery.scrubbed:
        # The event type decides on secrets of one service alone, so it is read first.
        body = scrubber.scrub(body, decode(body).event_type).body
    return normalise(body, delivery.channel, delivery.received, delivery.service)
