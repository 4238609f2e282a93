"""The history on the embedded engine: once, whatever happens; and shared between processes."""

from __future__ import annotations

import os
import resource
import signal
import socket
import struct
import subprocess
import sys
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import uuid4

import msgspec
import pytest
from tests.clickhouse import clickhouse
from tests.conftest import golden, wait_until

import stackbus.history.history
from stackbus.errors import HistoryError, HistoryUnreachable, InputError
from stackbus.events.model import Event
from stackbus.events.normalise import normalise
from stackbus.history.engine import opened
from stackbus.history.history import (
    Engine,
    History,
    Layout,
    Prepared,
    Quarantined,
    migrations,
    statements,
)
from stackbus.history.wire import SOCKET, Ask, in_memory, send, short_path
from stackbus.query.events import listed
from stackbus.query.filter import Filter

NOW = datetime(2026, 1, 1, tzinfo=UTC)
CAPTURED = [event for one in golden() for event in normalise(one.body, "bus", NOW, one.service)]
EVENTS = [Prepared.of(event) for event in CAPTURED]
NOTIFICATIONS = len({event.id for event in CAPTURED})


class Number(msgspec.Struct):
    number: int


class Linked(msgspec.Struct):
    batch: int
    previous: str
    chain: str


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    found = opened(f"chdb://{tmp_path}/history")
    yield found
    found.close()


def history(engine: Engine, recorder: str = "r1") -> History:
    made = History(engine, Layout(), recorder)
    made.migrate()
    return made


def number(of: History, sql: str) -> int:
    return next(of.rows(sql, Number, {})).number


def lines(events: list[Event]) -> list[bytes]:
    return sorted(msgspec.json.encode(event) for event in events)


def test_every_captured_notification_is_stored_as_it_is_and_once(engine: Engine) -> None:
    first = history(engine)
    assert first.store(EVENTS, []).new == NOTIFICATIONS
    again = first.store(EVENTS, [])
    assert (again.new, again.known) == (0, NOTIFICATIONS)
    assert lines(list(listed(first, Filter()))) == lines(CAPTURED)
    assert number(first, "SELECT count() AS number FROM events") == len(CAPTURED)


def test_the_largest_batch_whose_times_all_differ_is_stored_once(engine: Engine) -> None:
    batch = [
        Prepared.of(
            msgspec.structs.replace(
                CAPTURED[0], id=str(uuid4()), time=NOW + timedelta(microseconds=place)
            )
        )
        for place in range(100_000)  # as many as the setting record_batch allows
    ]
    first = history(engine)
    assert first.store(batch, []).new == len(batch)
    assert first.store(batch, []).known == len(batch)
    assert sum(1 for _ in listed(first, Filter(), payload=False)) == len(batch)


@pytest.mark.parametrize(
    "payload",
    ['"a text, {\\"not\\": \\"an object\\"}"', "[1, 2]", "3.5", "true", "null", "{}", '""', '"null"',
     '{"a" : "\\u00e9\\ud83d\\ude00 / \\/ \\\\ \\u0000 \\t", "b":[ ]}', '{"": {"x": 1e400}}'],
)  # fmt: skip
def test_any_payload_comes_back_byte_for_byte(engine: Engine, payload: str) -> None:
    event = msgspec.structs.replace(CAPTURED[0], payload=msgspec.Raw(payload.encode()))
    first = history(engine)
    first.store([Prepared.of(event)], [])
    assert [bytes(one.payload).decode() for one in listed(first, Filter())] == [payload]
    assert lines(list(listed(first, Filter()))) == lines([event])


def test_two_that_insert_the_same_at_once_leave_it_once_on_a_server(engine: Engine) -> None:
    first, second = history(engine), history(engine, "r2")
    first._insert(EVENTS[:10])
    second._insert(EVENTS[:10])
    assert number(first, "SELECT count() AS number FROM events FINAL") == 10


def test_another_channel_that_tells_the_same_is_noted(engine: Engine) -> None:
    first = history(engine)
    first.store(EVENTS[:5], [])
    logged = [
        Prepared.of(msgspec.structs.replace(event, channels=("log",))) for event in CAPTURED[:7]
    ]
    assert (first.store(logged, []).new, first.store(logged, []).known) == (2, 7)
    assert number(first, "SELECT count() AS number FROM told FINAL") == 5


@pytest.mark.parametrize("arrives", [True, False])
def test_a_failed_insert_is_done_again_and_the_chain_goes_on(
    engine: Engine, monkeypatch: pytest.MonkeyPatch, arrives: bool
) -> None:
    first = history(engine)
    first.store(EVENTS[:3], [])
    write = engine.write

    def cut(table: str, rows: Sequence[bytes]) -> None:
        if arrives:
            write(table, rows)
        raise HistoryUnreachable("the answer was lost")

    with monkeypatch.context() as patch:
        patch.setattr(engine, "write", cut)
        with pytest.raises(HistoryUnreachable):
            first.store(EVENTS[3:6], [])
    late = first.store(EVENTS[3:6], [])
    assert (late.new, late.known) == (3, 0)
    first.store(EVENTS[6:9], [])
    # Without FINAL, as all questions are where there is one writer.
    assert number(first, "SELECT count() AS number FROM events") == 9
    sql = "SELECT DISTINCT batch, previous, chain FROM events ORDER BY batch"
    chain = list(first.rows(sql, Linked, {}))
    assert [one.batch for one in chain] == [0, 1, 2]
    assert [one.previous for one in chain[1:]] == [one.chain for one in chain[:-1]]


@pytest.mark.parametrize("arrives", [True, False])
def test_a_failed_insert_that_another_one_does_again_is_there_once(
    engine: Engine, monkeypatch: pytest.MonkeyPatch, arrives: bool
) -> None:
    first, second = history(engine), history(engine, "r2")
    write = engine.write

    def cut(table: str, rows: Sequence[bytes]) -> None:
        if arrives:
            write(table, rows)
        raise HistoryUnreachable("the answer was lost")

    with monkeypatch.context() as patch:
        patch.setattr(engine, "write", cut)
        with pytest.raises(HistoryUnreachable):
            first.store(EVENTS[:3], [])
    assert second.store(EVENTS[:3], []).new == (0 if arrives else 3)
    assert first.store(EVENTS[3:6], []).new == 3
    assert number(first, "SELECT count() AS number FROM events") == 6
    assert number(first, "SELECT uniqExact(recorder, batch) AS number FROM events") == 2


def test_the_quarantine_holds_what_came_whole_and_once(engine: Engine) -> None:
    first = history(engine)
    poison = Quarantined(NOW, "bus", "a.info", "nova", "no notification", b"\x00\xff{")
    first.store([], [poison, poison])
    first.store([], [poison])
    assert first.quarantined_bytes() == len("AP97")
    assert list(first.quarantined()) == [poison]
    first.release([poison])
    assert list(first.quarantined()) == []
    assert first.quarantined_bytes() == 0


def test_positions_are_kept_and_replaced(engine: Engine) -> None:
    first = history(engine)
    first.save_positions("log", {"a": "1", "b": "2"})
    first.save_positions("log", {"a": "3"})
    assert first.positions("log") == {"a": "3", "b": "2"}
    assert first.positions("opensearch") == {}


def test_months_that_ended_before_are_dropped_whole(engine: Engine) -> None:
    first = history(engine)
    moments = [datetime(2025, 11, 30, 23, 59, tzinfo=UTC), datetime(2025, 12, 1, tzinfo=UTC)]
    first.store(
        [
            Prepared.of(msgspec.structs.replace(event, time=moment))
            for event, moment in zip(CAPTURED, moments, strict=False)
        ],
        [],
    )
    assert first.expire(datetime(2025, 11, 30, 23, 59, 59, tzinfo=UTC)) == []
    assert first.expire(datetime(2025, 12, 31, tzinfo=UTC)) == [202511]
    assert [event.time for event in listed(first, Filter())] == moments[1:]


WRITER = """
import sys
from stackbus.history.engine import opened
e = opened(sys.argv[1])
print(e.read('SELECT count() AS n FROM events', {}).decode(), end='')
e.run('CREATE TABLE x (a String) ENGINE = Memory')
e.write('x', [b'{"a": "b"}\\n'])
try:
    e.read('SELECT nonsense', {})
except Exception as error:
    print(type(error).__name__)
"""


def test_another_process_reaches_the_same_engine(tmp_path: Path, engine: Engine) -> None:
    first = history(engine)
    first.store(EVENTS[:3], [])
    done = subprocess.run(
        [sys.executable, "-c", WRITER, f"chdb://{tmp_path}/history"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout.split() == ['{"n":3}', "HistoryError"]
    assert engine.read("SELECT a FROM x", {}) == b'{"a":"b"}\n'


def serving(path: Path) -> list[int]:
    """Give the ids of the processes that serve a history."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            words = (entry / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if b"stackbus.history.serve" in words and str(path).encode() in words:
            found.append(int(entry.name))
    return found


def handles(pid: int) -> str:
    """Name what a process has open."""
    command = ["ls", "-l", f"/proc/{pid}/fd"]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout


@pytest.mark.parametrize("reads", [True, False])
def test_a_guest_that_dies_with_half_a_batch_leaves_nothing_open(
    tmp_path: Path, engine: Engine, reads: bool
) -> None:
    path = tmp_path / "history"
    (pid,) = serving(path)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as guest:
        with short_path(path) as short:
            guest.connect(f"{short}/{SOCKET}")
        send(guest, Ask("hello", ""))
        guest.recv(
            4096, 0 if reads else socket.MSG_PEEK
        )  # an unread answer makes a reset of its end
        with in_memory([b"{}\n"]) as file:
            socket.send_fds(guest, [struct.pack("!QQ", 100, 0)], [file])
            guest.sendall(b"half")
            wait_until(lambda: "stackbus-batch" in handles(pid), message="it has not come")
    wait_until(lambda: "stackbus-batch" not in handles(pid), 5, "it is still open")
    assert engine.read("SELECT 1 AS n", {}) == b'{"n":1}\n'


def test_a_batch_without_room_in_memory_is_tried_again_later(engine: Engine) -> None:
    first = history(engine)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1024, hard))
    try:
        with pytest.raises(HistoryUnreachable, match="cannot be given a batch: Cannot allocate"):
            first.store(EVENTS[:9], [])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert first.store(EVENTS[:9], []).known == 0
    assert len(list(listed(first, Filter()))) == 9


def test_a_batch_travels_as_a_file_in_memory_that_nobody_keeps(
    tmp_path: Path, engine: Engine
) -> None:
    engine.run("CREATE TABLE x (n UInt32) ENGINE = MergeTree ORDER BY n")
    rows = [b'{"n":%d}\n' % number for number in range(3000)]  # more than one writev takes
    (pid,) = serving(tmp_path / "history")
    sql = "SELECT count() AS c, uniqExact(n) AS u, uniq(_part) AS p FROM x"
    for blocks in range(1, 4):
        engine.write("x", rows)
        expected = b'{"c":%d,"u":3000,"p":%d}\n' % (3000 * blocks, blocks)
        assert engine.read(sql, {}) == expected
    for process in (pid, os.getpid()):
        assert "socket" in handles(process)
        assert "stackbus-batch" not in handles(process)
    with pytest.raises(HistoryError, match="Cannot parse"):
        engine.write("x", [b'{"n":"none"}\n'])
    engine.write("x", rows[:1])


def test_the_engine_ends_with_its_last_guest_and_is_started_anew_when_killed(
    tmp_path: Path,
) -> None:
    path = tmp_path / "history"
    engine = opened(f"chdb://{path}")
    first = history(engine)
    first.store(EVENTS[:3], [])
    (pid,) = serving(path)
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: serving(path) == [], message="it is still there")
    assert len(list(listed(first, Filter()))) == 3
    first.store(EVENTS[:6], [])
    assert len(list(listed(first, Filter()))) == 6
    engine.close()
    wait_until(lambda: serving(path) == [], message="it did not end")


def test_a_guest_that_dies_while_it_writes_lets_the_others_go_on(tmp_path: Path) -> None:
    path = tmp_path / "history"
    code = (
        "import sys, time\nfrom stackbus.history.engine import opened\n"
        "with opened(sys.argv[1]).exclusive():\n print('locked', flush=True)\n time.sleep(60)\n"
    )
    engine = opened(f"chdb://{path}")
    first = history(engine)
    with subprocess.Popen(
        [sys.executable, "-c", code, f"chdb://{path}"], stdout=subprocess.PIPE
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"locked\n"
        other.kill()
    assert first.store(EVENTS[:3], []).new == len({one.id for one in EVENTS[:3]})
    engine.close()


def test_data_that_cannot_be_opened_says_why(tmp_path: Path) -> None:
    path = tmp_path / "history"
    (path / "stackbus.lock").mkdir(parents=True)
    with pytest.raises(HistoryError, match=r"the history at .* cannot be opened: .*Is a directory"):
        opened(f"chdb://{path}")


def test_a_history_of_an_older_stackbus_is_brought_up_to_date(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = [
        "vertical_merge_algorithm_min_rows_to_activate = 1",
        "merge_max_block_size = 4096",
        "max_cleanup_delay_period = 30",
    ]
    sql = "SELECT length(multiSearchAllPositions(create_table_query, {settings:Array(String)}) "
    sql += "AS found) - countEqual(found, 0) AS number "
    sql += "FROM system.tables WHERE name = 'events' AND database = currentDatabase()"

    def changed(of: History) -> int:
        return next(of.rows(sql, Number, {"settings": settings})).number

    with monkeypatch.context() as patch:
        patch.setattr(stackbus.history.history, "migrations", lambda: {1: migrations()[1]})
        old = history(engine)
        old.store(EVENTS[:3], [])
    assert changed(old) == 0
    new = history(engine)
    assert changed(new) == len(settings)
    assert new.store(EVENTS[:4], []).known == 3
    assert [one.number for one in new.ask("migrations", Number)] == [1, 2, 3]


def test_a_history_of_a_newer_stackbus_is_left_alone(engine: Engine) -> None:
    first = history(engine)
    engine.run("INSERT INTO migrations VALUES (9999, now())")
    with pytest.raises(HistoryError, match=r"newer stackbus \(migration 9999"):
        first.migrate()


@pytest.mark.parametrize(
    "dsn", ["", "chdb://relative/path", "mysql://x/y", "clickhouse:///db", "clickhouse://h:port/x"]
)
def test_a_wrong_dsn_is_not_quoted(dsn: str) -> None:
    with pytest.raises(InputError) as caught:
        opened(dsn)
    assert dsn == "" or dsn not in str(caught.value)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with clickhouse(tmp_path_factory.mktemp("clickhouse")) as dsn:
        yield dsn


def test_a_server_is_a_history_like_the_embedded_one(server: str) -> None:
    first = history(opened(server))
    half = EVENTS[: len(EVENTS) // 2]
    assert first.store(half, []).new == len({one.id for one in half})
    second = history(opened(server), "r2")
    stored = second.store(EVENTS, [Quarantined(NOW, "bus", "o", "", "why", b"\x00\xff")])
    assert stored.new + stored.known == NOTIFICATIONS
    assert stored.known == len({one.id for one in half})
    assert lines(list(listed(first, Filter()))) == lines(CAPTURED)
    wanted = Filter({"type": ("instance.*",), "resource_name": ("it's \\ {x:String}",)})
    assert list(listed(first, wanted)) == []
    assert [one.body for one in first.quarantined()] == [b"\x00\xff"]
    assert first.expire(datetime(2027, 1, 1, tzinfo=UTC)) == [202611]
    assert list(listed(second, Filter())) == []
    first.close()
    second.close()


def test_what_a_server_refuses_is_told_and_its_password_is_not(server: str) -> None:
    for dsn in (server.replace("s3cret", "wr0ng"), server.replace("/default", "/nosuch")):
        with pytest.raises(HistoryError) as caught:
            history(opened(dsn))
        assert "wr0ng" not in str(caught.value)
        assert "s3cret" not in str(caught.value)
        assert not isinstance(caught.value, HistoryUnreachable)
    with pytest.raises(HistoryUnreachable):  # nobody listens there: it is waited for
        opened(server.rpartition(":")[0] + ":1/default")


def test_the_engine_reads_every_statement_of_a_cluster(engine: Engine) -> None:
    for text in migrations().values():
        for statement in statements(text, Layout("c")):
            assert engine.read("SELECT formatQuery({sql:String}) AS text", {"sql": statement})


def test_the_tables_of_a_cluster_are_replicated_and_distributed() -> None:
    text = "\n".join(one for sql in migrations().values() for one in statements(sql, Layout("c")))
    changes = text.count("CREATE TABLE") + text.count("ALTER TABLE")
    assert text.count("ON CLUSTER 'c'") == changes
    assert "CREATE TABLE IF NOT EXISTS events_local ON CLUSTER 'c'" in text
    assert "ReplicatedReplacingMergeTree()" in text
    assert "ENGINE = Distributed('c', currentDatabase(), events_local, cityHash64(id))" in text
    assert "$" not in text
    alone = "\n".join(one for sql in migrations().values() for one in statements(sql, Layout()))
    assert not any(word in alone for word in ("$", "Replicated", "Distributed", "ON CLUSTER"))
