"""The notification in a record of a service's log, as a body of format 1.0. Pure.

``log.py`` keeps the lines that may hold a notification; ``sinks/history.py`` extracts it by
``LogSource.extract``. The logger decides which of three kinds a record is:

- ``oslo.messaging.notification.<type>`` is ``driver = log``. Its message is the notification as
  JSON (oslo_messaging/notify/_impl_log.py), without its context. oslo.log's prefix stands in for
  it: ``[<global request> <request> <user> <project> ...]`` (oslo_log/_options.py,
  logging_context_format_string and logging_user_identity_format).
- ``oslo_messaging.notify.messaging`` writes ``Could not send notification to <topic>. Payload=``
  before a notification that the bus did not accept, as Python prints a dict, with its context
  (oslo_messaging/notify/messaging.py).
- ``keystonemiddleware.audit`` without oslo.messaging writes ``Event type: <type>, Context: <dict>,
  Payload: <dict>`` (keystonemiddleware/audit/_notifier.py). It has no message_id: one is derived
  from its CADF id.

Services log texts that tenants chose, such as the name of a failed login. Such a text may hold a
whole notification, so only the logger at its place in the record and a message that is a
notification from its first character count. A record is a line in oslo.log's format, behind the
header of syslog or Apache or none, or a JSON object of oslo.log's JSON and Fluentd formatters.
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from uuid import NAMESPACE_OID, uuid5

import msgspec

from stackbus.errors import Unreadable

_DRIVER = "oslo.messaging.notification."
_FAILED_LOGGERS = ("oslo_messaging.notify.messaging", "oslo.messaging.notify.messaging")
_AUDIT_LOGGER = "keystonemiddleware.audit"
_MARKS = (_DRIVER.encode(), b"Could not send notification to ", b"Event type: audit.")

_COLOR = re.compile(r"\x1b\[[\d;]{0,10}m")
_RECORD = re.compile(
    r"(?:[A-Z][a-z]{2} [ \d]\d \d\d:\d\d:\d\d \S{1,255} \S{1,255}: "  # syslog
    r"|\d{4}-\d\d-\d\dT[\d:.,+Z-]{8,30} \S{1,255} \S{1,255}: "  # syslog, ISO 8601
    r"|(?:\[[^\[\]]{1,100}\] ){2,6})?"  # Apache's error log
    r"(?:\d{4}-\d\d-\d\d[ T]\d\d:\d\d:\d\d[.,\d]{0,20}(?:Z|[+-]\d\d:?\d\d)? "
    r"(?:\[?\d{1,10}\]? )?)?"
    r"(?:DEBUG|TRACE|INFO|AUDIT|WARN|WARNING|ERROR|CRITICAL) {1,8}"
    r"(?P<logger>[\w.:-]{1,300}) "
    r"(?P<context>(?:\[[^\[\]{}\"']{0,300}\] ){0,3})"
)
"""The beginning of a record, up to its message."""
_FAILED = re.compile(r"Could not send notification to [^ ]{1,255}\. Payload=(?=\{)")
_AUDIT = re.compile(r"Event type: (audit\.[\w.]+), Context: (.*?), Payload: (\{.*)", re.DOTALL)
_CONTEXT = re.compile(
    r"\[(?:(?P<global>req-[\w-]+|None) )?(?P<request>req-[\w-]+|-)"
    r"(?: (?P<user>[\w-]+))?(?: (?P<project>[\w-]+))?(?: [^\]\[{]*)?\]"
)
_EMPTY = {"-", "None", None}
_CONTEXT_NAMES = (
    "user_id",
    "user",
    "user_name",
    "project_id",
    "tenant",
    "request_id",
    "global_request_id",
    "remote_address",
)
_json = json.JSONDecoder()


@dataclass(frozen=True, slots=True)
class LogRecord:
    """A record as a service logged it; ``context`` names the request as a notification does."""

    logger: str
    message: str
    context: Mapping[str, str] = field(default_factory=dict)


def writes_notifications(logger: str) -> bool:
    """Return whether a logger of this name writes notifications."""
    return logger.startswith((_DRIVER, _AUDIT_LOGGER)) or logger in _FAILED_LOGGERS


def may_hold_notification(line: bytes) -> bool:
    """Return whether ``line`` is a record of a logger of notifications, or of an unknown format.

    A line in which another logger quotes a notification is not one.
    """
    if not any(mark in line for mark in _MARKS):
        return False
    record = parse_record(line.decode("utf-8", "replace"))
    return record is None or writes_notifications(record.logger)


def extract_notification(line: bytes) -> bytes:
    """Return the notification in ``line``.

    Raises Unreadable if there is none, with a reason that quotes nothing of the line.
    """
    record = parse_record(line.decode("utf-8", "replace"))
    if record is None:
        raise Unreadable(
            "the format of this log line is not oslo.log's, so nobody can tell which part of it "
            "the service wrote: use oslo.log's default format or its JSON formatter"
        )
    return read_record(record)


def read_record(record: LogRecord) -> bytes:
    """Return the notification that ``record`` is. Raises Unreadable if it is none."""
    try:
        notification = _parse(record)
    except (ValueError, SyntaxError, RecursionError, MemoryError, KeyError, TypeError) as error:
        raise Unreadable(f"no notification in this line: {type(error).__name__}") from error
    return msgspec.json.encode(notification)


def parse_record(line: str) -> LogRecord | None:
    """Return the parts of a line; None if its format is unknown."""
    if line.startswith("{"):
        return _parse_structured(line)
    line = _COLOR.sub("", line)
    match = _RECORD.match(line)
    if match is None:
        return None
    return LogRecord(match["logger"], line[match.end() :], _parse_context(match["context"]))


def _parse(record: LogRecord) -> dict[str, Any]:
    if record.logger.startswith(_DRIVER):
        notification = _parse_logged(record.message)
        if notification.get("event_type") != record.logger.removeprefix(_DRIVER):
            raise Unreadable("the logger of this line names another event type than its message")
        return {**record.context, **notification}
    if record.logger in _FAILED_LOGGERS and (match := _FAILED.match(record.message)):
        return {**record.context, **_parse_dict(record.message[match.end() :])}
    if record.logger.startswith(_AUDIT_LOGGER) and (match := _AUDIT.match(record.message)):
        return {**record.context, **_parse_audit(match)}
    raise Unreadable("no notification in this line: its message does not begin with one")


def _parse_logged(message: str) -> dict[str, Any]:
    """Return the JSON object that ``message`` begins with, if no other one follows it."""
    if not message.startswith("{"):
        raise Unreadable("no notification in this line: its message does not begin with one")
    notification, end = _json.raw_decode(message)
    if "{" in message[end:]:
        raise Unreadable("more than one object in this line: one of them is not the service's")
    return dict(notification)


def _parse_structured(line: str) -> LogRecord | None:
    """Return the record in a line that is a JSON object; None if it is not oslo.log's."""
    try:
        document = json.loads(line)
    except (ValueError, RecursionError):
        return None
    logger, message, context = (document.get(name) for name in ("name", "message", "context"))
    if not isinstance(logger, str) or not isinstance(message, str):
        return None
    return LogRecord(
        logger, message, flatten_context(context if isinstance(context, Mapping) else {})
    )


def flatten_context(context: Mapping[str, Any]) -> dict[str, str]:
    """Return the request context as oslo.messaging's serializers flatten it."""
    return {
        f"_context_{name}": text
        for name in _CONTEXT_NAMES
        if isinstance(text := context.get(name), str) and text
    }


def _parse_context(brackets: str) -> dict[str, str]:
    """Return the request context in the brackets that oslo.log writes before a message."""
    match = _CONTEXT.search(brackets)
    if match is None:
        return {}
    texts = {
        "_context_global_request_id": match["global"],
        "_context_request_id": match["request"],
        "_context_user_id": match["user"],
        "_context_project_id": match["project"],
    }
    return {name: text for name, text in texts.items() if text is not None and text not in _EMPTY}


def _parse_audit(match: re.Match[str]) -> dict[str, Any]:
    event_type, context, payload = match[1], _parse_dict(match[2]), _parse_dict(match[3])
    cadf_id = str(payload["id"])
    return {
        # A request and its response are two notifications of one CADF event, with one id.
        "message_id": str(uuid5(NAMESPACE_OID, f"{cadf_id} {event_type}")),
        "event_type": event_type,
        "priority": "INFO",
        "publisher_id": "",
        "timestamp": str(payload["eventTime"]),
        "payload": payload,
        **flatten_context(context),
    }


def _parse_dict(text: str) -> dict[str, Any]:
    value = _parse_python(text)
    return value if isinstance(value, dict) else {}


def _parse_python(text: str) -> object:
    """Parse the Python literal at the start of ``text``. Raises SyntaxError or ValueError.

    Nothing is executed: a call such as ``datetime.datetime(2026, 1, 1)`` is returned as its text.
    """
    text = text.strip()
    try:
        tree = ast.parse(text, mode="eval")
    except SyntaxError as error:
        # A log format may add text after the message: cut it off if the error begins there.
        if error.lineno != 1 or not error.offset or error.offset < 2:  # noqa: PLR2004 -- "{"
            raise
        end = text.rfind("}", 0, error.offset)
        tree = ast.parse(text[: end + 1], mode="eval")
    return _evaluate(tree.body)


def _evaluate(node: ast.expr) -> object:
    match node:
        case ast.Constant(value=str() | int() | float() | None as value):
            return value
        case ast.Constant(value=bytes() as value):
            return value.decode("utf-8", "replace")
        case ast.Dict(keys=keys, values=values):
            return {
                _evaluate_key(key): _evaluate(value)
                for key, value in zip(keys, values, strict=True)
                if key is not None
            }
        case ast.List(elts=members) | ast.Tuple(elts=members) | ast.Set(elts=members):
            return [_evaluate(member) for member in members]
        case ast.UnaryOp(op=ast.USub(), operand=ast.Constant(value=int() | float() as value)):
            return -value
        case _:
            return ast.unparse(node)


def _evaluate_key(node: ast.expr) -> str:
    value = _evaluate(node)
    return value if isinstance(value, str) else json.dumps(value)
