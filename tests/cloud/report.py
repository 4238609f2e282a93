"""Print the calls of the scenario, their notifications, and everything that is not explained.

The same notifications are compared three times: as sent on the inner bus, as the consumers of two
topics received them, and as the recorder stored them. ``check.py`` and ``audit.py`` decide.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from typing import Any

from rich.console import Console
from rich.table import Table as ScreenTable

from tests.cloud import audit, check
from tests.cloud.cloud import TOPICS, stackbus
from tests.cloud.home import CloudHome
from tests.cloud.members import MEMBERS
from tests.cloud.traffic import Sent, read_received, read_sent


def report(home: CloudHome, names: list[str], say: Callable[[str], None]) -> bool:
    """Print the report; return whether everything is as expected."""
    problems = []
    sent = read_sent(home)
    message_ids = [str(message.notification()["message_id"]) for message in sent]
    for topic in TOPICS:
        received = [str(message["message_id"]) for message in read_received(home, topic)]
        problems += check.differences(message_ids, received, topic)
        problems += _find_leaks(home, topic)
    problems += _find_silent_services(home, names, sent)
    problems += [
        f"{topic['name']}: {topic['dropped']} notifications were dropped"
        for topic in json.loads(stackbus(home, "topics", "-o", "json"))
        if topic["dropped"]
    ]
    lines = (home.folder / "calls.jsonl").read_text("utf-8").splitlines()
    calls = [json.loads(line) for line in lines]
    table = check.read_table()
    rows, strays = check.compare(calls, sent, table)
    _show(rows, table)
    problems += _check_audit(home, calls, sent, table)
    problems += [
        f"{row.call['call']} by {row.call['user']} on {row.call['resource_id']} at "
        f"{row.call['begin']}: {row.complaint}"
        for row in rows
        if row.complaint
    ]
    for (service, event_type, reason), count in sorted(_count_strays(strays).items()):
        if not reason:
            problems.append(f"{count} of {service}'s {event_type} belong to no call")
    reasons = Counter(reason for _, reason in strays if reason)
    for reason, count in reasons.items():
        say(f"{count} notifications that belong to no call: {reason}")
    say(
        f"{len(calls)} calls, {len(sent)} notifications sent; both consumers received "
        f"{'the same' if not problems else 'something else: see below'}"
    )
    for problem in problems:
        say(f"UNEXPLAINED {problem}")
    return not problems


def _check_audit(
    home: CloudHome, calls: list[dict[str, Any]], sent: list[Sent], table: check.Table
) -> list[str]:
    """Compare the recorder's history, and the audit of it, with the calls."""
    message_ids = [str(message.notification()["message_id"]) for message in sent]
    lines = audit.read_lines(home, set(message_ids))
    recorded = {event.id for line in lines for event in line.events}
    problems = [f"not in the history: {missing}" for missing in set(message_ids) - recorded]
    assigned, _ = check.assign(calls, sent, table)
    ids_by_call = [[message_ids[number] for number in numbers] for numbers in assigned]
    return problems + list(audit.find_complaints(calls, ids_by_call, lines, table.gaps))


def _find_silent_services(home: CloudHome, names: list[str], sent: list[Sent]) -> list[str]:
    counts = Counter(message.exchange for message in sent)
    return [
        f"{name} sent nothing" for name in names if MEMBERS[name](home).emits and not counts[name]
    ]


def _find_leaks(home: CloudHome, topic: str) -> list[str]:
    """Look for the scenario's own tokens in the notifications that left the cloud."""
    tokens = json.loads((home.folder / "tokens.json").read_text("utf-8"))
    text = (home.folder / f"received-{topic}.jsonl").read_text("utf-8")
    count = sum(token in text for token in tokens)
    return [f"{topic}: {count} live tokens were received"] if count else []


def _count_strays(strays: list[tuple[Sent, str]]) -> Counter[tuple[str, str, str]]:
    return Counter(
        (message.exchange, str(message.notification()["event_type"]), reason)
        for message, reason in strays
    )


def _show(rows: list[check.Row], table: check.Table) -> None:
    screen = ScreenTable("call", "times", "emits", title="calls and their notifications")
    by_call: dict[str, list[check.Row]] = {}
    for row in rows:
        by_call.setdefault(row.call["call"], []).append(row)
    for name, same_call in sorted(by_call.items()):
        expected = table.calls.get(name, check.Expected())
        complaints = sorted({row.complaint for row in same_call if row.complaint})
        summary = ", ".join(expected.emits) or f"nothing: {expected.silent}"
        if complaints:
            summary = f"NO: {'; '.join(complaints)}"
        screen.add_row(name, str(len(same_call)), summary)
    Console(width=160).print(screen)
