"""The loop of every stream, with a source and a sink of this file: what a new one needs is here."""

from __future__ import annotations

import importlib
import pkgutil
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime

import prometheus_client
import pytest
from tests.conftest import wait_until

from stackbus import sources
from stackbus.errors import BrokerUnreachable, HistoryUnreachable, StackbusError
from stackbus.flow import runner
from stackbus.flow.loop import Loop, LoopSettings
from stackbus.flow.stream import Delivery, Outcome
from stackbus.wiring import record

SETTINGS = LoopSettings(batch=10, batch_bytes=10_000, batch_seconds=0.01, retry_max=0.05)
NOW = datetime(2026, 1, 1, tzinfo=UTC)


class ListSource:
    """Delivers the numbers of a range; the position of a delivery is its number."""

    def __init__(self, count: int, name: str = "numbers") -> None:
        self.name = name
        self.count = count
        self.committed = 0
        self.commits: list[int] = []
        self.subscriptions = 0
        self.breaks_at: set[int] = set()  # numbers before which the connection is lost, once
        self.arrival = threading.Event()  # never set: no more deliveries arrive
        self.empty_receives = 0

    @contextmanager
    def subscribe(self) -> Iterator[ListSource]:
        self.subscriptions += 1
        self.next = self.committed + 1
        yield self

    def receive(self, seconds: float) -> list[Delivery]:
        if self.next > self.count:
            self.arrival.wait(seconds)
            self.empty_receives += 1
            return []
        if self.next in self.breaks_at:
            self.breaks_at.remove(self.next)
            raise BrokerUnreachable("connection lost")
        number, self.next = self.next, self.next + 1
        body = str(number).encode()
        return [Delivery(channel=self.name, origin="", body=body, received=NOW, position=number)]

    def commit(self, position: int) -> None:
        self.committed = position
        self.commits.append(position)


class ListSink:
    """Keeps every number once; ``before_write`` may delay or fail a write."""

    def __init__(
        self, concurrency: int = 1, before_write: Callable[[list[int]], None] = lambda _: None
    ) -> None:
        self.concurrency = concurrency
        self.before_write = before_write
        self.numbers: list[int] = []
        self.is_closed = False
        self._lock = threading.Lock()

    def write(self, batch: Sequence[Delivery]) -> Outcome:
        numbers = [int(delivery.body) for delivery in batch]
        self.before_write(numbers)
        with self._lock:
            new = [number for number in numbers if number not in self.numbers]
            self.numbers += new
        return Outcome(written=len(new), duplicates=len(numbers) - len(new))

    def close(self) -> None:
        self.is_closed = True


@pytest.fixture
def received() -> prometheus_client.Counter:
    registry = prometheus_client.CollectorRegistry()
    return prometheus_client.Counter(
        "received", "deliveries", ["service", "channel"], registry=registry
    )


MakeLoop = Callable[[ListSource, ListSink], Loop]


@pytest.fixture
def make_loop(received: prometheus_client.Counter) -> MakeLoop:
    return lambda source, sink: Loop(source, sink, SETTINGS, received)


def test_every_delivery_is_written_once_and_committed(
    make_loop: MakeLoop, received: prometheus_client.Counter
) -> None:
    source, sink = ListSource(25), ListSink()
    loop = make_loop(source, sink)
    loop.run(until_idle=0.1)
    assert sink.numbers == list(range(1, 26))
    assert source.committed == 25
    assert sink.is_closed
    assert loop.has_caught_up
    assert (loop.tally.received, loop.tally.written, loop.tally.duplicates) == (25, 25, 0)
    assert received.labels("", "numbers")._value.get() == 25


def test_a_batch_holds_no_more_than_the_settings_allow(make_loop: MakeLoop) -> None:
    sizes: list[int] = []
    make_loop(ListSource(95), ListSink(before_write=lambda batch: sizes.append(len(batch)))).run(
        until_idle=0.1
    )
    assert max(sizes) <= SETTINGS.batch
    assert sum(sizes) == 95


def test_after_a_lost_connection_uncommitted_deliveries_come_again(make_loop: MakeLoop) -> None:
    source, sink = ListSource(50), ListSink()
    source.breaks_at = {3, 17, 18, 44}
    loop = make_loop(source, sink)
    loop.run(until_idle=0.2)
    assert source.subscriptions == 5
    assert sorted(sink.numbers) == list(range(1, 51))
    assert source.committed == 50
    assert loop.tally.written == 50


def test_positions_are_committed_in_order_though_a_later_batch_is_written_first(
    make_loop: MakeLoop,
) -> None:
    first_may_end, second_has_ended = threading.Event(), threading.Event()
    committed_meanwhile: list[int] = []

    def delay_the_first(batch: list[int]) -> None:
        if 1 in batch:
            first_may_end.wait(5)
        else:
            second_has_ended.set()

    source = ListSource(20)
    sink = ListSink(2, delay_the_first)
    thread = threading.Thread(target=make_loop(source, sink).run, args=(0.1,))
    thread.start()
    assert second_has_ended.wait(5)
    empty_receives = source.empty_receives
    wait_until(lambda: source.empty_receives > empty_receives + 2)  # a commit follows each
    committed_meanwhile += source.commits
    first_may_end.set()
    thread.join(5)
    assert committed_meanwhile == []
    assert source.commits == sorted(source.commits)
    assert source.committed == 20


def test_a_batch_is_written_again_until_the_sink_is_available(make_loop: MakeLoop) -> None:
    attempts: list[list[int]] = []

    def fail_twice(batch: list[int]) -> None:
        attempts.append(batch)
        if len(attempts) <= 2:
            raise HistoryUnreachable("away")

    source, sink = ListSource(5), ListSink(before_write=fail_twice)
    make_loop(source, sink).run(until_idle=0.1)
    assert attempts[0] == attempts[1] == attempts[2]
    assert (source.committed, source.subscriptions) == (5, 1)


def test_a_refused_batch_ends_the_loop_and_stays_in_the_source(make_loop: MakeLoop) -> None:
    def refuse(batch: list[int]) -> None:
        if 30 in batch:
            raise StackbusError("refused")

    source, sink = ListSource(50), ListSink(before_write=refuse)
    with pytest.raises(StackbusError, match="refused"):
        make_loop(source, sink).run()
    assert sink.is_closed
    assert 20 <= source.committed < 30
    # The next run continues after the last commit.
    make_loop(source, ListSink()).run(until_idle=0.1)
    assert source.committed == 50


def test_a_crash_of_the_sink_commits_nothing_and_the_next_run_repeats_it(
    make_loop: MakeLoop,
) -> None:
    def crash(batch: list[int]) -> None:
        if 15 in batch:
            raise ZeroDivisionError

    source, sink = ListSource(40), ListSink(before_write=crash)
    with pytest.raises(ZeroDivisionError):
        make_loop(source, sink).run()
    assert source.committed < 15
    sink.before_write = lambda _: None
    make_loop(source, sink).run(until_idle=0.1)
    assert sorted(sink.numbers) == list(range(1, 41))


def test_stop_writes_and_commits_all_that_was_received(make_loop: MakeLoop) -> None:
    is_writing, is_stopped = threading.Event(), threading.Event()

    def be_slow(_: list[int]) -> None:
        is_writing.set()
        is_stopped.wait(5)

    source, sink = ListSource(10_000), ListSink(before_write=be_slow)
    loop = make_loop(source, sink)
    thread = threading.Thread(target=loop.run)
    thread.start()
    assert is_writing.wait(5)
    loop.stop()
    is_stopped.set()
    thread.join(5)
    assert source.committed == loop.tally.received == len(sink.numbers)


def test_stop_does_not_wait_for_a_sink_that_is_unavailable(make_loop: MakeLoop) -> None:
    has_failed = threading.Event()

    def fail(_: list[int]) -> None:
        has_failed.set()
        raise HistoryUnreachable("away")

    source = ListSource(30)
    loop = make_loop(source, ListSink(before_write=fail))
    thread = threading.Thread(target=loop.run)
    thread.start()
    assert has_failed.wait(5)
    loop.stop()
    thread.join(5)
    assert not thread.is_alive()
    assert source.commits == []


# The loops of one command


def run_all(*loops: Loop, chores: Sequence[runner.Chore] = ()) -> None:
    runner.run(loops, leader="leader", until_idle=0.1, progress=lambda _: None, chores=chores)


def test_the_leader_runs_first(make_loop: MakeLoop) -> None:
    order: list[str] = []

    def note(name: str) -> Callable[[list[int]], None]:
        return lambda _: order.append(name)

    follower = make_loop(ListSource(30, "follower"), ListSink(before_write=note("follower")))
    leader = make_loop(ListSource(30, "leader"), ListSink(before_write=note("leader")))
    run_all(follower, leader)
    assert order == sorted(order, reverse=True)
    assert set(order) == {"leader", "follower"}


def test_an_error_in_one_loop_stops_the_others(make_loop: MakeLoop) -> None:
    def refuse(_: list[int]) -> None:
        raise StackbusError("refused")

    endless = ListSource(10**9, "leader")
    with pytest.raises(StackbusError, match="refused"):
        runner.run(
            [make_loop(endless, ListSink()), make_loop(ListSource(1), ListSink(1, refuse))],
            leader="",
            until_idle=None,
            progress=lambda _: None,
            chores=[],
        )
    assert endless.committed


def test_a_chore_that_fails_stops_nothing(make_loop: MakeLoop) -> None:
    done: list[str] = []

    def fail() -> None:
        done.append("failed")
        raise StackbusError("no")

    chores = [
        runner.Chore("bad", 0.01, fail), runner.Chore("good", 0.01, lambda: done.append("good"))
    ]  # fmt: skip
    source = ListSource(30, "leader")
    run_all(make_loop(source, ListSink()), chores=chores)
    assert source.committed == 30
    assert {"failed", "good"} <= set(done)


# The sources of stackbus


def test_every_source_is_listed_where_its_deliveries_are_read() -> None:
    modules = [
        importlib.import_module(f"stackbus.sources.{module.name}")
        for module in pkgutil.iter_modules(sources.__path__)
    ]
    classes = {
        value
        for module in modules
        for value in vars(module).values()
        if isinstance(value, type) and hasattr(value, "extract")
    }
    assert classes == set(record.CHANNELS)
    assert set(record.EXTRACTS) == {source.name for source in record.CHANNELS}
