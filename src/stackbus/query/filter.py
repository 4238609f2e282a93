"""EventFilter: which events a question is about, and the SQL conditions for them. Pure.

The doors make it; ``events.py``, ``audit.py`` and ``coverage.py`` query with it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from stackbus.errors import InputError
from stackbus.events.model import FIELD_INFO, TEXT_FIELDS
from stackbus.services import BY_NAME
from stackbus.units import parse_duration

_EARLIEST, _LATEST = datetime(1970, 1, 1, tzinfo=UTC), datetime(2200, 1, 1, tzinfo=UTC)

Conditions = tuple[list[str], dict[str, Any]]
"""SQL conditions, all of which an event must meet, and the values of their parameters."""


@dataclass(frozen=True, slots=True)
class EventFilter:
    """A selection of events: those that meet every condition that is given.

    ``values`` are texts by field name, of which an event has one; ``*`` in a value stands for any
    text, ``?`` for one character. ``since`` is inclusive, ``until`` exclusive. ``channels``: the
    event came over one of them. ``attributes`` are names and values; ``payload`` is a text in it.
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
        """Return the SQL conditions and their parameters.

        Raises InputError for a field that is not a text, and for a value that it never has.
        """
        conditions: list[str] = []
        parameters: dict[str, Any] = {}
        for name, values in self.values.items():
            if values:
                conditions.append(_field_condition(name, values, parameters))
        if self.indices:
            conditions.append("`index` IN {indices:Array(UInt32)}")
            parameters["indices"] = list(self.indices)
        for name, column, sign, limit in (
            ("since", "time", ">=", self.since),
            ("until", "time", "<", self.until),
            ("received_since", "received", ">=", self.received_since),
        ):
            if limit is not None:
                conditions.append(f"{column} {sign} {{{name}:DateTime64(6, 'UTC')}}")
                parameters[name] = sql_time(limit)
        if self.channels:
            conditions.append(
                "(hasAny(channels, {channels:Array(String)}) OR (time, id) IN "
                "(SELECT time, id FROM told WHERE channel IN {channels:Array(String)}))"
            )
            parameters["channels"] = list(self.channels)
        for number, (name, value) in enumerate(self.attributes):
            conditions.append(
                f"trim(BOTH '\"' FROM JSONExtractRaw(attributes, {{attribute_{number}:String}})) "
                f"= {{value_{number}:String}}"
            )
            parameters[f"attribute_{number}"] = name
            parameters[f"value_{number}"] = value
        if self.payload:
            conditions.append("position(payload, {payload:String}) > 0")
            parameters["payload"] = self.payload
        return conditions, parameters


def check_text_field(name: str) -> None:
    """Raise InputError for a name that is not a text field of an event."""
    if name not in TEXT_FIELDS:
        raise InputError(
            f"{name!r} is not a text field of an event: give one of {', '.join(TEXT_FIELDS)}"
        )


def _field_condition(name: str, values: tuple[str, ...], parameters: dict[str, Any]) -> str:
    check_text_field(name)
    patterns = [value for value in values if _is_pattern(value)]
    exact = [_exact_value(name, value) for value in values if not _is_pattern(value)]
    conditions = []
    if exact:
        conditions.append(f"`{name}` IN {{{name}:Array(String)}}")
        parameters[name] = exact
    for number, pattern in enumerate(patterns):
        conditions.append(f"`{name}` LIKE {{{name}_{number}:String}}")
        parameters[f"{name}_{number}"] = _like_pattern(pattern)
    return conditions[0] if len(conditions) == 1 else f"({' OR '.join(conditions)})"


def _exact_value(name: str, value: str) -> str:
    """Return ``value``, and the name of a service for its type.

    Raises InputError for a value that the field never has: an empty answer would mislead.
    """
    if name == "service" and value in BY_NAME:
        return BY_NAME[value].name
    words = FIELD_INFO[name].words
    if words and value not in words:
        raise InputError(f"{name}: {value!r} is not one of {', '.join(filter(None, words))}")
    return value


def _is_pattern(value: str) -> bool:
    return "*" in value or "?" in value


def _like_pattern(pattern: str) -> str:
    escaped = re.sub(r"([\\%_])", r"\\\1", pattern)
    return escaped.replace("*", "%").replace("?", "_")


def parse_time(text: str, name: str, now: datetime) -> datetime:
    """Parse a time: ``-2h`` is two hours before ``now``, others are ISO 8601, UTC by default.

    Times before 1970 and after 2199 become these limits. Raises InputError, which calls the value
    ``name``.
    """
    try:
        if text.startswith("-"):
            return max(_EARLIEST, now - parse_duration(text[1:]))
        time = datetime.fromisoformat(text)
        time = time.replace(tzinfo=UTC) if time.tzinfo is None else time.astimezone(UTC)
    except (ValueError, OverflowError):
        raise InputError(
            f"{name}: {text!r} is not a time: give -2h, 2026-11-24 or 2026-11-24T10:00:00Z"
        ) from None
    return min(max(time, _EARLIEST), _LATEST)


def sql_time(time: datetime) -> str:
    """Format a time as ClickHouse reads it."""
    return f"{time:%Y-%m-%d %H:%M:%S.%f}"
