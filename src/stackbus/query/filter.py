"""What a question asks for: a value, and the conditions of SQL that it becomes. Pure.

Called by ``events.py``, ``audit.py`` and ``coverage.py``; made by the doors.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from stackbus.bus.names import PRIORITIES
from stackbus.errors import InputError
from stackbus.events.actions import NO_PHASE, OUTCOMES, PHASES
from stackbus.services import BY_NAME, SERVICES
from stackbus.units import parse_duration

FIELDS = (
    "id", "service", "type", "action", "phase", "outcome", "priority", "publisher", "host",
    "resource_type", "resource_id", "resource_name", "project_id", "user_id", "user_name",
    "actor_project_id", "request_id", "global_request_id", "address",
)  # fmt: skip
"""The fields of an event that are texts, each of which a question may name."""

_WORDS = {
    "service": (*(one.name for one in SERVICES), ""),
    "phase": (*dict.fromkeys(PHASES.values()), NO_PHASE),
    "outcome": OUTCOMES,
    "priority": PRIORITIES,
}
"""Fields with few values: another word would find nothing, and look like an answer."""

_FIRST, _LAST = datetime(1970, 1, 1, tzinfo=UTC), datetime(2200, 1, 1, tzinfo=UTC)

Conditions = tuple[list[str], dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Filter:
    """Which events are asked for. Several values of one field: any of them; several fields: all.

    A value with ``*`` (any text) or ``?`` (one character) is a pattern. Times: ``since`` belongs
    to the answer, ``until`` no longer does. ``channels``: one of these told it.
    """

    values: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    indices: tuple[int, ...] = ()
    since: datetime | None = None
    until: datetime | None = None
    received_since: datetime | None = None
    channels: tuple[str, ...] = ()
    attributes: tuple[tuple[str, str], ...] = ()
    payload: str = ""

    def conditions(self) -> Conditions:
        """Give SQL conditions, and the parameters in them."""
        found: list[str] = []
        parameters: dict[str, Any] = {}
        for name, wanted in self.values.items():
            if wanted:
                found.append(_any_of(name, wanted, parameters))
        if self.indices:
            found.append("`index` IN {indices:Array(UInt32)}")
            parameters["indices"] = list(self.indices)
        for name, column, sign, moment in (
            ("since", "time", ">=", self.since),
            ("until", "time", "<", self.until),
            ("received_since", "received", ">=", self.received_since),
        ):
            if moment is not None:
                found.append(f"{column} {sign} {{{name}:DateTime64(6, 'UTC')}}")
                parameters[name] = sql_time(moment)
        if self.channels:
            found.append(
                "(hasAny(channels, {channels:Array(String)}) OR (time, id) IN "
                "(SELECT time, id FROM told WHERE channel IN {channels:Array(String)}))"
            )
            parameters["channels"] = list(self.channels)
        for number, (name, value) in enumerate(self.attributes):
            found.append(
                f"trim(BOTH '\"' FROM JSONExtractRaw(attributes, {{attribute_{number}:String}})) "
                f"= {{value_{number}:String}}"
            )
            parameters[f"attribute_{number}"] = name
            parameters[f"value_{number}"] = value
        if self.payload:
            found.append("position(payload, {payload:String}) > 0")
            parameters["payload"] = self.payload
        return found, parameters


def _any_of(name: str, wanted: tuple[str, ...], parameters: dict[str, Any]) -> str:
    if name not in FIELDS:
        raise InputError(f"{name!r}: an event has no such field; it has {', '.join(FIELDS)}")
    patterns = [value for value in wanted if _is_pattern(value)]
    exact = [_word(name, value) for value in wanted if not _is_pattern(value)]
    found = []
    if exact:
        found.append(f"`{name}` IN {{{name}:Array(String)}}")
        parameters[name] = exact
    for number, pattern in enumerate(patterns):
        found.append(f"`{name}` LIKE {{{name}_{number}:String}}")
        parameters[f"{name}_{number}"] = _like(pattern)
    return found[0] if len(found) == 1 else f"({' OR '.join(found)})"


def _word(name: str, value: str) -> str:
    """Give ``value``; a service by its type too. Raises InputError if the field never has it."""
    if name == "service" and value in BY_NAME:
        return BY_NAME[value].name
    if value not in _WORDS.get(name, (value,)):
        known = ", ".join(word for word in _WORDS[name] if word)
        raise InputError(f"{name}: {value!r}: one of {known}")
    return value


def _is_pattern(value: str) -> bool:
    return "*" in value or "?" in value


def _like(pattern: str) -> str:
    escaped = re.sub(r"([\\%_])", r"\\\1", pattern)
    return escaped.replace("*", "%").replace("?", "_")


def moment(text: str, option: str, now: datetime) -> datetime:
    """Read a time: ``-2h`` before ``now``, or ISO 8601 (UTC where it names no zone).

    Raises InputError.
    """
    try:
        if text.startswith("-"):
            return max(_FIRST, now - parse_duration(text[1:]))
        found = datetime.fromisoformat(text)
        found = found.replace(tzinfo=UTC) if found.tzinfo is None else found.astimezone(UTC)
    except (ValueError, OverflowError):
        raise InputError(
            f"{option}: {text!r}: a time was expected: -2h, 2026-11-24, 2026-11-24T10:00:00Z"
        ) from None
    return min(max(found, _FIRST), _LAST)


def sql_time(moment: datetime) -> str:
    """Write a time as ClickHouse reads it."""
    return f"{moment:%Y-%m-%d %H:%M:%S.%f}"
