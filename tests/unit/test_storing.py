"""Batches reach the processes that store them, and come back as what became of them."""

import resource
from collections.abc import Iterator
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import pytest
from tests.recording import GOLDEN

from stackbus.errors import HistoryUnreachable
from stackbus.events.scrub import Scrubber
from stackbus.history.engine import opened
from stackbus.history.history import History, Layout
from stackbus.record.channel import Delivery
from stackbus.record.channels.bus import BUS
from stackbus.record.storing import Storer, Storing, packed

BATCH = packed(
    [
        Delivery(
            channel=BUS,
            origin="here",
            body=one.body,
            received=datetime.now(UTC),
            service=one.service,
            scrubbed=True,
        )
        for one in GOLDEN
    ]
)


def storer(path: Path) -> Storer:
    history = History(opened(f"chdb://{path}"), Layout(), "test")
    history.migrate()
    return Storer(history, Scrubber(), 0)


@pytest.fixture
def storing(tmp_path: Path) -> Iterator[Storing]:
    made = Storing(partial(storer, tmp_path / "history"), 2)
    yield made
    made.close()


def open_files() -> set[str]:
    handles = Path("/proc/self/fd")
    return {str(one.readlink()) for one in handles.iterdir() if one.is_symlink()}


def test_a_batch_is_stored_once_by_whichever_process(storing: Storing) -> None:
    before = open_files()
    outcomes = [storing.store(BATCH) for _ in range(3)]
    assert [sum(one.new.values()) for one in outcomes] == [len(GOLDEN), 0, 0]
    assert [sum(one.known.values()) for one in outcomes] == [0, len(GOLDEN), len(GOLDEN)]
    assert not any("stackbus-batch" in one for one in open_files() - before)


def test_a_batch_without_room_in_memory_is_for_later(storing: Storing) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1024, hard))
    try:
        with pytest.raises(HistoryUnreachable, match="cannot be given to a process"):
            storing.store(BATCH)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert sum(storing.store(BATCH).new.values()) == len(GOLDEN)
