"""Bytes to notification: oslo.messaging's envelope, formats 1.0 and 2.0.

Pure. Called by ``relay/relay.py`` for each delivery, whose value goes on to ``relay/label.py`` and
``events/scrub.py``, and by ``normalise.py``, which wants to know who did it too (``told``). The
format is that of oslo_messaging/notify/messaging.py and oslo_messaging/_drivers/common.py
(serialize_msg).
"""

from __future__ import annotations

from typing import TypeVar

import msgspec

from stackbus.errors import Unreadable

N = TypeVar("N", bound="Notification")


class Notification(msgspec.Struct, frozen=True, gc=False):
    """A notification as a service sent it; the payload stays as it is on the wire."""

    event_type: str
    message_id: str
    priority: str
    payload: msgspec.Raw
    publisher_id: str = ""
    timestamp: str = ""


class Told(Notification, frozen=True, gc=False):
    """A notification with its request context, as oslo.messaging's serializers flatten it.

    oslo.context names the user ``user_id`` since 3.0 and ``user`` before, the project likewise.
    """

    context_user_id: object = msgspec.field(name="_context_user_id", default=None)
    context_user: object = msgspec.field(name="_context_user", default=None)
    context_user_name: object = msgspec.field(name="_context_user_name", default=None)
    context_project_id: object = msgspec.field(name="_context_project_id", default=None)
    context_tenant: object = msgspec.field(name="_context_tenant", default=None)
    context_request_id: object = msgspec.field(name="_context_request_id", default=None)
    context_global_request_id: object = msgspec.field(
        name="_context_global_request_id", default=None
    )
    context_remote_address: object = msgspec.field(name="_context_remote_address", default=None)


class _Envelope(msgspec.Struct, frozen=True, gc=False):
    message: str | msgspec.UnsetType = msgspec.field(name="oslo.message", default=msgspec.UNSET)
    event_type: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET


_envelope = msgspec.json.Decoder(_Envelope)
_notification = msgspec.json.Decoder(Notification)
_told = msgspec.json.Decoder(Told)


def decode(body: bytes) -> Notification:
    """Read one body, enveloped (2.0) or bare (1.0).

    Raises Unreadable with a reason that quotes nothing of the body.
    """
    return _read(body, _notification)


def told(body: bytes) -> Told:
    """Read one body as ``decode`` does, with what its context tells of the actor."""
    return _read(body, _told)


def _read(body: bytes, decoder: msgspec.json.Decoder[N]) -> N:
    try:
        envelope = _envelope.decode(body)
        if envelope.message is msgspec.UNSET:
            if envelope.event_type is msgspec.UNSET:
                raise Unreadable("neither an oslo.message nor an event_type: no notification")
            notification = decoder.decode(body)
        else:
            notification = decoder.decode(envelope.message)
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
        raise Unreadable(f"no notification: {error}") from error
    if not notification.event_type or not notification.message_id:
        raise Unreadable("no notification: event_type and message_id must not be empty")
    return notification
