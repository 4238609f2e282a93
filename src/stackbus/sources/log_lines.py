"""The notification in a line of a service's log, as a body of format 1.0. Pure.

``log.py`` keeps the lines that may hold a notification; ``sinks/history.py`` extracts it by
``LogSource.extract``. Three kinds of lines hold one:

- ``driver = log`` writes the notification as JSON, logger ``oslo.messaging.notification.<type>``
  (oslo_messaging/notify/_impl_log.py), without its context. oslo.log's prefix stands in for it:
  ``[<global request> <request> <user> <project> ...]`` (oslo_log/_options.py,
  logging_context_format_string and logging_user_identity_format).
- ``Could not send notification to <topic>. Payload=`` holds a notification that the bus did not
  accept, as Python prints a dict, with its context (oslo_messaging/notify/messaging.py).
- ``Event type: <type>, Context: <dict>, Payload: <dict>`` is keystonemiddleware's audit filter
  without oslo.messaging (keystonemiddleware/audit/_notifier.py). It has no message_id: one is
  derived from its CADF id.

Each may also be the ``message`` of a JSON object: oslo.log's JSON and Fluentd formatters.
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

_DRIVER = b"oslo.messaging.notification."
_FAILED = b"Could not send notification to "
_AUDIT = b"Event type: audit."

_FAILED_PATTERN = re.compile(r"Could not send notification to [^ ]{1,255}\. Payload=(?=\{)")
_AUDIT_PATTERN = re.compile(
    r"Event type: (audit\.[\w.]+), Context: (.*?), Payload: (\{.*)", re.DOTALL
)
_PREFIX_PATTERN = re.compile(
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


def may_hold_notification(line: bytes) -> bool:
    """Return whether ``line`` contains the text that marks a notification."""
    return any(text in line for text in (_DRIVER, _FAILED, _AUDIT))


def extract_notification(line: bytes) -> bytes:
    """Return the notification in ``line``.

    Raises Unreadable if there is none, with a reason that quotes nothing of the line.
    """
    try:
        notification = _parse(line.decode("utf-8", "replace"))
    except (ValueError, SyntaxError, RecursionError, MemoryError, KeyError, TypeError) as error:
        raise Unreadable(f"no notification in this line: {type(error).__name__}") from error
    if not isinstance(notification, dict):
        raise Unreadable("no notification in this line: its payload is not an object")
    return msgspec.json.encode(notification)


def _parse(line: str) -> object:
    structured = _parse_structured(line)
    text, context = structured or (line, {})
    context = context or _parse_prefix(text)
    if match := _AUDIT_PATTERN.search(text):
        return _parse_audit(match)
    if match := _FAILED_PATTERN.search(text):
        notification = _parse_python(text[match.end() :])
    else:
        start = text.find("{", 0 if structured else text.find(_DRIVER.decode()))
        if start < 0:
            raise Unreadable("no notification in this line: no JSON after the logger's name")
        notification = _json.raw_decode(text, start)[0]
    return {**context, **notification} if isinstance(notification, dict) else notification


def _parse_structured(line: str) -> tuple[str, dict[str, str]] | None:
    """Return the message and the context of a line that is a JSON object; None if it is not."""
    if not line.startswith("{"):
        return None
    try:
        document = json.loads(line)
    except ValueError:
        return None
    message, context = document.get("message"), document.get("context")
    if not isinstance(message, str):
        return None
    return message, _flatten_context(context if isinstance(context, Mapping) else {})


def _flatten_context(context: Mapping[str, Any]) -> dict[str, str]:
    """Return the request context as oslo.messaging's serializers flatten it."""
    return {
        f"_context_{name}": text
        for name in _CONTEXT_NAMES
        if isinstance(text := context.get(name), str) and text
    }


def _parse_prefix(line: str) -> dict[str, str]:
    """Return the request context in the prefix that oslo.log writes before a message."""
    match = _PREFIX_PATTERN.search(line, 0, line.find("{") if "{" in line else len(line))
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
        **_flatten_context(context),
    }


def _parse_dict(text: str) -> Mapping[str, Any]:
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
