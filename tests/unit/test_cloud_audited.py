"""The test cloud's audit can fail: who, what and the result are each complained of, if not excused."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from tests.cloud.audited import complaints
from tests.cloud.check import Unsaid, read_table
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


def complained(
    given: dict[str, Any], *excused: Unsaid, story: list[Line] | None = None
) -> list[str]:
    lines = fold_events([EVENT]) if story is None else story
    return list(complaints([given], [[EVENT.id]], lines, excused))


def test_what_the_audit_tells_as_it_was_is_no_complaint() -> None:
    assert EVENT.user_id
    assert EVENT.resource_id
    assert complained(call()) == []


@pytest.mark.parametrize(
    ("lack", "changed", "sentence"),
    [
        ("who", {"user_id": "f" * 32}, "did it"),
        ("what", {"resource_id": "00000000-0000-4000-8000-000000000000"}, "was done to"),
        ("result", {"outcome": "failure"}, "it failed"),
    ],
)
def test_each_lack_is_complained_of_unless_it_is_excused(
    lack: str, changed: dict[str, Any], sentence: str
) -> None:
    (complaint,) = complained(call(**changed))
    assert sentence in complaint
    assert complained(call(**changed), Unsaid("nova.server.", (lack,), "why")) == []
    others = {"who", "what", "result"} - {lack}
    for wrong in (Unsaid("nova.server.", tuple(others), "why"), Unsaid("glance.", (lack,), "why")):
        assert complained(call(**changed), wrong) == [complaint]


def test_a_success_that_the_audit_calls_a_failure_is_complained_of() -> None:
    failed = msgspec.structs.replace(EVENT, outcome="failure")
    (complaint,) = complained(call(), story=fold_events([failed]))
    assert "it succeeded" in complaint


def test_a_call_that_told_nothing_is_left_to_the_table() -> None:
    assert complained(call(), story=[]) == []


def test_each_exception_of_the_table_names_calls_that_tell() -> None:
    table = read_table()
    telling = [name for name, one in table.calls.items() if one.tells]
    assert table.unsaid
    for one in table.unsaid:
        assert set(one.lacks) <= {"who", "what", "result"}, one
        assert any(name.startswith(one.calls) for name in telling), one
