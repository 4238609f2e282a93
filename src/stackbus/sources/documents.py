"""The notification in a document of an OpenSearch index. Pure: bytes in, a notification out.

``opensearch.py`` keeps the documents that may hold a notification; ``sinks/history.py`` extracts it
by ``OpenSearchSource.extract``. Collectors of logs store a notification in one of three shapes:

- the members of the notification, or of its envelope, are the members of the document; the payload
  may be a text of JSON;
- the whole body is the text of one field;
- the line of a service's log is the text of one field (``log_lines.py``).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from stackbus.errors import Unreadable
from stackbus.sources import log_lines

_TEXT_FIELDS = ("message", "log", "body", "Payload", "_raw", "MESSAGE")
"""Fields for the collected text in Fluentd, Fluent Bit, Filebeat and journald."""
_BODY_MEMBERS = (b'"oslo.message"', b'"event_type"')
_REQUIRED_MEMBERS = ("message_id", "event_type")


def may_hold_notification(document: Mapping[str, Any]) -> bool:
    """Return whether a document has one of the three shapes."""
    return _is_notification(document) or next(_list_texts(document), None) is not None


def extract_notification(body: bytes) -> bytes:
    """Return the notification in a document's ``_source``. Raises Unreadable if there is none."""
    try:
        document = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise Unreadable(f"no document: {type(error).__name__}") from error
    if not isinstance(document, dict):
        raise Unreadable("no document: not an object")
    if "oslo.message" in document:
        return body
    if _is_notification(document):
        return msgspec.json.encode({**document, "payload": _parse_payload(document.get("payload"))})
    for text, is_body in _list_texts(document):
        return text if is_body else log_lines.extract_notification(text)
    raise Unreadable("no notification in this document")


def _is_notification(document: Mapping[str, Any]) -> bool:
    return "oslo.message" in document or all(
        isinstance(document.get(name), str) for name in _REQUIRED_MEMBERS
    )


def _list_texts(document: Mapping[str, Any]) -> Iterator[tuple[bytes, bool]]:
    """Yield each text that may hold a notification; true: it is a body, false: it is a line."""
    for name in _TEXT_FIELDS:
        text = document.get(name)
        if isinstance(text, str):
            encoded = text.strip().encode("utf-8", "replace")
            if encoded.startswith(b"{") and any(member in encoded for member in _BODY_MEMBERS):
                # oslo.log's own document: the request context stands beside the message.
                is_logged = name == "message" and "context" in document
                yield (msgspec.json.encode(document), False) if is_logged else (encoded, True)
            elif log_lines.may_hold_notification(encoded):
                yield encoded, False


def _parse_payload(payload: object) -> object:
    """Return a payload that a collector stored as a text of JSON; any other stays as it is."""
    if isinstance(payload, str) and payload.startswith(("{", "[")):
        try:
            return json.loads(payload)
        except ValueError:
            return payload
    return payload
