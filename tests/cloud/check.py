"""Compare the notifications with the calls of the scenario. Pure: values in, a report out.

``report.py`` passes the record of the calls, the notifications as sent, and ``expected.toml``, the
table of the notifications that each call causes. A notification belongs to a call if it carries the
call's request id, the caller's or the service's. Some services write none (Glance never does): then
it belongs to the last call on its resource before it.
"""

from __future__ import annotations

import re
import tomllib
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from stackbus.services import BY_NAME
from tests.cloud.traffic import Sent

TABLE = Path(__file__).parent / "expected.toml"
_REQUEST = re.compile(r"req-[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
_MAX_DELAY = timedelta(seconds=90)
"""Time after the end of a call in which a notification without request id still belongs to it."""
_WORDS = re.compile(r"[A-Za-z0-9:_.-]+")
_MIN_ID_LENGTH = 8
"""A shorter id, the number of an aggregate, occurs anywhere in a body."""
_AUDIT = ".usage.audit"
"""Calls of tools that report every resource, without a user."""


@dataclass(frozen=True)
class Expected:
    """The event types that a call always emits (it may emit more), or why it emits none."""

    emits: tuple[str, ...] = ()
    silent: str = ""


@dataclass(frozen=True)
class Background:
    """Notifications that belong to no call, and why.

    ``caused_by``: they follow from calls whose names begin so, and come while one runs or soon
    after. If it is empty, they come at any time.
    """

    service: str
    types: re.Pattern[str]
    reason: str
    caused_by: str


@dataclass(frozen=True)
class Gap:
    """A gap in the audit of calls whose names begin with ``calls``, and its reason.

    ``lacks`` holds ``who``, ``what`` or ``result``.
    """

    calls: str
    lacks: tuple[str, ...]
    reason: str


@dataclass(frozen=True)
class Table:
    """The content of ``expected.toml``."""

    calls: Mapping[str, Expected]
    background: Sequence[Background]
    gaps: Sequence[Gap] = ()


@dataclass
class Row:
    """One call, the event types that it emitted, and a complaint if they are not as expected."""

    call: Mapping[str, Any]
    emitted: list[str] = field(default_factory=list)
    complaint: str = ""


def read_table(path: Path = TABLE) -> Table:
    """Read the table. Each call either emits or is silent."""
    document = tomllib.loads(path.read_text("utf-8"))
    calls = {}
    for name, entry in document["calls"].items():
        expected = Expected(tuple(entry.get("emits", ())), entry.get("silent", ""))
        assert bool(expected.silent) != bool(expected.emits), name
        calls[name] = expected
    background = [
        Background(
            entry["service"],
            re.compile(entry["types"]),
            entry["reason"],
            entry.get("caused_by", ""),
        )
        for entry in document["background"]
    ]
    gaps = [
        Gap(entry["calls"], tuple(entry["lacks"]), entry["reason"])
        for entry in document.get("audit", ())
    ]
    return Table(calls, background, gaps)


def assign(
    calls: Sequence[Mapping[str, Any]], sent: Sequence[Sent], table: Table
) -> tuple[list[list[int]], list[int]]:
    """Assign notifications to calls; return their indexes by call, and those of the strays."""
    by_request: dict[str, int] = {}
    by_resource: dict[str, list[int]] = defaultdict(list)
    people = {call[key] for call in calls for key in ("user_id", "project_id")}
    audits = []
    for index, call in enumerate(calls):
        requests = [call["request_id"], *(request["request_id"] for request in call["requests"])]
        by_request |= dict.fromkeys(filter(None, requests), index)
        if len(call["resource_id"] or "") >= _MIN_ID_LENGTH:
            by_resource[call["resource_id"]].append(index)
        if call["call"].endswith(_AUDIT):
            audits.append(index)
    assigned: list[list[int]] = [[] for _ in calls]
    strays = []
    for number, message in enumerate(sent):
        owners = {
            by_request[request]
            for request in _REQUEST.findall(message.body)
            if request in by_request
        }
        if not owners:
            words = set(_WORDS.findall(message.body)) & by_resource.keys()
            # Every body names a user and a project: these count only as the resource.
            words -= people - {_resource_id(message)}
            candidates = [index for word in words for index in by_resource[word]]
            same_service = [
                index for index in candidates if _service(calls[index]) == message.exchange
            ]
            owner = _find_audit(calls, audits, message)
            if owner is None:
                owner = _find_last(calls, sorted(same_service or candidates), message, table)
            owners = set() if owner is None else {owner}
        for index in owners:
            assigned[index].append(number)
        if not owners:
            strays.append(number)
    return assigned, strays


def compare(
    calls: Sequence[Mapping[str, Any]], sent: Sequence[Sent], table: Table
) -> tuple[list[Row], list[tuple[Sent, str]]]:
    """Return a row for each call, and each stray notification with its reason ("": none)."""
    assigned, strays = assign(calls, sent, table)
    types = [str(message.notification()["event_type"]) for message in sent]
    rows = []
    for call, numbers in zip(calls, assigned, strict=True):
        row = Row(call, sorted({types[number] for number in numbers}))
        row.complaint = _complaint(row, table.calls.get(call["call"]))
        rows.append(row)
    return rows, [
        (sent[number], _reason(sent[number], calls, table.background)) for number in strays
    ]


def differences(sent: Iterable[str], received: Iterable[str], topic: str) -> list[str]:
    """Return a sentence for message ids that were lost, are new, or came twice."""
    sent, received = list(sent), list(received)
    problems = []
    for name, ids, others in (("lost", sent, received), ("new", received, sent)):
        difference = set(ids) - set(others)
        if difference:
            example = min(difference)
            problems.append(f"{topic}: {name}: {len(difference)}, for instance {example}")
    if len(set(received)) != len(received):
        problems.append(f"{topic}: {len(received) - len(set(received))} came twice")
    return problems


def _complaint(row: Row, expected: Expected | None) -> str:
    if expected is None:
        return "this call is not in the table"
    if expected.silent:
        return "the table has it as silent, but it emits" if row.emitted else ""
    missing = [event_type for event_type in expected.emits if event_type not in row.emitted]
    return f"did not emit {', '.join(missing)}" if missing else ""


def _reason(
    message: Sent, calls: Sequence[Mapping[str, Any]], background: Sequence[Background]
) -> str:
    event_type = message.notification()["event_type"]
    for entry in background:
        if entry.service != message.exchange or not entry.types.fullmatch(event_type):
            continue
        causes = [call for call in calls if call["call"].startswith(entry.caused_by)]
        if not entry.caused_by or any(_is_near(call, message) for call in causes):
            return entry.reason
    return ""


def _find_last(
    calls: Sequence[Mapping[str, Any]], indexes: Sequence[int], message: Sent, table: Table
) -> int | None:
    """Return the last of these calls before the notification, if it is not long ago.

    Some notifications come late: a call that is known to emit this event type is preferred.
    """
    event_type = message.notification()["event_type"]
    begun = [index for index in indexes if _is_near(calls[index], message)]
    emitting = [
        index
        for index in begun
        if event_type in table.calls.get(calls[index]["call"], Expected()).emits
    ]
    return max(emitting or begun, default=None)


def _find_audit(
    calls: Sequence[Mapping[str, Any]], audits: Sequence[int], message: Sent
) -> int | None:
    """Return the audit tool that ran when a notification without a user was sent."""
    if message.notification().get("_context_user_id") is not None:
        return None
    for index in audits:
        call = calls[index]
        is_running = _moment(call, "begin") <= _time(message) <= _moment(call, "end")
        if _service(call) == message.exchange and is_running:
            return index
    return None


def _is_near(call: Mapping[str, Any], message: Sent) -> bool:
    """Return whether a notification was sent while the call ran, or soon after."""
    return _moment(call, "begin") <= _time(message) <= _moment(call, "end") + _MAX_DELAY


def _moment(call: Mapping[str, Any], key: str) -> datetime:
    return datetime.fromisoformat(call[key])


def _resource_id(message: Sent) -> str:
    notification = message.notification()
    payload = notification["payload"]
    service = BY_NAME.get(message.exchange)
    if service is None or not isinstance(payload, Mapping):
        return ""
    return service.read_resource_id(notification["event_type"], payload)


def _service(call: Mapping[str, Any]) -> str:
    return str(call["call"]).partition(".")[0]


def _time(message: Sent) -> datetime:
    text = str(message.notification()["timestamp"])
    return datetime.fromisoformat(text).replace(tzinfo=UTC)
