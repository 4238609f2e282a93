"""Print what was done, what was told of it, and everything that is not explained.

Called by ``__main__.py`` after the scenario. It looks at the same notifications three times: as they
were sent on the inner bus, and as the consumers of two topics got them; and at the record of what
was done (``check.py``).
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from typing import Any

from rich.console import Console
from rich.table import Table as Shown

from tests.cloud import audited, check
from tests.cloud.cloud import TOPICS, stackbus
from tests.cloud.members import MEMBERS
from tests.cloud.place import Place
from tests.cloud.telling import Sent, sent, told


def report(place: Place, names: list[str], say: Callable[[str], None]) -> bool:
    """Print the report; tell whether everything is as it should be."""
    problems = []
    everything = sent(place)
    identifiers = [str(one.notification()["message_id"]) for one in everything]
    for topic in TOPICS:
        received = [str(one["message_id"]) for one in told(place, topic)]
        problems += check.unlike(identifiers, received, f"{topic} against what was sent")
        problems += _leaks(place, topic)
    problems += _silent_services(place, names, everything)
    problems += [
        f"{one['name']}: {one['dropped']} notifications were dropped"
        for one in json.loads(stackbus(place, "topics", "-o", "json"))
        if one["dropped"]
    ]
    lines = (place.folder / "calls.jsonl").read_text("utf-8").splitlines()
    calls = [json.loads(line) for line in lines]
    table = check.read_table()
    rows, strays = check.compare(calls, everything, table)
    _show(rows, table)
    problems += _audit(place, calls, everything, table)
    problems += [
        f"{row.call['call']} by {row.call['user']} on {row.call['resource_id']} at "
        f"{row.call['begin']}: {row.complaint}"
        for row in rows
        if row.complaint
    ]
    for (service, event_type, reason), count in sorted(_kinds(strays).items()):
        if not reason:
            problems.append(f"{count} of {service}'s {event_type} belong to no call")
    explained = Counter(reason for _, reason in strays if reason)
    for reason, count in explained.items():
        say(f"{count} notifications of no call: {reason}")
    say(
        f"{len(calls)} calls, {len(everything)} notifications sent, by both consumers received: "
        f"{'the same' if not problems else 'see below'}"
    )
    for problem in problems:
        say(f"UNEXPLAINED {problem}")
    return not problems


def _audit(
    place: Place, calls: list[dict[str, Any]], everything: list[Sent], table: check.Table
) -> list[str]:
    """Hold the recorder's history, and what an audit of it tells, against what was done."""
    identifiers = [str(one.notification()["message_id"]) for one in everything]
    story = audited.lines(place, set(identifiers))
    recorded = {event.id for line in story for event in line.events}
    problems = [f"not in the history: {one}" for one in set(identifiers) - recorded]
    found, _ = check.belonging(calls, everything, table)
    told_of = [[identifiers[number] for number in numbers] for numbers in found]
    return problems + list(audited.complaints(calls, told_of, story, table.unsaid))


def _silent_services(place: Place, names: list[str], everything: list[Sent]) -> list[str]:
    emitted = Counter(one.exchange for one in everything)
    return [
        f"{name} sent nothing" for name in names if MEMBERS[name](place).emits and not emitted[name]
    ]


def _leaks(place: Place, topic: str) -> list[str]:
    """Look for the scenario's own tokens in what left the cloud."""
    tokens = json.loads((place.folder / "tokens.json").read_text("utf-8"))
    text = (place.folder / f"told-{topic}.jsonl").read_text("utf-8")
    found = sum(token in text for token in tokens)
    return [f"{topic}: {found} live tokens were told"] if found else []


def _kinds(strays: list[tuple[Sent, str]]) -> Counter[tuple[str, str, str]]:
    return Counter(
        (one.exchange, str(one.notification()["event_type"]), reason) for one, reason in strays
    )


def _show(rows: list[check.Row], table: check.Table) -> None:
    shown = Shown("call", "times", "told", title="what was done, and what was told of it")
    by_call: dict[str, list[check.Row]] = {}
    for row in rows:
        by_call.setdefault(row.call["call"], []).append(row)
    for name, some in sorted(by_call.items()):
        expected = table.calls.get(name, check.Expected())
        complaints = sorted({row.complaint for row in some if row.complaint})
        told_of = ", ".join(expected.tells) or f"nothing: {expected.silent}"
        shown.add_row(
            name, str(len(some)), f"NO: {'; '.join(complaints)}" if complaints else told_of
        )
    Console(width=160).print(shown)
