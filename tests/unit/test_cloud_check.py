"""The check of the test cloud complains of lost, doubled, missing and unexplained notifications."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from tests.cloud.check import (
    Background,
    Expected,
    Table,
    assign,
    compare,
    differences,
    read_table,
)
from tests.cloud.traffic import Sent

IMAGE = "1b9f2b3e-0000-4000-8000-000000000001"
CALLER = "req-00000000-0000-4000-8000-00000000000a"
SERVICES_OWN = "req-00000000-0000-4000-8000-00000000000b"


def call(name: str, second: int = 0, resource: str | None = None, **fields: Any) -> dict[str, Any]:
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
        **fields,
    }


def build_sent(
    event_type: str,
    exchange: str = "glance",
    second: int = 0,
    payload: object = None,
    **fields: Any,
) -> Sent:
    message = {
        "event_type": event_type,
        "timestamp": f"2026-11-22 10:00:{second:02}.500000",
        "payload": payload,
        **fields,
    }
    body = {"oslo.version": "2.0", "oslo.message": json.dumps(message)}
    return Sent(exchange, "notifications.info", json.dumps(body))


def table(background: tuple[Background, ...] = (), **calls: Expected) -> Table:
    return Table(
        {name.replace("__", "."): expected for name, expected in calls.items()}, background
    )


@pytest.mark.parametrize("origin", ["the caller's", "the service's"])
def test_a_request_id_assigns_a_notification_to_its_call(origin: str) -> None:
    own: dict[str, Any] = {"request_id": CALLER, "requests": [{"request_id": SERVICES_OWN}]}
    calls = [call("nova.server.create"), call("nova.server.create", 30, **own)]
    request = CALLER if origin == "the caller's" else SERVICES_OWN
    message = build_sent("instance.create.end", "nova", 59, _context_request_id=request)
    assert assign(calls, [message], table()) == ([[], [0]], [])


def test_without_a_request_id_it_belongs_to_the_last_call_on_its_resource() -> None:
    calls = [
        call("glance.image.create", 0, IMAGE),
        call("glance.image.update", 10, IMAGE),
        call("glance.image.delete", 20, IMAGE),
    ]
    sent = [build_sent("image.update", second=12, payload={"id": IMAGE})]
    assert assign(calls, sent, table()) == ([[], [0], []], [])


def test_a_late_notification_belongs_to_the_call_that_is_known_to_emit_it() -> None:
    calls = [call("glance.image.download", 0, IMAGE), call("glance.image.update", 2, IMAGE)]
    expecting = table(glance__image__download=Expected(("image.send",)))
    sent = [build_sent("image.send", second=5, payload={"image_id": IMAGE})]
    assert assign(calls, sent, expecting) == ([[0], []], [])


def test_no_notification_belongs_to_a_later_call_or_to_one_long_before() -> None:
    after = [call("glance.image.update", 30, IMAGE)]
    sent = [build_sent("image.update", second=10, payload={"id": IMAGE})]
    assert assign(after, sent, table()) == ([[]], [0])
    before = [call("glance.image.update", 0, IMAGE)]
    late = build_sent("image.update", second=59, payload={"id": IMAGE})
    hour = Sent(late.exchange, late.routing_key, late.body.replace(" 10:00", " 11:00"))
    assert assign(before, [hour], table()) == ([[]], [0])


def test_a_user_id_in_another_service_does_not_assign_a_notification() -> None:
    calls = [call("keystone.user.update", 0, "u" * 32)]
    sent = [build_sent("volume.create.end", "cinder", 1, {"user_id": "u" * 32})]
    assert assign(calls, sent, table()) == ([[]], [0])


@pytest.mark.parametrize(
    ("expected", "event_types", "complaint"),
    [
        (Expected(("image.update",)), ["image.update"], ""),
        (Expected(("image.update",)), ["image.update", "image.more"], ""),
        (Expected(("image.update", "image.end")), ["image.update"], "did not emit image.end"),
        (Expected(("image.update",)), [], "did not emit image.update"),
        (Expected(silent="a known gap"), [], ""),
        (
            Expected(silent="a known gap"),
            ["image.update"],
            "the table has it as silent, but it emits",
        ),
    ],
)
def test_each_call_emits_the_event_types_of_the_table(
    expected: Expected, event_types: list[str], complaint: str
) -> None:
    calls = [call("glance.image.update", 0, IMAGE)]
    sent = [build_sent(name, second=1, payload={"id": IMAGE}) for name in event_types]
    rows, strays = compare(calls, sent, table(glance__image__update=expected))
    assert [row.complaint for row in rows] == [complaint]
    assert strays == []


def test_a_call_that_is_not_in_the_table_is_a_complaint() -> None:
    rows, _ = compare([call("glance.image.update", 0, IMAGE)], [], table())
    assert rows[0].complaint == "this call is not in the table"


def test_a_stray_notification_needs_a_reason_and_a_near_cause() -> None:
    background = Background("cinder", re.compile(r"volume\..*"), "Heat made it", "heat.stack")
    explained = table((background,))
    stack = call("heat.stack.create", 0)
    cases = [
        (build_sent("volume.create.end", "cinder", 1), "Heat made it"),
        (build_sent("snapshot.create.end", "cinder", 1), ""),
        (build_sent("volume.create.end", "manila", 1), ""),
    ]
    for message, reason in cases:
        _, strays = compare([stack], [message], explained)
        assert strays == [(message, reason)]
    message = build_sent("volume.create.end", "cinder", 1)
    assert compare([call("nova.server.create", 0)], [message], explained)[1] == [(message, "")]


def test_lost_new_and_doubled_notifications_are_named() -> None:
    assert differences(["a", "b"], ["b", "a"], "x") == []
    assert differences(["a", "b"], ["a"], "x") == ["x: lost: 1, for instance b"]
    assert differences(["a"], ["a", "c"], "x") == ["x: new: 1, for instance c"]
    assert differences(["a"], ["a", "a"], "x") == ["x: 1 came twice"]


def test_every_entry_of_the_table_either_emits_or_is_silent() -> None:
    expectations = read_table()
    for name, expected in expectations.calls.items():
        assert name.count(".") == 2
        assert bool(expected.emits) != bool(expected.silent)
        assert len(set(expected.emits)) == len(expected.emits)
    assert all(entry.reason for entry in expectations.background)
