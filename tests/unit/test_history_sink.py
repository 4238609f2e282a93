"""The history as a sink: batches go to processes of their own, and their results come back."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import pytest
from tests.recording import GOLDEN

from stackbus.errors import HistoryUnreachable
from stackbus.events.scrub import Scrubber
from stackbus.flow.stream import Delivery
from stackbus.history.history import History
from stackbus.history.session import Layout, open_engine
from stackbus.query.events import list_events
from stackbus.query.filter import EventFilter
from stackbus.sinks.history import HistorySink, HistoryWriter, QuarantineFull
from stackbus.sources.bus import BusSource


def delivery(body: bytes, service: str = "") -> Delivery:
    return Delivery(
        channel=BusSource.name,
        origin="here",
        body=body,
        received=datetime.now(UTC),
        service=service,
        scrubbed=True,
    )


BATCH = [delivery(captured.body, captured.service) for captured in GOLDEN]


class BrokenWriter(HistoryWriter):
    def write(self, *_: object) -> None:  # type: ignore[override]
        raise ZeroDivisionError


def open_writer(path: Path, kind: type[HistoryWriter] = HistoryWriter) -> HistoryWriter:
    history = History(open_engine(f"chdb://{path}"), Layout(), "test")
    history.migrate()
    return kind(history, BusSource.extract, Scrubber(), "RegionOne", 1000)


@pytest.fixture
def sink(tmp_path: Path) -> Iterator[HistorySink]:
    sink = HistorySink(partial(open_writer, tmp_path / "history"), 2)
    yield sink
    sink.close()


def workers() -> list[int]:
    """Return the processes that this test's sink has started."""
    children = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
    commands = {child: Path(f"/proc/{child}/cmdline").read_bytes() for child in children}
    return [int(child) for child, words in commands.items() if b"multiprocessing.spawn" in words]


def test_a_batch_is_stored_once_however_often_it_is_written(sink: HistorySink) -> None:
    outcomes = [sink.write(BATCH) for _ in range(3)]
    assert [outcome.written for outcome in outcomes] == [len(GOLDEN), 0, 0]
    assert [outcome.duplicates for outcome in outcomes] == [0, len(GOLDEN), len(GOLDEN)]


def test_events_bear_the_region_of_the_recorder(sink: HistorySink, tmp_path: Path) -> None:
    sink.write(BATCH)
    history = History(open_engine(f"chdb://{tmp_path}/history"), Layout(), "reader")
    assert {event.region for event in list_events(history, EventFilter())} == {"RegionOne"}
    history.close()


def test_an_unreadable_body_is_rejected_and_the_others_are_stored(sink: HistorySink) -> None:
    outcome = sink.write([*BATCH, delivery(b"no notification")])
    assert (outcome.written, outcome.rejected) == (len(GOLDEN), 1)


def test_a_full_quarantine_is_an_error_that_is_not_transient(sink: HistorySink) -> None:
    with pytest.raises(QuarantineFull, match="quarantine_max_bytes") as caught:
        sink.write([delivery(b"x" * 2000)])
    assert not caught.value.is_transient


def test_after_its_process_was_killed_a_batch_can_be_written_again(sink: HistorySink) -> None:
    sink.write(BATCH)
    for worker in workers():
        os.kill(worker, signal.SIGKILL)
    with pytest.raises(HistoryUnreachable, match="has ended") as caught:
        sink.write(BATCH)
    assert caught.value.is_transient
    assert sink.write(BATCH).duplicates == len(GOLDEN)


def test_a_bug_in_the_process_is_raised_here_with_its_traceback(tmp_path: Path) -> None:
    sink = HistorySink(partial(open_writer, tmp_path / "history", BrokenWriter), 1)
    with pytest.raises(ZeroDivisionError) as caught:
        sink.write(BATCH)
    assert "raise ZeroDivisionError" in caught.value.__notes__[0]
    sink.close()


def test_close_ends_the_processes(sink: HistorySink) -> None:
    sink.write(BATCH)
    assert workers()
    sink.close()
    assert not workers()
