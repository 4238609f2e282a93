"""The notification in a line of a service's log. Pure: bytes in, a bare notification out.

Called by ``log.py`` (is there one?) and ``batch.py`` (which one?). Three kinds of lines hold one:

- ``driver = log`` writes the notification as JSON, logger ``oslo.messaging.notification.<type>``
  (oslo_messaging/notify/_impl_log.py), without its context: what oslo.log's prefix tells of the
  actor, ``[<global request> <request> <user> <project> ...]``, takes its place
  (oslo_log/_options.py, logging_context_format_string and logging_user_identity_format);
- ``Could not send notification to <topic>. Payload=`` what the bus did not take, as Python writes
  a dict, with its context (oslo_messaging/notify/messaging.py);
- ``Event type: <type>, Context: <dict>, Payload: <dict>`` is keystonemiddleware's audit filter
  without oslo.messaging (keystonemiddleware/audit/_notifier.py): it has no message_id, so one is
  made of its CADF id.

Each may be the ``message`` of a JSON object, as oslo.log's JSON and Fluentd formatters have it.
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Mapping
from typing import Any
from uuid import NAMESPACE_OID, uuid5

import msgspec

from stackbus.errors import Unreadable

LOG = "log"

_DRIVER = b"oslo.messaging.notification."
_FAILED = b"Could not send notification to "
_AUDITED = b"Event type: audit."
_MARKS = (_DRIVER, _FAILED, _AUDITED)

_PAYLOAD = re.compile(r"Could not send notification to [^ ]{1,255}\. Payload=(?=\{)")
_AUDIT = re.compile(r"Event type: (audit\.[\w.]+), Context: (.*?), Payload: (\{.*)", re.DOTALL)
_PREFIX = re.compile(
    r"\[(?:(?P<global>req-[\w-]+|None) )?(?P<request>req-[\w-]+|-)"
    r"(?: (?P<user>[\w-]+))?(?: (?P<project>[\w-]+))?(?: [^\]\[{]*)?\]"
)
_NAMELESS = {"-", "None", None}
_json = json.JSONDecoder()


def is_told(line: bytes) -> bool:
    """Tell by a look whether a notification may be in ``line``."""
    return any(mark in line for mark in _MARKS)


def notification_in_line(line: bytes) -> bytes:
    """Give the notification in ``line`` as a body of format 1.0. Raises Unreadable if it is none.

    The reason quotes nothing of the line.
    """
    try:
        return _encoded(_found(line.decode("utf-8", "replace")))
    except (ValueError, SyntaxError, RecursionError, MemoryError, KeyError, TypeError) as error:
        raise Unreadable(f"no notification in this line: {type(error).__name__}") from error


def _encoded(notification: object) -> bytes:
    if not isinstance(notification, dict):
        raise Unreadable("no notification in this line: what stands there is no object")
    return msgspec.json.encode(notification)


def _found(line: str) -> object:
    structured = _structured(line)
    text, context = structured or (line, {})
    context = context or _context(text)
    if match := _AUDIT.search(text):
        return _audited(match)
    if match := _PAYLOAD.search(text):
        told = _python(text[match.end() :])
        return {**context, **told} if isinstance(told, dict) else told
    start = text.find("{", 0 if structured else text.find(_DRIVER.decode()))
    if start < 0:
        raise Unreadable("no notification in this line: the text after the logger's name is none")
    told = _json.raw_decode(text, start)[0]
    return {**context, **told} if isinstance(told, dict) else told


def _structured(line: str) -> tuple[str, dict[str, str]] | None:
    """Read a line that is an object itself: its message, and what its context tells."""
    if not line.startswith("{"):
        return None
    try:
        value = json.loads(line)
    except ValueError:
        return None
    message, context = value.get("message"), value.get("context")
    if not isinstance(message, str):
        return None
    told = context if isinstance(context, Mapping) else {}
    return message, {
        f"_context_{name}": text
        for name in _CONTEXT
        if isinstance(text := told.get(name), str) and text
    }


_CONTEXT = (
    "user_id",
    "user",
    "user_name",
    "project_id",
    "tenant",
    "request_id",
    "global_request_id",
    "remote_address",
)


def _context(line: str) -> dict[str, str]:
    """Read the prefix that oslo.log writes before a message."""
    match = _PREFIX.search(line, 0, line.find("{") if "{" in line else len(line))
    if match is None:
        return {}
    told = {
        "_context_global_request_id": match["global"],
        "_context_request_id": match["request"],
        "_context_user_id": match["user"],
        "_context_project_id": match["project"],
    }
    return {name: text for name, text in told.items() if text not in _NAMELESS and text is not None}


def _audited(match: re.Match[str]) -> dict[str, Any]:
    event_type, context, payload = match[1], _dict(match[2]), _dict(match[3])
    known = str(payload["id"])
    return {
        # One CADF event is told twice, as its request and as its response, with one id.
        "message_id": str(uuid5(NAMESPACE_OID, f"{known} {event_type}")),
        "event_type": event_type,
        "priority": "INFO",
        "publisher_id": "",
        "timestamp": str(payload["eventTime"]),
        "payload": payload,
        **{
            f"_context_{name}": text
            for name in _CONTEXT
            if isinstance(text := context.get(name), str) and text
        },
    }


def _dict(text: str) -> Mapping[str, Any]:
    value = _python(text)
    return value if isinstance(value, dict) else {}


def _python(text: str) -> object:
    """Read the Python value that ``text`` begins with. Raises SyntaxError or ValueError.

    Only literals, and calls such as ``datetime.datetime(2026, 1, 1)``, which are read as the text
    that they are: nothing is run.
    """
    text = text.strip()
    try:
        tree = ast.parse(text, mode="eval")
    except SyntaxError as error:
        # What a format string puts behind the message: cut it off, if it begins there.
        if error.lineno != 1 or not error.offset or error.offset < 2:  # noqa: PLR2004 -- "{"
            raise
        end = text.rfind("}", 0, error.offset)
        tree = ast.parse(text[: end + 1], mode="eval")
    return _value(tree.body)


def _value(node: ast.expr) -> object:
    match node:
        case ast.Constant(value=str() | int() | float() | None as value):
            return value
        case ast.Constant(value=bytes() as value):
            return value.decode("utf-8", "replace")
        case ast.Dict(keys=keys, values=values):
            return {
                _name(key): _value(value)
                for key, value in zip(keys, values, strict=True)
                if key is not None
            }
        case ast.List(elts=members) | ast.Tuple(elts=members) | ast.Set(elts=members):
            return [_value(member) for member in members]
        case ast.UnaryOp(op=ast.USub(), operand=ast.Constant(value=int() | float() as value)):
            return -value
        case _:
            return ast.unparse(node)


def _name(node: ast.expr) -> str:
    value = _value(node)
    return value if isinstance(value, str) else json.dumps(value)
