"""The notification in a document of an OpenSearch index. Pure: bytes in, a notification out.

Called by ``opensearch.py`` (is there one?) and ``batch.py`` (which one?). A cloud's own logging
keeps notifications in one of three shapes: the notification's own members (or its envelope's) as
the document's, with a payload that may have become a text; the whole body as the text of one
field; or the line of a service's log, as ``lines.py`` reads it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from stackbus.errors import Unreadable
from stackbus.record.channels.lines import is_told, notification_in_line

OPENSEARCH = "opensearch"

_TEXTS = ("message", "log", "body", "Payload", "_raw", "MESSAGE")
"""Fields in which a collector puts what it collected (Fluentd, Fluent Bit, Filebeat, journald)."""
_BODY = (b'"oslo.message"', b'"event_type"')
_NEEDED = ("message_id", "event_type")


def is_notification(document: Mapping[str, Any]) -> bool:
    """Tell by a look whether a notification may be in the document."""
    return _is_whole(document) or next(_told(document), None) is not None


def notification_in_document(document: bytes) -> bytes:
    """Give the notification in a document (its ``_source``). Raises Unreadable if it is none."""
    try:
        found = json.loads(document)
    except (ValueError, RecursionError) as error:
        raise Unreadable(f"no document: {type(error).__name__}") from error
    if not isinstance(found, dict):
        raise Unreadable("no document: not an object")
    if "oslo.message" in found:
        return document
    if _is_whole(found):
        return msgspec.json.encode({**found, "payload": _payload(found.get("payload"))})
    for text, is_body in _told(found):
        return text if is_body else notification_in_line(text)
    raise Unreadable("no notification in this document")


def _is_whole(document: Mapping[str, Any]) -> bool:
    return "oslo.message" in document or all(
        isinstance(document.get(name), str) for name in _NEEDED
    )


def _told(document: Mapping[str, Any]) -> Iterator[tuple[bytes, bool]]:
    """Give each text of the document that may hold one, and whether it is a body, or a line."""
    for name in _TEXTS:
        text = document.get(name)
        if isinstance(text, str):
            encoded = text.strip().encode("utf-8", "replace")
            if encoded.startswith(b"{") and any(mark in encoded for mark in _BODY):
                # oslo.log's own message: its document tells of the context too.
                is_logged = name == "message" and "context" in document
                yield (msgspec.json.encode(document), False) if is_logged else (encoded, True)
            elif is_told(encoded):
                yield encoded, False


def _payload(payload: object) -> object:
    """Read a payload that became a text on its way; one that was a text stays one."""
    if isinstance(payload, str) and payload.startswith(("{", "[")):
        try:
            return json.loads(payload)
        except ValueError:
            return payload
    return payload
