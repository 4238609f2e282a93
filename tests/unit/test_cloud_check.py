"""The check of the test cloud can fail: what is lost, doubled, untold or unexplained is complained of."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from tests.cloud.check import (
    Background,
    Expected,
    Table,
    belonging,
    compare,
    read_table,
    unlike,
)
from tests.cloud.telling import Sent

IMAGE = "1b9f2b3e-0000-4000-8000-000000000001"
CALLER = "req-00000000-0000-4000-8000-00000000000a"
OWN = "req-00000000-0000-4000-8000-00000000000b"


def call(name: str, second: int = 0, resource: str | None = None, **more: Any) -> dict[str, Any]:
    return {
        "call": name,
        "user": "alice",
        "user_id": "u" * 32,
        "project_id": "p" * 32,
        "resource_id": resource,
        "begin": f"2026-11-22T10:00:{second:02}+00:00",
        "end": f"2026-11-22T10:00:{second + 1:02}+00:00",
        "request_id": "",
        "requests": [],
        **more,
    }


def told(
    event_type: str, exchange: str = "glance", second: int = 0, payload: object = None, **more: Any
) -> Sent:
    message = {
        "event_type": event_type,
        "timestamp": f"2026-11-22 10:00:{second:02}.500000",
        "payload": payload,
        **more,
    }
    body = {"oslo.version": "2.0", "oslo.message": json.dumps(message)}
    return Sent(exchange, "notifications.info", json.dumps(body))


def table(background: tuple[Background, ...] = (), **calls: Expected) -> Table:
    return Table({name.replace("__", "."): one for name, one in calls.items()}, background)


@pytest.mark.parametrize("where", ["the caller's", "the service's"])
def test_a_request_id_ties_a_notification_to_its_call(where: str) -> None:
    own: dict[str, Any] = {"request_id": CALLER, "requests": [{"request_id": OWN}]}
    calls = [call("nova.server.create"), call("nova.server.create", 30, **own)]
    request = CALLER if where == "the caller's" else OWN
    one = told("instance.create.end", "nova", 59, _context_request_id=request)
    assert belonging(calls, [one], table()) == ([[], [0]], [])


def test_without_one_the_last_call_on_the_resource_before_it_is_meant() -> None:
    calls = [
        call("glance.image.create", 0, IMAGE),
        call("glance.image.update", 10, IMAGE),
        call("glance.image.delete", 20, IMAGE),
    ]
    sent = [told("image.update", second=12, payload={"id": IMAGE})]
    assert belonging(calls, sent, table()) == ([[], [0], []], [])


def test_what_is_told_late_goes_to_the_call_that_is_known_to_tell_it() -> None:
    calls = [call("glance.image.download", 0, IMAGE), call("glance.image.update", 2, IMAGE)]
    known = table(glance__image__download=Expected(("image.send",)))
    sent = [told("image.send", second=5, payload={"image_id": IMAGE})]
    assert belonging(calls, sent, known) == ([[0], []], [])


def test_nothing_belongs_to_a_call_that_came_after_or_long_before() -> None:
    after = [call("glance.image.update", 30, IMAGE)]
    sent = [told("image.update", second=10, payload={"id": IMAGE})]
    assert belonging(after, sent, table()) == ([[]], [0])
    before = [call("glance.image.update", 0, IMAGE)]
    late = told("image.update", second=59, payload={"id": IMAGE})
    hour = Sent(late.exchange, late.routing_key, late.body.replace(" 10:00", " 11:00"))
    assert belonging(before, [hour], table()) == ([[]], [0])


def test_users_and_projects_do_not_tie_other_services_to_a_call() -> None:
    calls = [call("keystone.user.update", 0, "u" * 32)]
    sent = [told("volume.create.end", "cinder", 1, {"user_id": "u" * 32})]
    assert belonging(calls, sent, table()) == ([[]], [0])


@pytest.mark.parametrize(
    ("expected", "event_types", "complaint"),
    [
        (Expected(("image.update",)), ["image.update"], ""),
        (Expected(("image.update",)), ["image.update", "image.more"], ""),
        (Expected(("image.update", "image.end")), ["image.update"], "did not tell image.end"),
        (Expected(("image.update",)), [], "did not tell image.update"),
        (Expected(silent="as we know"), [], ""),
        (
            Expected(silent="as we know"),
            ["image.update"],
            "it is in the table as silent, but it tells",
        ),
    ],
)
def test_each_call_tells_what_the_table_says(
    expected: Expected, event_types: list[str], complaint: str
) -> None:
    calls = [call("glance.image.update", 0, IMAGE)]
    sent = [told(one, second=1, payload={"id": IMAGE}) for one in event_types]
    rows, strays = compare(calls, sent, table(glance__image__update=expected))
    assert [row.complaint for row in rows] == [complaint]
    assert strays == []


def test_a_call_that_the_table_lacks_is_complained_of() -> None:
    rows, _ = compare([call("glance.image.update", 0, IMAGE)], [], table())
    assert rows[0].complaint == "this call is not in the table"


def test_what_belongs_to_no_call_needs_a_reason_and_its_time() -> None:
    known = Background("cinder", re.compile(r"volume\..*"), "Heat made it", "heat.stack")
    of = table((known,))
    stack = call("heat.stack.create", 0)
    cases = [
        (told("volume.create.end", "cinder", 1), "Heat made it"),
        (told("snapshot.create.end", "cinder", 1), ""),
        (told("volume.create.end", "manila", 1), ""),
    ]
    for one, reason in cases:
        _, strays = compare([stack], [one], of)
        assert strays == [(one, reason)]
    one = told("volume.create.end", "cinder", 1)
    assert compare([call("nova.server.create", 0)], [one], of)[1] == [(one, "")]


def test_sets_are_compared_both_ways_and_doubles_are_seen() -> None:
    assert unlike(["a", "b"], ["b", "a"], "x") == []
    assert unlike(["a", "b"], ["a"], "x") == ["x: lost: 1, for instance b"]
    assert unlike(["a"], ["a", "c"], "x") == ["x: new: 1, for instance c"]
    assert unlike(["a"], ["a", "a"], "x") == ["x: 1 came twice"]


def test_every_row_of_the_table_is_sound() -> None:
    known = read_table()
    for name, one in known.calls.items():
        assert name.count(".") == 2
        assert bool(one.tells) != bool(one.silent)
        assert len(set(one.tells)) == len(one.tells)
    assert all(one.reason for one in known.background)
