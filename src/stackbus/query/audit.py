"""The story of a resource, a user, a project or a request: who, from where, what, which result.

Called by ``cli/history.py`` for ``stackbus audit``. ``story`` fetches the events; ``told`` (pure)
folds them into lines: the start and the end of one action are one line with its duration, and so
are the notifications that tell the same twice (Nova in both formats, Designate's domains).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from stackbus.events.actions import EXISTS
from stackbus.events.model import Event
from stackbus.history.history import History
from stackbus.query.events import pages
from stackbus.query.filter import Filter

_TWINS = timedelta(seconds=2)
"""Two notifications of one thing that happened come within this time."""
_AT_ONCE = 500
"""Requests of which the starts are looked up at once."""
_LONGEST = timedelta(days=1)
"""How long before its end a start is looked for that does not say what it is about. That is one of
a create whose id was not made yet (Neutron, Masakari, Nova's aggregates: the golden files), so one
call of an API, which its proxy ends within minutes."""
_WORST = ("failure", "success", "unknown")

Key = tuple[str, str, str, str]


@dataclass(slots=True)
class Line:
    """One thing that was done: a line of the story. ``duration`` is None where no end was told."""

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
        """Give the seconds from start to end."""
        if self.ended is None or len({event.phase for event in self.events}) == 1:
            return None
        return (self.ended - self.time).total_seconds()

    @property
    def state(self) -> str:
        """Say ``started`` where an end is missing, else the outcome."""
        is_open = self.ended is None and all(event.phase == "start" for event in self.events)
        return "started" if is_open and self.outcome == "unknown" else self.outcome

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
    """Whose story is asked for: one of these. A resource and a user by id, or by name."""

    resource: str = ""
    user: str = ""
    project: str = ""
    request: str = ""


def story(
    history: History,
    subject: Subject,
    since: datetime | None,
    until: datetime | None,
    *,
    periodic: bool = False,
) -> list[Line]:
    """Tell the story in order. ``periodic`` reports (``exists``) are left out unless wanted."""

    def asked(**values: str | Iterable[str]) -> dict[tuple[str, int], Event]:
        wanted = Filter(
            {name: (one,) if isinstance(one, str) else tuple(one) for name, one in values.items()},
            since=since,
            until=until,
        )
        return {
            (event.id, event.index): event
            for event in _events(history, wanted)
            if periodic or event.action != EXISTS
        }

    if subject.resource:
        found = asked(resource_id=subject.resource)
        if not found:
            named = asked(resource_name=subject.resource)
            found = named | asked(resource_id=_ids(one.resource_id for one in named.values()))
    elif subject.user:
        found = asked(user_id=subject.user)
        if not found:
            named = asked(user_name=subject.user)
            found = named | asked(user_id=_ids(one.user_id for one in named.values()))
    elif subject.project:
        found = asked(project_id=subject.project) | asked(actor_project_id=subject.project)
    else:
        found = asked(request_id=subject.request) | asked(global_request_id=subject.request)
    found |= {(one.id, one.index): one for one in _starts(history, found.values(), since)}
    return told(found.values())


def _events(history: History, wanted: Filter) -> Iterator[Event]:
    for page in pages(history, wanted, payload=False):
        for row in page:
            yield row.event()


def _ids(told_ids: Iterable[str]) -> list[str]:
    """Give the ids that were told; one that nothing has, if there is none."""
    return sorted({one for one in told_ids if one}) or ["-"]


def _starts(history: History, events: Iterable[Event], since: datetime | None) -> Iterator[Event]:
    """Give the starts of what ended among ``events`` that do not say yet what they are about."""
    ends = sorted(
        (one for one in events if one.phase in ("end", "error") and one.request_id), key=_order
    )
    for first in range(0, len(ends), _AT_ONCE):
        some = ends[first : first + _AT_ONCE]
        earliest = some[0].time - _LONGEST
        wanted = Filter(
            {"request_id": tuple(sorted({one.request_id for one in some})), "phase": ("start",)},
            since=max(earliest, since or earliest),
            until=some[-1].time + _TWINS,
        )
        done = {_key(one) for one in some}
        for event in _events(history, wanted):
            if not event.resource_id and _key(event) in done:
                yield event


def told(events: Iterable[Event]) -> list[Line]:
    """Fold events into lines, in the order of their beginning."""
    lines: list[Line] = []
    running: dict[Key, list[Line]] = {}
    for event in sorted(events, key=_order):
        candidates = running.setdefault(_key(event), [])
        line = next((one for one in candidates if _belongs(event, one)), None)
        if line is None:
            line = _line(event)
            lines.append(line)
            candidates.append(line)
        _add(event, line)
    _name_users(lines)
    return lines


def _name_users(lines: Sequence[Line]) -> None:
    """Name the users of whom some services tell the id alone, where others tell the name."""
    names = {line.user_id: line.user_name for line in lines if line.user_id and line.user_name}
    for line in lines:
        line.user_name = line.user_name or names.get(line.user_id, "")


def _key(event: Event) -> Key:
    """Give what the parts of one action share."""
    return event.service, event.resource_type, event.action, event.request_id


def _order(event: Event) -> tuple[datetime, bool, str, int]:
    return event.time, event.phase != "start", event.id, event.index


def _belongs(event: Event, line: Line) -> bool:
    """Tell whether an event is one more part of what a line tells."""
    if line.resource_id and event.resource_id and line.resource_id != event.resource_id:
        return False
    same_part = [one for one in line.events if one.phase == event.phase]
    if any(_telling(one) == _telling(event) for one in same_part):
        return False  # it happened once more
    if same_part:  # its twin, in the other format
        return event.time - same_part[0].time <= _TWINS
    if event.phase == "start":
        return event.time - line.time <= _TWINS
    # An end; or what one format tells once, where the other has a start and an end.
    return line.ended is None or event.time - line.ended <= _TWINS


def _telling(event: Event) -> tuple[str, bool]:
    """Tell in which way it is told: some types of Nova's formats bear the same name.

    They differ in the publisher: ``api.host``, ``nova-api:host``.
    """
    return event.type, ":" in event.publisher


def _line(event: Event) -> Line:
    return Line(
        event.time,
        event.service,
        event.action,
        event.resource_type,
        event.resource_id,
        event.resource_name,
        event.project_id,
        "unknown",
        event.user_id,
        event.user_name,
        event.actor_project_id,
        event.address,
        event.request_id,
        event.global_request_id,
        "",
    )


_TOLD_LATER = (
    "resource_id",
    "resource_name",
    "project_id",
    "user_id",
    "user_name",
    "actor_project_id",
    "address",
    "global_request_id",
)


def _add(event: Event, line: Line) -> None:
    for name in _TOLD_LATER:
        if not getattr(line, name):
            setattr(line, name, getattr(event, name))
    line.reason = line.reason or str(event.attributes.get("reason", ""))
    line.outcome = min(line.outcome, event.outcome, key=_WORST.index)
    if event.phase != "start":
        line.ended = event.time
    line.events.append(event)
