"""The audit of the test cloud is compared with the calls: who, what, and which result."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from tests.cloud.audit import find_complaints
from tests.cloud.check import Gap, read_table
from tests.conftest import golden
from tests.unit.test_audit import BEGAN

from stackbus.events.normalise import normalise
from stackbus.query.audit import Line, fold_events

DELETED = next(one.body for one in golden() if b"compute.instance.delete.end" in one.body)
(EVENT,) = normalise(DELETED, "bus", BEGAN, "nova")


def call(**changed: Any) -> dict[str, Any]:
    return {
        "call": "nova.server.delete",
        "user": "alice",
        "user_id": EVENT.user_id,
        "resource_id": EVENT.resource_id,
        "outcome": "success",
        **changed,
    }


def find(call: dict[str, Any], *gaps: Gap, lines: list[Line] | None = None) -> list[str]:
    audit = fold_events([EVENT]) if lines is None else lines
    return list(find_complaints([call], [[EVENT.id]], audit, gaps))


def test_an_audit_that_agrees_with_the_call_is_no_complaint() -> None:
    assert EVENT.user_id
    assert EVENT.resource_id
    assert find(call()) == []


@pytest.mark.parametrize(
    ("lack", "changed", "sentence"),
    [
        ("who", {"user_id": "f" * 32}, "did it"),
        ("what", {"resource_id": "00000000-0000-4000-8000-000000000000"}, "was done to"),
        ("result", {"outcome": "failure"}, "it failed"),
    ],
)
def test_each_difference_is_a_complaint_unless_the_table_excuses_it(
    lack: str, changed: dict[str, Any], sentence: str
) -> None:
    (complaint,) = find(call(**changed))
    assert sentence in complaint
    assert find(call(**changed), Gap("nova.server.", (lack,), "why")) == []
    others = {"who", "what", "result"} - {lack}
    for wrong in (Gap("nova.server.", tuple(others), "why"), Gap("glance.", (lack,), "why")):
        assert find(call(**changed), wrong) == [complaint]


def test_a_success_that_the_audit_calls_a_failure_is_a_complaint() -> None:
    failed = msgspec.structs.replace(EVENT, outcome="failure")
    (complaint,) = find(call(), lines=fold_events([failed]))
    assert "it succeeded" in complaint


def test_a_call_without_notifications_is_no_complaint() -> None:
    assert find(call(), lines=[]) == []


def test_each_gap_of_the_table_names_calls_that_emit() -> None:
    table = read_table()
    emitting = [name for name, expected in table.calls.items() if expected.emits]
    assert table.gaps
    for gap in table.gaps:
        assert set(gap.lacks) <= {"who", "what", "result"}, gap
        assert any(name.startswith(gap.calls) for name in emitting), gap
