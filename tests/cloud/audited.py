"""Hold what the audit tells against what was done: who, what, on which resource, with which result.

Called by ``report.py`` after the scenario, with the record of the calls and the history that a
recorder has written beside the bus. ``complaints`` is pure; ``lines`` reads the history. What an
audit cannot tell, since the service does not, stands in ``told.toml`` under ``audit``, with the
reason.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from stackbus.events.model import Event
from stackbus.query.audit import Line, fold_events
from stackbus.query.events import list_events
from stackbus.query.filter import EventFilter
from stackbus.settings import Settings
from stackbus.wiring.history import open_history
from tests.cloud.check import Unsaid
from tests.cloud.place import Failed, Place, wait_until

_PATIENCE = 60.0
_SHORTEST_ID = 8
"""What is shorter, an aggregate's number, is named otherwise in calls and in events."""


def lines(place: Place, wanted: set[str]) -> list[Line]:
    """Give the story of everything, once the ``wanted`` notifications are in the history."""
    with open_history(Settings(state=place.state("bus"))) as history:
        events: list[Event] = []

        def are_recorded() -> bool:
            events[:] = list_events(history, EventFilter(), with_payload=False)
            return wanted <= {event.id for event in events}

        if not wait_until(are_recorded, _PATIENCE, 0.5):
            missing = wanted - {event.id for event in events}
            raise Failed(f"{len(missing)} notifications are not in the history")
        return fold_events(events)


def complaints(
    calls: Sequence[Mapping[str, Any]],
    told_of: Sequence[Iterable[str]],
    story: Sequence[Line],
    exceptions: Sequence[Unsaid],
) -> Iterator[str]:
    """Give what the story does not say of calls that told something, or says otherwise.

    ``told_of``: the message ids of each call's notifications.
    """
    by_notification: dict[str, list[Line]] = defaultdict(list)
    for line in story:
        for event in line.events:
            by_notification[event.id].append(line)
    for call, identifiers in zip(calls, told_of, strict=True):
        own = {id(line): line for one in identifiers for line in by_notification[one]}.values()
        if not own:
            continue
        excused = {
            lack for one in exceptions if call["call"].startswith(one.calls) for lack in one.lacks
        }
        for lack, sentence in _lacks(call, list(own)):
            if lack not in excused:
                yield f"{call['call']} by {call['user']} on {call['resource_id']}: {sentence}"


def _lacks(call: Mapping[str, Any], own: list[Line]) -> Iterator[tuple[str, str]]:
    service = str(call["call"]).partition(".")[0]
    mine = [line for line in own if line.service == service] or own
    who = {line.user_id for line in mine}
    if call["user_id"] and call["user_id"] not in who:  # who logs in is nobody yet
        yield "who", f"the audit says that {sorted(who)} did it"
    resource = str(call["resource_id"] or "")
    about = [line for line in mine if line.resource_id == resource]
    if len(resource) >= _SHORTEST_ID and not about:
        yield "what", f"the audit says it was done to {sorted({line.resource_id for line in mine})}"
    results = {line.outcome for line in about or mine}
    if call["outcome"] == "failure" and "failure" not in results:
        yield "result", f"the audit says {sorted(results)}, it failed"
    if call["outcome"] == "success" and "success" not in results:
        yield "result", f"the audit says {sorted(results)}, it succeeded"
