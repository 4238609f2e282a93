"""Malformed notifications through the code of recorder and relay: read, or quarantined with a reason.

The reason is never that stackbus itself failed. tests/bus/ does the same on a real broker with
fewer bodies.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pika.spec import BasicProperties
from tests.conftest import Captured, golden
from tests.malformed import VALUES, spoil
from tests.unexpected import check_reasons

from stackbus.errors import Unreadable
from stackbus.events.envelope import decode
from stackbus.events.scrub import Scrubber
from stackbus.flow.stream import Delivery
from stackbus.relay.label import label
from stackbus.sinks import history as history_sink
from stackbus.sources.bus import BusSource

GOLDEN = golden()
SCRUBBER = Scrubber()
PATHS = st.lists(st.integers(0, 50), min_size=1, max_size=6)


def record(body: bytes, service: str = "") -> str | None:
    """Read a body as the recorder does; return the reason of its quarantine, None if it is read."""
    delivery = Delivery(
        channel="bus", origin="x", body=body, received=datetime.now(UTC), service=service
    )
    try:
        events = history_sink.prepare(delivery, BusSource.extract, SCRUBBER, "")
    except Unreadable as error:
        return str(error)
    assert events
    for event in events:
        msgspec.json.decode(event.line)
    return None


def relay(body: bytes, exchange: str) -> str | None:
    """Label a body as the relay does; return the reason of its quarantine, None if it is labelled.

    An exception other than Unreadable, which the relay would quarantine as its own failure, is
    raised.
    """
    try:
        notification = decode(body)
        scrubbed = SCRUBBER.scrub(body, notification.event_type)
        if scrubbed.paths:
            notification = decode(scrubbed.body)
        expected = label(exchange, notification)
    except Unreadable as error:
        return str(error)
    properties = BasicProperties(
        message_id=expected.message_id,
        type=expected.event_type,
        app_id=expected.service,
        timestamp=expected.timestamp,
    )
    assert properties.encode()
    assert len(expected.routing_key.encode()) <= 255
    return None


@settings(max_examples=1500, deadline=None)
@given(st.sampled_from(GOLDEN), PATHS, VALUES)
def test_a_wrong_type_in_any_field_is_read_or_quarantined_for_a_stated_reason(
    captured: Captured, path: Sequence[int], value: object
) -> None:
    body = spoil(captured, path, value)
    for reason in (record(body, captured.service), relay(body, captured.exchange)):
        if reason is not None:
            check_reasons([reason])


@settings(max_examples=500, deadline=None)
@given(st.binary(max_size=400))
def test_random_bytes_are_quarantined_for_a_stated_reason(body: bytes) -> None:
    for reason in (record(body), relay(body, "nova")):
        assert reason is not None
        check_reasons([reason])


@pytest.mark.parametrize(
    "body",
    [
        b"", b"\x00", b"null", b"[]", b"{}", b'"text"', b"[" * 200_000, b'{"a":' * 100_000,
        b'{"oslo.version": "2.0", "oslo.message": "' + b"[" * 100_000 + b'"}',
        b'{"message_id": "m", "event_type": "x", "priority": "INFO", "timestamp": "2026-01-01", '
        b'"payload": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    ],
)  # fmt: skip
def test_a_body_that_is_no_notification_is_quarantined_for_a_stated_reason(body: bytes) -> None:
    reason = record(body)
    assert reason is not None
    check_reasons([reason])


@pytest.mark.parametrize("fault", [KeyError("x"), AttributeError("x"), ZeroDivisionError()])
def test_a_bug_planted_in_the_reading_fails_the_check(
    monkeypatch: pytest.MonkeyPatch, fault: Exception
) -> None:
    """The recorder quarantines what its own bug cannot read, and the check above notices it."""

    def normalise(*_: object) -> None:
        raise fault

    assert record(GOLDEN[0].body, GOLDEN[0].service) is None
    monkeypatch.setattr(history_sink, "normalise", normalise)
    reason = record(GOLDEN[0].body, GOLDEN[0].service)
    assert reason is not None
    with pytest.raises(AssertionError, match="1 notifications made stackbus fail"):
        check_reasons([reason])
