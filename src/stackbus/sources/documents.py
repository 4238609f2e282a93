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
from stackbus.sources.log_lines import LogRecord

_TEXT_FIELDS = ("message", "log", "body", "Payload", "_raw", "MESSAGE")
"""Fields for the collected text in Fluentd, Fluent Bit, Filebeat and journald."""
_BODY_MEMBERS = ('"oslo.message"', '"event_type"')
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
    for text, logger in _list_texts(document):
        if text.startswith("{"):
            return _add_context(text, document.get("context"))
        if logger:
            return log_lines.read_record(LogRecord(logger, text))
        return log_lines.extract_notification(text.encode("utf-8", "replace"))
    raise Unreadable("no notification in this document")


def _is_notification(document: Mapping[str, Any]) -> bool:
    return "oslo.message" in document or all(
        isinstance(document.get(name), str) for name in _REQUIRED_MEMBERS
    )


def _list_texts(document: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield each text that may hold a notification, and the logger that wrote it, if it is known.

    A collector that knows the logger has removed it from the text.
    """
    logger = _read_logger(document)
    if logger and not log_lines.writes_notifications(logger):
        return
    for name in _TEXT_FIELDS:
        text = document.get(name)
        if not isinstance(text, str):
            continue
        text = text.strip()
        if text.startswith("{"):
            if any(member in text for member in _BODY_MEMBERS):
                yield text, logger
        elif logger or log_lines.may_hold_notification(text.encode("utf-8", "replace")):
            yield text, logger


def _read_logger(document: Mapping[str, Any]) -> str:
    """Return the logger's name from the document of a collector that parses oslo.log's format."""
    names = ("python_module", "logger_name", *(("name",) if "context" in document else ()))
    loggers = (document.get(name) for name in names)
    return next((logger for logger in loggers if isinstance(logger, str) and logger), "")


def _add_context(text: str, context: object) -> bytes:
    """Return a body; a document of oslo.log has the request context beside a bare notification."""
    if not isinstance(context, Mapping):
        return text.encode("utf-8", "replace")
    try:
        notification = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise Unreadable(f"no notification in this document: {type(error).__name__}") from error
    return msgspec.json.encode({**log_lines.flatten_context(context), **notification})


def _parse_payload(payload: object) -> object:
    """Return a payload that a collector stored as a text of JSON; any other stays as it is."""
    if isinstance(payload, str) and payload.startswith(("{", "[")):
        try:
            return json.loads(payload)
        except ValueError:
            return payload
    return payload
