"""Bytes to notification: oslo.messaging's envelope, formats 1.0 and 2.0.

Pure. Called by ``relay/relay.py`` for each delivery; its value goes on to ``relay/label.py`` and
``relay/scrub.py``. The format is that of oslo_messaging/notify/messaging.py and
oslo_messaging/_drivers/common.py (serialize_msg).
"""

from __future__ import annotations

import msgspec

from stackbus.errors import Unreadable


class Notification(msgspec.Struct, frozen=True, gc=False):
    """A notification as a service sent it; the payload stays as it is on the wire."""

    event_type: str
    message_id: str
    priority: str
    payload: msgspec.Raw
    publisher_id: str = ""
    timestamp: str = ""


class _Envelope(msgspec.Struct, frozen=True, gc=False):
    message: str | msgspec.UnsetType = msgspec.field(name="oslo.message", default=msgspec.UNSET)
    event_type: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET


_envelope = msgspec.json.Decoder(_Envelope)
_notification = msgspec.json.Decoder(Notification)


def decode(body: bytes) -> Notification:
    """Read one body, enveloped (2.0) or bare (1.0).

    Raises Unreadable with a reason that quotes nothing of the body.
    """
    try:
        envelope = _envelope.decode(body)
        if envelope.message is msgspec.UNSET:
            if envelope.event_type is msgspec.UNSET:
                raise Unreadable("neither an oslo.message nor an event_type: no notification")
            notification = _notification.decode(body)
        else:
            notification = _notification.decode(envelope.message)
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
        raise Unreadable(f"no notification: {error}") from error
    if not notification.event_type or not notification.message_id:
        raise Unreadable("no notification: event_type and message_id must not be empty")
    return notification
