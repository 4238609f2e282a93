"""Decode oslo.messaging's envelope: bytes to notification. Pure.

Format 2.0 holds the notification as a JSON text under ``oslo.message``; format 1.0 is the bare
notification (oslo_messaging/_drivers/common.py, serialize_msg). The relay decodes each delivery
with ``decode``; the notification goes on to be scrubbed and labelled. ``normalise.py`` decodes with
``decode_with_context``, since an event names its actor.
"""

from __future__ import annotations

from typing import TypeVar

import msgspec

from stackbus.bus.names import PRIORITIES
from stackbus.errors import Unreadable
from stackbus.events.depth import cut_deep

N = TypeVar("N", bound="Notification")


class Notification(msgspec.Struct, frozen=True, gc=False):
    """A notification as a service sent it; the payload is not decoded."""

    event_type: str
    message_id: str
    priority: str
    payload: msgspec.Raw
    publisher_id: str = ""
    timestamp: str = ""


class ContextNotification(Notification, frozen=True, gc=False):
    """A notification with its request context, which oslo.messaging flattens into ``_context_*``.

    oslo.context writes ``user_id`` and ``project_id`` since 3.0, ``user`` and ``tenant`` before.
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


_envelope_decoder = msgspec.json.Decoder(_Envelope)
_decoder = msgspec.json.Decoder(Notification)
_context_decoder = msgspec.json.Decoder(ContextNotification)


def decode(body: bytes) -> Notification:
    """Decode one body, enveloped (2.0) or bare (1.0).

    Raises Unreadable; its reason quotes nothing of the body.
    """
    return _decode(body, _decoder)


def decode_with_context(body: bytes) -> ContextNotification:
    """Decode one body as ``decode`` does, together with the request context."""
    return _decode(body, _context_decoder)


def read_priority(notification: Notification) -> str:
    """Return the priority as routing keys spell it.

    Raises Unreadable for a priority that oslo.messaging does not have.
    """
    priority = notification.priority.lower()
    priority = "warn" if priority == "warning" else priority
    if priority not in PRIORITIES:
        raise Unreadable("no notification: its priority is none of oslo.messaging's seven")
    return priority


def _decode(body: bytes, decoder: msgspec.json.Decoder[N]) -> N:
    try:
        envelope = _envelope_decoder.decode(body)
        if envelope.message is msgspec.UNSET:
            if envelope.event_type is msgspec.UNSET:
                raise Unreadable("no notification: neither oslo.message nor event_type is in it")
            notification = decoder.decode(body)
        else:
            notification = _decode_message(envelope.message, decoder)
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
        raise Unreadable(f"no notification: {error}") from error
    if not notification.event_type or not notification.message_id:
        raise Unreadable("no notification: event_type and message_id must not be empty")
    return notification


def _decode_message(message: str, decoder: msgspec.json.Decoder[N]) -> N:
    try:
        return decoder.decode(message)
    except RecursionError:
        # The scrubber masks what is cut here; the fields of a notification are at the top.
        return decoder.decode(cut_deep(message))
