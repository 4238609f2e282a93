"""The history on the embedded engine: each notification once, and shared between processes."""

from __future__ import annotations

import os
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

import stackbus.history.session
from stackbus.errors import HistoryError, HistoryUnreachable, InputError
from stackbus.events.model import Event
from stackbus.events.normalise import normalise
from stackbus.history.batches import EventRow
from stackbus.history.engine import Engine
from stackbus.history.history import History
from stackbus.history.protocol import SOCKET, Request, send_frame, short_path
from stackbus.history.quarantine import QuarantinedBody
from stackbus.history.session import Layout, migrations, open_engine, statements
from stackbus.query.events import list_events
from stackbus.query.filter import EventFilter

NOW = datetime(2026, 1, 1, tzinfo=UTC)
CAPTURED = [
    event
    for captured in golden()
    for event in normalise(captured.body, "bus", NOW, captured.service)
]
EVENTS = [EventRow.from_event(event) for event in CAPTURED]
NOTIFICATIONS = len({event.id for event in CAPTURED})


class Number(msgspec.Struct):
    number: int


class Linked(msgspec.Struct):
    batch: int
    previous: str
    chain: str


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    engine = open_engine(f"chdb://{tmp_path}/history")
    yield engine
    engine.close()


def open_history(engine: Engine, recorder: str = "r1") -> History:
    history = History(engine, Layout(), recorder)
    history.migrate()
    return history


def number(history: History, sql: str) -> int:
    return next(history.session.select(sql, Number, {})).number


def lines(events: list[Event]) -> list[bytes]:
    return sorted(msgspec.json.encode(event) for event in events)


def test_every_captured_notification_is_stored_as_it_is_and_once(engine: Engine) -> None:
    history = open_history(engine)
    assert history.events.store(EVENTS).new == NOTIFICATIONS
    repeated = history.events.store(EVENTS)
    assert (repeated.new, repeated.duplicates) == (0, NOTIFICATIONS)
    assert lines(list(list_events(history, EventFilter()))) == lines(CAPTURED)
    assert number(history, "SELECT count() AS number FROM events") == len(CAPTURED)


def test_the_largest_batch_whose_times_all_differ_is_stored_once(engine: Engine) -> None:
    batch = [
        EventRow.from_event(
            msgspec.structs.replace(
                CAPTURED[0], id=str(uuid4()), time=NOW + timedelta(microseconds=number)
            )
        )
        for number in range(100_000)  # as many as the setting record_batch allows
    ]
    history = open_history(engine)
    assert history.events.store(batch).new == len(batch)
    assert history.events.store(batch).duplicates == len(batch)
    assert sum(1 for _ in list_events(history, EventFilter(), with_payload=False)) == len(batch)


@pytest.mark.parametrize(
    "payload",
    ['"a text, {\\"not\\": \\"an object\\"}"', "[1, 2]", "3.5", "true", "null", "{}", '""', '"null"',
     '{"a" : "\\u00e9\\ud83d\\ude00 / \\/ \\\\ \\u0000 \\t", "b":[ ]}', '{"": {"x": 1e400}}'],
)  # fmt: skip
def test_any_payload_comes_back_byte_for_byte(engine: Engine, payload: str) -> None:
    event = msgspec.structs.replace(CAPTURED[0], payload=msgspec.Raw(payload.encode()))
    history = open_history(engine)
    history.events.store([EventRow.from_event(event)])
    assert [bytes(event.payload).decode() for event in list_events(history, EventFilter())] == [
        payload
    ]
    assert lines(list(list_events(history, EventFilter()))) == lines([event])


def test_a_notification_inserted_by_two_recorders_is_there_once_on_a_server(engine: Engine) -> None:
    history, second = open_history(engine), open_history(engine, "r2")
    history.events._batches.append(EVENTS[:10])
    second.events._batches.append(EVENTS[:10])
    assert number(history, "SELECT count() AS number FROM events FINAL") == 10


def test_a_second_channel_becomes_a_confirmation(engine: Engine) -> None:
    history = open_history(engine)
    history.events.store(EVENTS[:5])
    logged = [
        EventRow.from_event(msgspec.structs.replace(event, channels=("log",)))
        for event in CAPTURED[:7]
    ]
    assert (history.events.store(logged).new, history.events.store(logged).duplicates) == (2, 7)
    assert number(history, "SELECT count() AS number FROM told FINAL") == 5


@pytest.mark.parametrize("arrives", [True, False])
def test_a_failed_insert_is_done_again_and_the_chain_goes_on(
    engine: Engine, monkeypatch: pytest.MonkeyPatch, arrives: bool
) -> None:
    history = open_history(engine)
    history.events.store(EVENTS[:3])
    insert = engine.insert

    def cut(table: str, rows: Sequence[bytes]) -> None:
        if arrives:
            insert(table, rows)
        raise HistoryUnreachable("the answer was lost")

    with monkeypatch.context() as patch:
        patch.setattr(engine, "insert", cut)
        with pytest.raises(HistoryUnreachable):
            history.events.store(EVENTS[3:6])
    late = history.events.store(EVENTS[3:6])
    assert (late.new, late.duplicates) == (3, 0)
    history.events.store(EVENTS[6:9])
    # Without FINAL, as all questions are where there is one writer.
    assert number(history, "SELECT count() AS number FROM events") == 9
    sql = "SELECT DISTINCT batch, previous, chain FROM events ORDER BY batch"
    chain = list(history.session.select(sql, Linked, {}))
    assert [link.batch for link in chain] == [0, 1, 2]
    assert [link.previous for link in chain[1:]] == [link.chain for link in chain[:-1]]


@pytest.mark.parametrize("arrives", [True, False])
def test_a_failed_insert_that_another_recorder_repeats_is_there_once(
    engine: Engine, monkeypatch: pytest.MonkeyPatch, arrives: bool
) -> None:
    history, second = open_history(engine), open_history(engine, "r2")
    insert = engine.insert

    def cut(table: str, rows: Sequence[bytes]) -> None:
        if arrives:
            insert(table, rows)
        raise HistoryUnreachable("the answer was lost")

    with monkeypatch.context() as patch:
        patch.setattr(engine, "insert", cut)
        with pytest.raises(HistoryUnreachable):
            history.events.store(EVENTS[:3])
    assert second.events.store(EVENTS[:3]).new == (0 if arrives else 3)
    assert history.events.store(EVENTS[3:6]).new == 3
    assert number(history, "SELECT count() AS number FROM events") == 6
    assert number(history, "SELECT uniqExact(recorder, batch) AS number FROM events") == 2


def test_the_quarantine_holds_a_body_whole_and_once(engine: Engine) -> None:
    history = open_history(engine)
    poison = QuarantinedBody(NOW, "bus", "a.info", "nova", "no notification", b"\x00\xff{")
    history.quarantine.add([poison, poison])
    history.quarantine.add([poison])
    assert history.quarantine.size() == len("AP97")
    assert list(history.quarantine) == [poison]
    history.quarantine.release([poison])
    assert list(history.quarantine) == []
    assert history.quarantine.size() == 0


def test_positions_are_saved_and_replaced(engine: Engine) -> None:
    history = open_history(engine)
    history.positions.save("log", {"a": "1", "b": "2"})
    history.positions.save("log", {"a": "3"})
    assert history.positions.load("log") == {"a": "3", "b": "2"}
    assert history.positions.load("opensearch") == {}


def test_months_that_ended_before_are_dropped_whole(engine: Engine) -> None:
    history = open_history(engine)
    moments = [datetime(2025, 11, 30, 23, 59, tzinfo=UTC), datetime(2025, 12, 1, tzinfo=UTC)]
    history.events.store(
        [
            EventRow.from_event(msgspec.structs.replace(event, time=moment))
            for event, moment in zip(CAPTURED, moments, strict=False)
        ]
    )
    assert history.events.expire(datetime(2025, 11, 30, 23, 59, 59, tzinfo=UTC)) == []
    assert history.events.expire(datetime(2025, 12, 31, tzinfo=UTC)) == [202511]
    assert [event.time for event in list_events(history, EventFilter())] == moments[1:]


WRITER = """
import sys
from stackbus.history.session import Layout, open_engine
e = open_engine(sys.argv[1])
print(e.select('SELECT count() AS n FROM events', {}).decode(), end='')
e.execute('CREATE TABLE x (a String) ENGINE = Memory')
e.insert('x', [b'{"a": "b"}\\n'])
try:
    e.select('SELECT nonsense', {})
except Exception as error:
    print(type(error).__name__)
"""


def test_another_process_reaches_the_same_engine(tmp_path: Path, engine: Engine) -> None:
    history = open_history(engine)
    history.events.store(EVENTS[:3])
    done = subprocess.run(
        [sys.executable, "-c", WRITER, f"chdb://{tmp_path}/history"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout.split() == ['{"n":3}', "HistoryError"]
    assert engine.select("SELECT a FROM x", {}) == b'{"a":"b"}\n'


def serving(path: Path) -> list[int]:
    """Return the ids of the processes that serve a history."""
    pids = []
    for entry in Path("/proc").iterdir():
        try:
            words = (entry / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if b"stackbus.history.server" in words and str(path).encode() in words:
            pids.append(int(entry.name))
    return pids


def test_a_client_that_dies_with_half_a_request_leaves_the_server_running(
    tmp_path: Path, engine: Engine
) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
        with short_path(tmp_path / "history") as short:
            client.connect(f"{short}/{SOCKET}")
        send_frame(client, Request("lock"))
        client.recv(4096)
        client.sendall(struct.pack("!QQ", 100, 0) + b"half")
    with engine.exclusive():
        assert engine.select("SELECT 1 AS n", {}) == b'{"n":1}\n'


def test_a_batch_is_inserted_in_one_block_or_refused_as_a_whole(engine: Engine) -> None:
    engine.execute("CREATE TABLE x (n UInt32) ENGINE = MergeTree ORDER BY n")
    rows = [b'{"n":%d}\n' % number for number in range(3000)]
    sql = "SELECT count() AS c, uniqExact(n) AS u, uniq(_part) AS p FROM x"
    for blocks in range(1, 4):
        engine.insert("x", rows)
        expected = b'{"c":%d,"u":3000,"p":%d}\n' % (3000 * blocks, blocks)
        assert engine.select(sql, {}) == expected
    with pytest.raises(HistoryError, match="Cannot parse"):
        engine.insert("x", [*rows, b'{"n":"none"}\n'])
    assert engine.select(sql, {}) == expected


def test_the_server_ends_with_its_last_client_and_is_started_again_when_killed(
    tmp_path: Path,
) -> None:
    path = tmp_path / "history"
    engine = open_engine(f"chdb://{path}")
    history = open_history(engine)
    history.events.store(EVENTS[:3])
    (pid,) = serving(path)
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: serving(path) == [], message="it is still there")
    assert len(list(list_events(history, EventFilter()))) == 3
    history.events.store(EVENTS[:6])
    assert len(list(list_events(history, EventFilter()))) == 6
    engine.close()
    wait_until(lambda: serving(path) == [], message="it did not end")


def test_a_client_that_dies_while_it_writes_releases_its_lock(tmp_path: Path) -> None:
    path = tmp_path / "history"
    code = (
        "import sys, time\nfrom stackbus.history.session import open_engine\n"
        "with open_engine(sys.argv[1]).exclusive():\n print('locked', flush=True)\n time.sleep(60)\n"
    )
    engine = open_engine(f"chdb://{path}")
    history = open_history(engine)
    with subprocess.Popen(
        [sys.executable, "-c", code, f"chdb://{path}"], stdout=subprocess.PIPE
    ) as writer:
        assert writer.stdout is not None
        assert writer.stdout.readline() == b"locked\n"
        writer.kill()
    assert history.events.store(EVENTS[:3]).new == len({row.id for row in EVENTS[:3]})
    engine.close()


def test_an_error_says_why_the_data_cannot_be_opened(tmp_path: Path) -> None:
    path = tmp_path / "history"
    (path / "stackbus.lock").mkdir(parents=True)
    with pytest.raises(HistoryError, match=r"the history at .* cannot be opened: .*Is a directory"):
        open_engine(f"chdb://{path}")


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

    def count_changed_settings(history: History) -> int:
        return next(history.session.select(sql, Number, {"settings": settings})).number

    with monkeypatch.context() as patch:
        patch.setattr(stackbus.history.session, "migrations", lambda: {1: migrations()[1]})
        old = open_history(engine)
        old.events.store(EVENTS[:3])
    assert count_changed_settings(old) == 0
    new = open_history(engine)
    assert count_changed_settings(new) == len(settings)
    assert new.events.store(EVENTS[:4]).duplicates == 3
    assert [row.number for row in new.session.query("migrations", Number)] == list(migrations())


def test_a_history_of_a_newer_stackbus_is_left_alone(engine: Engine) -> None:
    history = open_history(engine)
    engine.execute("INSERT INTO migrations VALUES (9999, now())")
    with pytest.raises(HistoryError, match=r"newer stackbus \(migration 9999"):
        history.migrate()


@pytest.mark.parametrize(
    "dsn", ["", "chdb://relative/path", "mysql://x/y", "clickhouse:///db", "clickhouse://h:port/x"]
)
def test_an_error_does_not_quote_a_wrong_dsn(dsn: str) -> None:
    with pytest.raises(InputError) as caught:
        open_engine(dsn)
    assert dsn == "" or dsn not in str(caught.value)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with clickhouse(tmp_path_factory.mktemp("clickhouse")) as dsn:
        yield dsn


def test_a_server_is_a_history_like_the_embedded_one(server: str) -> None:
    history = open_history(open_engine(server))
    half = EVENTS[: len(EVENTS) // 2]
    assert history.events.store(half).new == len({row.id for row in half})
    second = open_history(open_engine(server), "r2")
    second.quarantine.add([QuarantinedBody(NOW, "bus", "o", "", "why", b"\x00\xff")])
    stored = second.events.store(EVENTS)
    assert stored.new + stored.duplicates == NOTIFICATIONS
    assert stored.duplicates == len({row.id for row in half})
    assert lines(list(list_events(history, EventFilter()))) == lines(CAPTURED)
    event_filter = EventFilter({"type": ("instance.*",), "resource_name": ("it's \\ {x:String}",)})
    assert list(list_events(history, event_filter)) == []
    assert [item.body for item in history.quarantine] == [b"\x00\xff"]
    assert history.events.expire(datetime(2027, 1, 1, tzinfo=UTC)) == [202611]
    assert list(list_events(second, EventFilter())) == []
    history.close()
    second.close()


def test_an_error_of_the_server_does_not_show_the_password(server: str) -> None:
    for dsn in (server.replace("s3cret", "wr0ng"), server.replace("/default", "/nosuch")):
        with pytest.raises(HistoryError) as caught:
            open_history(open_engine(dsn))
        assert "wr0ng" not in str(caught.value)
        assert "s3cret" not in str(caught.value)
        assert not isinstance(caught.value, HistoryUnreachable)
    with pytest.raises(HistoryUnreachable):  # nobody listens there: it is waited for
        open_engine(server.rpartition(":")[0] + ":1/default")


def test_the_engine_parses_every_statement_of_a_cluster(engine: Engine) -> None:
    for text in migrations().values():
        for statement in statements(text, Layout("c")):
            assert engine.select("SELECT formatQuery({sql:String}) AS text", {"sql": statement})


def test_the_tables_of_a_cluster_are_replicated_and_distributed() -> None:
    text = "\n".join(
        statement for sql in migrations().values() for statement in statements(sql, Layout("c"))
    )
    changes = text.count("CREATE TABLE") + text.count("ALTER TABLE")
    assert text.count("ON CLUSTER 'c'") == changes
    assert "CREATE TABLE IF NOT EXISTS events_local ON CLUSTER 'c'" in text
    assert "ReplicatedReplacingMergeTree()" in text
    assert "ENGINE = Distributed('c', currentDatabase(), events_local, cityHash64(id))" in text
    assert "$" not in text
    alone = "\n".join(
        statement for sql in migrations().values() for statement in statements(sql, Layout())
    )
    assert not any(word in alone for word in ("$", "Replicated", "Distributed", "ON CLUSTER"))
