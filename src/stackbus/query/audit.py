"""The audit trail of a resource, a user, a project or a request: who, from where, did what.

``audit_trail`` reads the events; ``fold_events`` (pure) folds them into lines. One action is one
line, with its duration: its start and its end, and the notifications that report the same action
twice (Nova in both formats, Designate under both names of a zone). ``stackbus audit`` prints it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from stackbus.events.actions import EXISTS
from stackbus.events.model import BUS, Event
from stackbus.history.history import History
from stackbus.query.events import read_pages
from stackbus.query.filter import EventFilter

_TWIN_INTERVAL = timedelta(seconds=2)
"""Longest time between two notifications of the same part of an action."""
_REQUESTS_PER_QUERY = 500
_MAX_START_AGE = timedelta(days=1)
"""Maximum age of a start event that has no resource id yet, when its action ends.

Such a start belongs to a creation (of Neutron, Masakari and Nova's aggregates: see the golden
files), so to one request to an API, which its proxy ends within minutes."""
_WORST_FIRST = ("failure", "success", "unknown")

ActionKey = tuple[str, str, str, str]


@dataclass(slots=True)
class Line:
    """One action: a line of the audit trail. ``ended`` is None as long as no end was recorded."""

    time: datetime
    service: str
    action: str
    resource_type: str
    resource_id: str
    resource_name: str
    project_id: str
    outcome: str
    user_id: str
    user_name: str
    actor_project_id: str
    address: str
    request_id: str
    global_request_id: str
    reason: str
    ended: datetime | None = None
    events: list[Event] = field(default_factory=list)

    @property
    def duration(self) -> float | None:
        """The seconds from start to end; None if one of them was not recorded."""
        if self.ended is None or len({event.phase for event in self.events}) == 1:
            return None
        return (self.ended - self.time).total_seconds()

    @property
    def state(self) -> str:
        """``started`` if only a start was recorded, otherwise the outcome."""
        is_open = self.ended is None and all(event.phase == "start" for event in self.events)
        return "started" if is_open and self.outcome == "unknown" else self.outcome

    @property
    def channels(self) -> list[str]:
        """The channels over which its events came."""
        return sorted({channel for event in self.events for channel in event.channels})

    @property
    def is_from_logs_alone(self) -> bool:
        """Whether the bus confirms none of its events: whoever can write a log can forge them."""
        return BUS not in self.channels

    def to_json(self) -> dict[str, object]:
        """Return the line as ``audit -o json`` prints it."""
        return {
            "time": self.time.isoformat(),
            "duration": self.duration,
            "service": self.service,
            "action": self.action,
            "resource_type": self.resource_type,
            "resource_id": self.resource_id,
            "resource_name": self.resource_name,
            "project_id": self.project_id,
            "outcome": self.outcome,
            "state": self.state,
            "reason": self.reason,
            "channels": self.channels,
            "user_id": self.user_id,
            "user_name": self.user_name,
            "actor_project_id": self.actor_project_id,
            "address": self.address,
            "request_id": self.request_id,
            "global_request_id": self.global_request_id,
            "events": [
                {
                    "id": event.id,
                    "index": event.index,
                    "type": event.type,
                    "time": event.time.isoformat(),
                }
                for event in self.events
            ],
        }


@dataclass(frozen=True, slots=True)
class Subject:
    """The subject of an audit trail: one of these. A resource or a user is an id or a name."""

    resource: str = ""
    user: str = ""
    project: str = ""
    request: str = ""


def audit_trail(
    history: History,
    subject: Subject,
    since: datetime | None,
    until: datetime | None,
    *,
    with_periodic: bool = False,
) -> list[Line]:
    """Return the actions of a subject in order, with periodic reports (``exists``) if wanted."""

    def read(**values: str | Iterable[str]) -> dict[tuple[str, int], Event]:
        event_filter = EventFilter(
            {
                name: (value,) if isinstance(value, str) else tuple(value)
                for name, value in values.items()
            },
            since=since,
            until=until,
        )
        return {
            (event.id, event.index): event
            for event in _read_events(history, event_filter)
            if with_periodic or event.action != EXISTS
        }

    if subject.resource:
        events = read(resource_id=subject.resource)
        if not events:
            named = read(resource_name=subject.resource)
            events = named | read(resource_id=_ids(event.resource_id for event in named.values()))
    elif subject.user:
        events = read(user_id=subject.user)
        if not events:
            named = read(user_name=subject.user)
            events = named | read(user_id=_ids(event.user_id for event in named.values()))
    elif subject.project:
        events = read(project_id=subject.project) | read(actor_project_id=subject.project)
    else:
        events = read(request_id=subject.request) | read(global_request_id=subject.request)
    events |= {
        (event.id, event.index): event for event in _read_starts(history, events.values(), since)
    }
    return fold_events(events.values())


def _read_events(history: History, event_filter: EventFilter) -> Iterator[Event]:
    for page in read_pages(history, event_filter, with_payload=False):
        yield from page


def _ids(ids: Iterable[str]) -> list[str]:
    """Return the known ids; without any, an id that no event has."""
    return sorted({id_ for id_ in ids if id_}) or ["-"]


def _read_starts(
    history: History, events: Iterable[Event], since: datetime | None
) -> Iterator[Event]:
    """Yield the starts without a resource id whose action ends among ``events``."""
    ends = sorted(
        (event for event in events if event.phase in ("end", "error") and event.request_id),
        key=_order,
    )
    for first in range(0, len(ends), _REQUESTS_PER_QUERY):
        group = ends[first : first + _REQUESTS_PER_QUERY]
        earliest = group[0].time - _MAX_START_AGE
        event_filter = EventFilter(
            {"request_id": tuple(sorted({end.request_id for end in group})), "phase": ("start",)},
            since=max(earliest, since or earliest),
            until=group[-1].time + _TWIN_INTERVAL,
        )
        ended_actions = {_action_key(end) for end in group}
        for event in _read_events(history, event_filter):
            if not event.resource_id and _action_key(event) in ended_actions:
                yield event


def fold_events(events: Iterable[Event]) -> list[Line]:
    """Return the actions that events are parts of, in the order of their start."""
    lines: list[Line] = []
    lines_by_key: dict[ActionKey, list[Line]] = {}
    for event in sorted(events, key=_order):
        candidates = lines_by_key.setdefault(_action_key(event), [])
        line = next((line for line in candidates if _is_part(event, line)), None)
        if line is None:
            line = _new_line(event)
            lines.append(line)
            candidates.append(line)
        _add_event(event, line)
    _add_user_names(lines)
    return lines


def _add_user_names(lines: Sequence[Line]) -> None:
    """Add the names of users of whom some services send the id alone, from other services."""
    names = {line.user_id: line.user_name for line in lines if line.user_id and line.user_name}
    for line in lines:
        line.user_name = line.user_name or names.get(line.user_id, "")


def _action_key(event: Event) -> ActionKey:
    """Return the fields that all events of an action share."""
    return event.service, event.resource_type, event.action, event.request_id


def _order(event: Event) -> tuple[datetime, bool, str, int]:
    return event.time, event.phase != "start", event.id, event.index


def _is_part(event: Event, line: Line) -> bool:
    """Return whether an event is another part of a line's action."""
    if line.resource_id and event.resource_id and line.resource_id != event.resource_id:
        return False
    same_phase = [part for part in line.events if part.phase == event.phase]
    if any(_type_and_format(part) == _type_and_format(event) for part in same_phase):
        return False  # the action happened again
    if same_phase:  # the twin in the other format
        return event.time - same_phase[0].time <= _TWIN_INTERVAL
    if event.phase == "start":
        return event.time - line.time <= _TWIN_INTERVAL
    # An end; or one notification in one format for a start and an end in the other.
    return line.ended is None or event.time - line.ended <= _TWIN_INTERVAL


def _type_and_format(event: Event) -> tuple[str, bool]:
    """Return the event type, and whether Nova's versioned format has it.

    Some types have the same name in both formats. The publishers differ: ``api.host`` and
    ``nova-api:host``.
    """
    return event.type, ":" in event.publisher


def _new_line(event: Event) -> Line:
    return Line(
        time=event.time,
        service=event.service,
        action=event.action,
        resource_type=event.resource_type,
        resource_id=event.resource_id,
        resource_name=event.resource_name,
        project_id=event.project_id,
        outcome="unknown",
        user_id=event.user_id,
        user_name=event.user_name,
        actor_project_id=event.actor_project_id,
        address=event.address,
        request_id=event.request_id,
        global_request_id=event.global_request_id,
        reason="",
    )


_KNOWN_LATER = (
    "resource_id",
    "resource_name",
    "project_id",
    "user_id",
    "user_name",
    "actor_project_id",
    "address",
    "global_request_id",
)
"""Fields that the start of an action may lack and its end has."""


def _add_event(event: Event, line: Line) -> None:
    for name in _KNOWN_LATER:
        if not getattr(line, name):
            setattr(line, name, getattr(event, name))
    line.reason = line.reason or str(event.attributes.get("reason", ""))
    line.outcome = min(line.outcome, event.outcome, key=_WORST_FIRST.index)
    if event.phase != "start":
        line.ended = event.time
    line.events.append(event)
