"""Hold what was told against what was done. Pure: values in, a report out.

Called by ``__main__.py`` with the scenario's record, the notifications as sent, and ``told.toml``,
the table of what each call tells. A notification belongs to a call if it carries the call's request
id, the caller's or the service's; where a service writes none (Glance, all of it), if it speaks
of the call's resource between this call and the next one on that resource.
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
from tests.cloud.telling import Sent

TABLE = Path(__file__).parent / "told.toml"
_REQUEST = re.compile(r"req-[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
_LATEST = timedelta(seconds=90)
"""How long after a call's end a notification without a request id still belongs to it."""
_WORDS = re.compile(r"[A-Za-z0-9:_.-]+")
_SHORTEST_ID = 8
"""What is shorter, an aggregate's number, could stand anywhere."""
_AUDIT = ".usage.audit"
"""These calls are tools that tell of everything there is, in nobody's name."""


@dataclass(frozen=True)
class Expected:
    """What one kind of call always tells (it may tell more); or why it is silent."""

    tells: tuple[str, ...] = ()
    silent: str = ""


@dataclass(frozen=True)
class Background:
    """Notifications that no call can be named for, and why.

    ``of``: they are a consequence of such calls, by the beginning of their names, and are told
    while one runs or soon after. Without, they come on their own.
    """

    service: str
    types: re.Pattern[str]
    reason: str
    of: str


@dataclass(frozen=True)
class Unsaid:
    """What an audit does not tell of some calls (``who``, ``what``, ``result``), and why.

    ``calls``: the beginning of their names.
    """

    calls: str
    lacks: tuple[str, ...]
    reason: str


@dataclass(frozen=True)
class Table:
    """``told.toml``, read."""

    calls: Mapping[str, Expected]
    background: Sequence[Background]
    unsaid: Sequence[Unsaid] = ()


@dataclass
class Row:
    """One call, what it told, and what is not explained about that."""

    call: Mapping[str, Any]
    told: list[str] = field(default_factory=list)
    complaint: str = ""


def read_table(path: Path = TABLE) -> Table:
    """Read the table. A call that both tells and is silent is a mistake."""
    document = tomllib.loads(path.read_text("utf-8"))
    calls = {}
    for name, one in document["calls"].items():
        expected = Expected(tuple(one.get("tells", ())), one.get("silent", ""))
        assert bool(expected.silent) != bool(expected.tells), name
        calls[name] = expected
    background = [
        Background(one["service"], re.compile(one["types"]), one["reason"], one.get("of", ""))
        for one in document["background"]
    ]
    unsaid = [
        Unsaid(one["calls"], tuple(one["lacks"]), one["reason"])
        for one in document.get("audit", ())
    ]
    return Table(calls, background, unsaid)


def belonging(
    calls: Sequence[Mapping[str, Any]], sent: Sequence[Sent], table: Table
) -> tuple[list[list[int]], list[int]]:
    """Give the places of each call's notifications, and of those that belong to none."""
    by_request: dict[str, int] = {}
    by_resource: dict[str, list[int]] = defaultdict(list)
    people = {call[who] for call in calls for who in ("user_id", "project_id")}
    audits = []
    for place, call in enumerate(calls):
        for request in [call["request_id"], *(one["request_id"] for one in call["requests"])]:
            if request:
                by_request[request] = place
        if len(call["resource_id"] or "") >= _SHORTEST_ID:
            by_resource[call["resource_id"]].append(place)
        if call["call"].endswith(_AUDIT):
            audits.append(place)
    found: list[list[int]] = [[] for _ in calls]
    strays = []
    for number, one in enumerate(sent):
        owners = {
            by_request[request] for request in _REQUEST.findall(one.body) if request in by_request
        }
        if not owners:
            words = set(_WORDS.findall(one.body)) & by_resource.keys()
            # Users and projects stand in every body: they tie what is about them, nothing else.
            words -= people - {_resource(one)}
            places = [place for word in words for place in by_resource[word]]
            own = [place for place in places if _service(calls[place]) == one.exchange]
            when = _time(one)
            latest = _audited(calls, audits, one, when)
            if latest is None:
                latest = _latest(calls, sorted(own or places), one, table)
            owners = set() if latest is None else {latest}
        for place in owners:
            found[place].append(number)
        if not owners:
            strays.append(number)
    return found, strays


def compare(
    calls: Sequence[Mapping[str, Any]], sent: Sequence[Sent], table: Table
) -> tuple[list[Row], list[tuple[Sent, str]]]:
    """Give a row for each call, and each notification of no call with its reason ('': none)."""
    found, strays = belonging(calls, sent, table)
    types = [str(one.notification()["event_type"]) for one in sent]
    rows = []
    for call, numbers in zip(calls, found, strict=True):
        row = Row(call, sorted({types[number] for number in numbers}))
        row.complaint = _complaint(row, table.calls.get(call["call"]))
        rows.append(row)
    return rows, [
        (sent[number], _reason(sent[number], calls, table.background)) for number in strays
    ]


def unlike(first: Iterable[str], second: Iterable[str], what: str) -> list[str]:
    """Tell what is in one and not in the other, or twice in one of them."""
    first, second = list(first), list(second)
    problems = []
    for name, some, others in ((f"{what}: lost", first, second), (f"{what}: new", second, first)):
        rest = set(some) - set(others)
        if rest:
            problems.append(f"{name}: {len(rest)}, for instance {min(rest)}")
    if len(set(second)) != len(second):
        problems.append(f"{what}: {len(second) - len(set(second))} came twice")
    return problems


def _complaint(row: Row, expected: Expected | None) -> str:
    if expected is None:
        return "this call is not in the table"
    if expected.silent:
        return "it is in the table as silent, but it tells" if row.told else ""
    missing = [one for one in expected.tells if one not in row.told]
    return f"did not tell {', '.join(missing)}" if missing else ""


def _reason(one: Sent, calls: Sequence[Mapping[str, Any]], background: Sequence[Background]) -> str:
    when, event_type = _time(one), one.notification()["event_type"]
    for known in background:
        if known.service != one.exchange or not known.types.fullmatch(event_type):
            continue
        if not known.of or any(
            _moment(call, "begin") <= when <= _moment(call, "end") + _LATEST
            for call in calls
            if call["call"].startswith(known.of)
        ):
            return known.reason
    return ""


def _latest(
    calls: Sequence[Mapping[str, Any]], places: Sequence[int], one: Sent, table: Table
) -> int | None:
    """Give the last of these calls that had begun by then, if that is not long ago.

    One that is known to tell of this comes before one that is not: some is told late.
    """
    when, event_type = _time(one), one.notification()["event_type"]
    begun = [
        place
        for place in places
        if _moment(calls[place], "begin") <= when <= _moment(calls[place], "end") + _LATEST
    ]
    telling = [
        place
        for place in begun
        if event_type in table.calls.get(calls[place]["call"], Expected()).tells
    ]
    return max(telling or begun, default=None)


def _moment(call: Mapping[str, Any], word: str) -> datetime:
    return datetime.fromisoformat(call[word])


def _audited(
    calls: Sequence[Mapping[str, Any]], audits: Sequence[int], one: Sent, when: datetime
) -> int | None:
    """Give the audit that ran when this was told in nobody's name, if one did."""
    if one.notification().get("_context_user_id") is not None:
        return None
    for place in audits:
        call = calls[place]
        ran = _moment(call, "begin") <= when <= _moment(call, "end")
        if _service(call) == one.exchange and ran:
            return place
    return None


def _resource(one: Sent) -> str | None:
    notification = one.notification()
    payload = notification["payload"]
    service = BY_NAME.get(one.exchange)
    if service is None or not isinstance(payload, Mapping):
        return None
    return service.read_resource_id(notification["event_type"], payload)


def _service(call: Mapping[str, Any]) -> str:
    return str(call["call"]).partition(".")[0]


def _time(one: Sent) -> datetime:
    text = str(one.notification()["timestamp"])
    return datetime.fromisoformat(text).replace(tzinfo=UTC)
