"""Compare the audit with the calls of the scenario: who, what, on which resource, which result.

``report.py`` passes the record of the calls and the history of the recorder beside the bus.
``find_complaints`` is pure; ``read_lines`` reads the history. ``expected.toml`` lists the gaps that
are due to a service, with the reason, under ``audit``.
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
from tests.cloud.check import Gap
from tests.cloud.home import CloudHome, Failed, wait_until

_TIMEOUT = 60.0
_MIN_ID_LENGTH = 8
"""A shorter id, the number of an aggregate, differs between calls and events."""


def read_lines(home: CloudHome, message_ids: set[str]) -> list[Line]:
    """Return the whole audit, as soon as these notifications are in the history."""
    with open_history(Settings(state=home.state("bus"))) as history:
        events: list[Event] = []

        def are_recorded() -> bool:
            events[:] = list_events(history, EventFilter(), with_payload=False)
            return message_ids <= {event.id for event in events}

        if not wait_until(are_recorded, _TIMEOUT, 0.5):
            missing = message_ids - {event.id for event in events}
            raise Failed(f"{len(missing)} notifications are not in the history")
        return fold_events(events)


def find_complaints(
    calls: Sequence[Mapping[str, Any]],
    message_ids_by_call: Sequence[Iterable[str]],
    lines: Sequence[Line],
    gaps: Sequence[Gap],
) -> Iterator[str]:
    """Yield a sentence for each call that emitted notifications and that the audit has wrong."""
    by_notification: dict[str, list[Line]] = defaultdict(list)
    for line in lines:
        for event in line.events:
            by_notification[event.id].append(line)
    for call, message_ids in zip(calls, message_ids_by_call, strict=True):
        own_lines = list(
            {
                id(line): line for message_id in message_ids for line in by_notification[message_id]
            }.values()
        )
        if not own_lines:
            continue
        excused = {lack for gap in gaps if call["call"].startswith(gap.calls) for lack in gap.lacks}
        for lack, sentence in _find_lacks(call, own_lines):
            if lack not in excused:
                yield f"{call['call']} by {call['user']} on {call['resource_id']}: {sentence}"


def _find_lacks(call: Mapping[str, Any], lines: list[Line]) -> Iterator[tuple[str, str]]:
    service = str(call["call"]).partition(".")[0]
    own_lines = [line for line in lines if line.service == service] or lines
    users = {line.user_id for line in own_lines}
    if call["user_id"] and call["user_id"] not in users:  # before a login there is no user
        yield "who", f"the audit says that {sorted(users)} did it"
    resource_id = str(call["resource_id"] or "")
    about = [line for line in own_lines if line.resource_id == resource_id]
    if len(resource_id) >= _MIN_ID_LENGTH and not about:
        resources = sorted({line.resource_id for line in own_lines})
        yield "what", f"the audit says it was done to {resources}"
    results = {line.outcome for line in about or own_lines}
    if call["outcome"] == "failure" and "failure" not in results:
        yield "result", f"the audit says {sorted(results)}, it failed"
    if call["outcome"] == "success" and "success" not in results:
        yield "result", f"the audit says {sorted(results)}, it succeeded"
