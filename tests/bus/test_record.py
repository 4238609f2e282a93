"""The recorder on a real broker: nothing lost, nothing twice, whatever is killed, cut or sent."""

from __future__ import annotations

import json
import os
import random
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import pika
import pika.exceptions
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pika.adapters.blocking_connection import BlockingChannel
from tests.clickhouse import clickhouse
from tests.conftest import (
    Broker,
    Captured,
    Exposed,
    backlog,
    deployment,
    node_at,
    stackbus,
    wait_until,
)
from tests.opensearch import opensearch
from tests.proxy import Proxy
from tests.recording import (
    GOLDEN,
    OUTER,
    Recorded,
    copies,
    ended,
    expose_on,
    relayed,
    running,
)

from stackbus.errors import BrokerError, Unreadable
from stackbus.events.scrub import Scrubber
from stackbus.expose.deployment import Deployment, Queue, Topic
from stackbus.flow.stream import Delivery
from stackbus.history.engine import opened
from stackbus.sinks.history import prepare
from stackbus.sources.bus import BusSource


@pytest.fixture
def topic(clean: Broker, tmp_path: Path) -> Recorded:
    return expose_on(clean, tmp_path, deployment("siem"))


def serving(state: Path) -> int | None:
    """Give the id of the process that has a history open."""
    for entry in Path("/proc").iterdir():
        try:
            words = (entry / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if b"stackbus.history.serve" in words and str(state / "history").encode() in words:
            return int(entry.name)
    return None


def unacknowledged(topic: Recorded) -> int:
    queues = topic.broker.management.queues(OUTER)
    return sum(int(str(queue.get("messages_unacknowledged", 0))) for queue in queues)


# What is recorded


@pytest.mark.parametrize("way", [[], ["--plain"], ["--auth", "password"]])
def test_every_captured_notification_by_every_way_in(
    expose: Callable[[Deployment], Exposed], tmp_path: Path, way: list[str]
) -> None:
    broker = expose(deployment("siem")).broker
    topic = Recorded(broker, tmp_path, "siem", broker.state / "secrets")
    ids = topic.publish(len(GOLDEN))
    command = ["record", "--secret", str(topic.secret), "--until-idle", "2s", *way]
    said = stackbus(*command, state=topic.state).stderr
    total = len(GOLDEN)
    assert f"bus: {total} told, {total} stored, 0 known before, 0 in quarantine" in said
    events = topic.events()
    assert Counter(ids) == Counter(str(one["id"]) for one in events if one["index"] == 0)
    assert {str(one["service"]) for one in events} == {one.service for one in GOLDEN}
    assert all(one["resource_type"] and one["channels"] == ["bus"] for one in events)
    wait_until(lambda: backlog(topic.broker, "siem") == 0, 20)


def test_what_was_recorded_is_recognised(topic: Recorded) -> None:
    bodies = list(copies(50))
    for _ in range(2):
        with topic.broker.channel(OUTER) as channel:
            for one, message_id, body in bodies:
                key, properties = relayed(one, message_id, body)
                channel.basic_publish("siem", key, body, properties)
        said = topic.record()
    assert "50 told, 0 stored, 50 known before" in said
    assert len({str(one["id"]) for one in topic.events()}) == 50


def test_several_share_the_work_and_the_history(topic: Recorded) -> None:
    with running(topic.start()) as first, running(topic.start()) as second:
        wait_until(lambda: _consumers(topic) == 14, 30, "two recorders of seven queues each")
        ids = topic.publish(6000)
        topic.wait_for(6000)
        output = [ended(one).splitlines()[-1] for one in (first, second)]
    shares = [int(re.search(r"([\d,]+) stored", one)[1].replace(",", "")) for one in output]  # type: ignore[index]
    assert sum(shares) == 6000
    assert min(shares) > 500, shares
    assert {str(one["id"]) for one in topic.events("--index", "0")} == set(ids)
    assert topic.count("--index", "0") == 6000
    assert stackbus("verify", state=topic.state)


def _consumers(topic: Recorded) -> int:
    queues = topic.broker.management.queues(OUTER)
    return sum(
        int(str(queue.get("consumers", 0)))
        for queue in queues
        if str(queue["name"]).startswith("siem.")
    )


def test_it_ends_politely(topic: Recorded) -> None:
    with running(topic.start()) as process:
        stop = threading.Event()
        sent: list[str] = []

        def publish() -> None:
            while not stop.is_set():
                sent.extend(topic.publish(100))

        wait_until(lambda: _consumers(topic) == 7, 30)
        publisher = threading.Thread(target=publish)
        publisher.start()
        wait_until(lambda: len(sent) > 500, 30)
        try:
            said = ended(process)
        finally:
            stop.set()
            publisher.join()
    assert "0 known before" in said.splitlines()[-1]
    wait_until(lambda: unacknowledged(topic) == 0, 20)
    said = topic.record()
    # What it had stored it had acknowledged: nothing of it comes again.
    assert "0 known before" in said
    assert topic.count("--index", "0") == len(sent)


def test_metrics_tell_what_it_does(topic: Recorded) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    topic.publish(200)
    topic.publish_raw([b"no notification"])
    with running(topic.start("--metrics", f"127.0.0.1:{port}")) as process:

        def value(line: str) -> float:
            text = urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics").read().decode()
            return sum(float(one.split()[-1]) for one in text.splitlines() if line in one)

        wait_until(lambda: process.poll() is not None or _answers(port), 30)
        wait_until(lambda: value("stackbus_record_stored_total{") == 200, 30)
        assert value("stackbus_record_told_total{") == 201
        assert value('stackbus_record_quarantined_total{channel="bus"}') == 1
        assert value("stackbus_record_batch_notifications_count") >= 1
        assert value("stackbus_record_insert_seconds_count") >= 1
        assert value('stackbus_record_lag_seconds{channel="bus"}') > 0


def _answers(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port)).close()
    except OSError:
        return False
    return True


# Channels meet


def log_line(body: bytes) -> str:
    message = {
        name: value
        for name, value in json.loads(json.loads(body)["oslo.message"]).items()
        if not name.startswith("_") or name == "_context_request_id"
    }
    return (
        f"2026-11-24 10:00:00.000 1 INFO oslo.messaging.notification.{message['event_type']} [-] "
        f"{json.dumps(message)}\n"
    )


def test_what_the_bus_lost_the_log_restores_and_both_losses_are_numbers(
    topic: Recorded, tmp_path: Path
) -> None:
    logs = tmp_path / "logs"
    logs.mkdir()
    kinds = [one for one in GOLDEN if one.service in {"nova", "glance"}]
    with topic.broker.channel(OUTER) as channel:
        for place, (one, message_id, body) in _kinds(kinds):
            if place % 10:  # the bus loses a tenth
                key, properties = relayed(one, message_id, body)
                channel.basic_publish("siem", key, body, properties)
            if place % 4 or one.service == "glance":  # nova's log a quarter
                with (logs / f"{one.service}.log").open("a") as file:
                    file.write(log_line(body))
    said = topic.record("--logs", str(logs), idle="4s")
    assert "in quarantine" in said
    never = sum(not place % 20 and one.service == "nova" for place, (one, *_) in _kinds(kinds))
    assert topic.count("--index", "0") == 200 - never
    told = json.loads(stackbus("coverage", "-o", "json", state=topic.state).stdout)
    lost = {(one["channel"], one["service"]): one["missed"] for one in told["coverage"]}
    expected = Counter[tuple[str, str]]()
    for place, (one, *_) in _kinds(kinds):
        if not place % 20 and one.service == "nova":
            continue  # told by neither: nobody can know
        expected["bus", one.service] += not place % 10
        expected["log", one.service] += not (place % 4 or one.service == "glance")
    assert lost == {key: expected[key] for key in lost}
    assert len(told["missed"]) == sum(expected.values())
    # What both told has its actor from the bus, which tells more.
    both = topic.events("--channel", "log", "--service", "nova")
    assert any(one["user_name"] for one in both)
    again = topic.record("--logs", str(logs), idle="3s")
    assert "log: 0 told" in again


def _kinds(of: list[Captured]) -> Iterator[tuple[int, tuple[Captured, str, bytes]]]:
    return enumerate(copies(200, of))


def test_an_index_of_opensearch_is_a_channel_too(topic: Recorded) -> None:
    with opensearch() as server:
        server.credentials = ("reader", "s3cret")
        for number, one in enumerate(GOLDEN):
            source = {"@timestamp": f"2026-11-24T10:{number // 60:02}:{number % 60:02}Z"}
            server.add("notification-2026", {**source, **one.message()})
        server.add("notification-2026", {"@timestamp": "2026-11-24T12:00:00Z", "message": "other"})
        password = topic.folder / "password"
        password.write_text("s3cret\n")
        env = {
            "STACKBUS_OPENSEARCH_USER": "reader",
            "STACKBUS_OPENSEARCH_PASSWORD_FILE": str(password),
        }
        arguments = ["--opensearch", server.url, "--index", "notification-*"]
        said = stackbus("record", *arguments, "--until-idle", "7s", state=topic.state, env=env)
        total = len(GOLDEN)
        assert f"opensearch: {total} told, {total} stored, 0 known before, 0 in" in said.stderr
        again = stackbus("record", *arguments, "--until-idle", "1s", state=topic.state, env=env)
        assert " 0 stored" in again.stderr
    assert "s3cret" not in said.stderr + again.stderr
    assert {str(one["id"]) for one in topic.events()} == {
        str(one.message()["message_id"]) for one in GOLDEN
    }


def test_a_server_holds_the_history_of_two_recorders(topic: Recorded, tmp_path: Path) -> None:
    with clickhouse(tmp_path / "clickhouse") as dsn:
        env = {"STACKBUS_HISTORY": dsn}
        with running(topic.start(env=env)) as first, running(topic.start(env=env)) as second:
            wait_until(lambda: _consumers(topic) == 14, 30, "two recorders of seven queues each")
            ids = topic.publish(3000)
            wait_until(lambda: backlog(topic.broker, "siem") == 0, 60)
            said = ended(first) + ended(second)
        assert "s3cret" not in said
        command = ("events", "-o", "jsonl", "--limit", "0", "--index", "0")
        done = stackbus(*command, state=topic.state, env=env)
        assert Counter(json.loads(line)["id"] for line in done.stdout.splitlines()) == Counter(ids)
        assert "everything is as" in stackbus("verify", state=topic.state, env=env).stderr
    assert not (topic.state / "history").exists()


# Secrets


FERNET = "gAAAAABn" + "Zx3-_q" * 25
CANARIES = ("c4n4ry-one", "c4n4ry-two", "c4n4ry-three", "c4n4ry-four", "c4n4ry-five", FERNET)


def test_no_secret_gets_into_the_history_without_the_relay(topic: Recorded, tmp_path: Path) -> None:
    one, two, three, four, five, token = CANARIES
    message = {
        "message_id": "m1", "event_type": "compute.instance.create.end", "priority": "INFO",
        "publisher_id": "compute.h", "timestamp": "2026-11-24 10:00:00",
        "payload": {"instance_id": "i", "admin_password": one, "deep": [{"user_data": two}],
                    "text": f"token {token} here", "inside": json.dumps({"secret": three})},
    }  # fmt: skip
    zone = {
        **message, "message_id": "m2", "event_type": "dns.zone_transfer_request.create",
        "payload": {"id": "z", "key": four},
    }  # fmt: skip
    broken = {**message, "message_id": "m3", "timestamp": "never"}
    cut = json.dumps({**message, "message_id": "m4"}).encode()[:-40]
    topic.publish_raw(
        [
            json.dumps(message).encode(),
            json.dumps({"oslo.version": "2.0", "oslo.message": json.dumps(zone)}).encode(),
            json.dumps(broken).encode(),
            cut,
            f'{{"password": "{five}'.encode(),
            b"\xff" + token.encode() + b"\xff",
        ]
    )
    log = tmp_path / "nova.log"
    log.write_text(
        f"INFO oslo.messaging.notification.x [-] {json.dumps({**message, 'message_id': 'm5'})}\n"
        f"Could not send notification to t. Payload={ {**message, 'message_id': 'm6'}!r}\n"
        f"Could not send notification to t. Payload={{'adminPass': '{one}', 'o': <x>}}\n"
    )
    said = topic.record("--logs", str(log), idle="4s")
    assert "bus: 6 told, 2 stored, 0 known before, 4 in quarantine" in said
    assert "log: 3 told, 2 stored, 0 known before, 1 in quarantine" in said
    engine = opened(f"chdb://{topic.state}/history")
    rows = b"".join(
        engine.read(f"SELECT * FROM {table}", {})
        for table in ("events", "told", "quarantine", "positions")
    )
    held = stackbus("quarantine", "-o", "json", state=topic.state).stdout
    for row in json.loads(held):
        rows += held_body(topic, row["digest"])
    engine.close()
    for canary in CANARIES:
        assert canary.encode() not in rows, canary
        assert canary not in said
    assert b"***" in rows


def held_body(topic: Recorded, digest: str) -> bytes:
    """Give a body of the quarantine, as the command prints it."""
    command = [sys.executable, "-m", "stackbus", "quarantine", "--body", digest]
    return subprocess.run(
        [*command, "--state", str(topic.state)], capture_output=True, check=True
    ).stdout


# Bad input


SOME = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=20),
    lambda children: (
        st.lists(children, max_size=4) | st.dictionaries(st.text(max_size=8), children, max_size=4)
    ),
    max_leaves=12,
)


def spoiled(one: Captured, path: list[int], value: object) -> bytes:
    """Put ``value`` in the place of a member that ``path`` leads to."""
    message = one.message()
    where: object = message
    key: object = None
    for step in path:
        if isinstance(where, dict) and where:
            container, key = where, sorted(where)[step % len(where)]
            where = container[key]
        elif isinstance(where, list) and where:
            container, key = where, step % len(where)  # type: ignore[assignment]
            where = container[key]
        else:
            break
        last = container
    if key is not None:
        last[key] = value
    return json.dumps({"oslo.version": "2.0", "oslo.message": json.dumps(message)}).encode()


SCRUBBER = Scrubber()


def read(body: bytes, service: str = "") -> bool:
    """Read a body as the recorder does; tell whether it could be."""
    delivery = Delivery(
        channel="bus", origin="x", body=body, received=datetime.now(UTC), service=service
    )
    try:
        ready = prepare(delivery, BusSource.extract, SCRUBBER)
    except Unreadable:
        return False
    assert ready
    for one in ready:
        msgspec.json.decode(one.line)
    return True


@settings(max_examples=1500, deadline=None)
@given(st.sampled_from(GOLDEN), st.lists(st.integers(0, 50), min_size=1, max_size=6), SOME)
def test_wrong_types_in_any_field_are_read_or_set_aside(
    one: Captured, path: list[int], value: object
) -> None:
    read(spoiled(one, path, value), one.service)


@settings(max_examples=500, deadline=None)
@given(st.binary(max_size=400))
def test_random_bytes_are_set_aside(body: bytes) -> None:
    assert not read(body)


@pytest.mark.parametrize(
    "body",
    [
        b"", b"\x00", b"null", b"[]", b"{}", b'"text"', b"[" * 200_000, b'{"a":' * 100_000,
        b'{"oslo.version": "2.0", "oslo.message": "' + b"[" * 100_000 + b'"}',
        b'{"message_id": "m", "event_type": "x", "priority": "INFO", "timestamp": "2026-01-01", '
        b'"payload": ' + b"[" * 5000 + b"]" * 5000 + b"}",
    ],
)  # fmt: skip
def test_what_is_no_notification_is_set_aside(body: bytes) -> None:
    assert not read(body)


def test_bad_bodies_block_nothing_and_are_kept_whole(topic: Recorded) -> None:
    chance = random.Random(5)
    bad = [chance.randbytes(chance.randrange(1, 300)) for _ in range(60)]
    bad += [b"[" * 100_000, json.dumps({"event_type": "x"}).encode(), "é".encode("utf-16")]
    odd = [
        spoiled(one, [chance.randrange(50) for _ in range(4)], chance.choice([None, 7, [], {}, "é", 1e300, 10**30]))
        for one in GOLDEN
    ]  # fmt: skip
    with topic.broker.channel(OUTER) as channel:
        channel.confirm_delivery()
        for place, body in enumerate([*bad, *odd]):
            channel.basic_publish("siem", "info.x.-.x", body)
            if place % 3 == 0:
                one, message_id, good = next(copies(1, [GOLDEN[place % len(GOLDEN)]]))
                key, properties = relayed(one, message_id, good)
                channel.basic_publish("siem", key, good, properties)
    said = topic.record()
    sent = len(range(0, len(bad) + len(odd), 3))
    found = re.fullmatch(r"bus: ([\d,]+) told, ([\d,]+) stored, (\d+) known before, (\d+) in quarantine", said)  # fmt: skip
    assert found is not None, said
    told, new, known, held = (int(text.replace(",", "")) for text in found.groups())
    assert told == len(bad) + len(odd) + sent
    assert new + known + held == told
    assert held >= len(bad)
    rows = json.loads(stackbus("quarantine", "-o", "json", state=topic.state).stdout)
    assert len(rows) == held
    assert all(row["reason"] and row["origin"] == "siem info.x.-.x" for row in rows)
    whole = next(row for row in rows if row["bytes"] == 100_000)
    assert held_body(topic, whole["digest"][:12]) == b"[" * 100_000
    stackbus("quarantine", "--retry", state=topic.state)
    assert len(json.loads(stackbus("quarantine", "-o", "json", state=topic.state).stdout)) == held


def test_a_notification_of_16_megabytes_is_one_like_any_other(topic: Recorded) -> None:
    one = next(one for one in GOLDEN if one.service == "glance")
    large = one.message()
    large["message_id"] = "large"
    large["payload"] = {"id": "i", "name": "n", "properties": {"x": "é" * 8 * 1024**2}}
    body = json.dumps(large, ensure_ascii=False).encode()
    assert len(body) > 16 * 1024**2
    topic.publish_raw([body])
    topic.publish(100)
    assert "bus: 101 told, 101 stored, 0 known before, 0 in quarantine" in topic.record()
    (event,) = topic.events("--id", "large")
    assert event["payload"] == large["payload"]


def test_a_flood_of_poison_stops_it_loudly_and_leaves_the_rest(topic: Recorded) -> None:
    topic.publish(10)
    assert "10 stored" in topic.record()
    topic.publish_raw([os.urandom(5000) for _ in range(100)])
    env = {"STACKBUS_QUARANTINE_MAX_BYTES": "100000", "STACKBUS_RECORD_BATCH": "10"}
    with running(topic.start(env=env)) as process:
        output = process.communicate(timeout=60)[1]
        assert process.returncode == 1
    assert "the quarantine would hold " in output
    assert "quarantine_max_bytes" in output
    held = len(json.loads(stackbus("quarantine", "-o", "json", state=topic.state).stdout))
    assert 0 < held <= 20
    wait_until(lambda: backlog(topic.broker, "siem") == 100 - held, 20, "the rest is still there")


def test_what_was_set_aside_and_can_be_read_since_is_an_event(topic: Recorded) -> None:
    topic.publish_raw([GOLDEN[0].body])
    topic.record()
    engine = opened(f"chdb://{topic.state}/history")
    # As an older stackbus might have left it.
    engine.run(
        "INSERT INTO quarantine SELECT 'd', now(), 'bus', 'o', '', 'why', base64Encode('"
        + GOLDEN[1].body.decode().replace("\\", "\\\\").replace("'", "\\'")
        + "'), 0"
    )
    engine.close()
    done = stackbus("quarantine", "--retry", state=topic.state)
    assert "1 could be read and are events now, 0 are left" in done.stderr
    assert topic.count("--id", str(GOLDEN[1].message()["message_id"])) >= 1


# Faults


def test_a_rotation_and_a_revocation_are_survived(topic: Recorded) -> None:
    with running(topic.start()) as process:
        ids = topic.publish(100)
        topic.wait_for(100)
        wanted = deployment("siem")
        plan = topic.control.plan_rotation(wanted, "siem", grace=timedelta())
        topic.control.apply(plan)  # its connection is closed, its password no longer works
        time.sleep(1)
        topic.write_secret()
        ids += topic.publish(100)
        topic.wait_for(200)
        ended(process)
    assert {str(one["id"]) for one in topic.events()} == set(ids)


def test_the_next_host_is_tried(topic: Recorded) -> None:
    topic.write_secret(hosts="127.0.0.99,127.0.0.1")
    topic.publish(50)
    assert "50 stored" in topic.record()


def test_cut_and_silent_connections(topic: Recorded) -> None:
    proxy = Proxy(topic.broker.description.ports.amqp)
    topic.write_secret(port_amqp=str(proxy.port))
    with running(topic.start()) as process:
        ids = topic.publish(500)
        topic.wait_for(100)
        for _ in range(4):
            proxy.cut()
            ids += topic.publish(500)
            proxy.down = False
            time.sleep(0.7)
        topic.wait_for(len(ids))
        ended(process)
    assert Counter(str(one["id"]) for one in topic.events("--index", "0")) == Counter(ids)


def test_a_history_that_is_away_for_a_minute(topic: Recorded) -> None:
    """Its process neither answers nor ends; then it goes on."""
    with running(topic.start()) as process:
        ids = topic.publish(200)
        topic.wait_for(200)
        engine = serving(topic.state)
        assert engine is not None
        os.kill(engine, signal.SIGSTOP)
        try:
            ids += topic.publish(2000)
            time.sleep(60)
            assert process.poll() is None
            assert backlog(topic.broker, "siem") == 2000
        finally:
            os.kill(engine, signal.SIGCONT)
        topic.wait_for(len(ids))
        ended(process)
    assert Counter(str(one["id"]) for one in topic.events("--index", "0")) == Counter(ids)


def test_a_history_that_is_full_for_a_while(topic: Recorded) -> None:
    """A file system of 60 MB, filled but for a little; then there is room again."""
    mount = topic.folder / "small"
    mount.mkdir()
    if os.system(f"mount -t tmpfs -o size=60m tmpfs {mount} 2>/dev/null") != 0:  # noqa: S605
        pytest.skip("no permission to mount a small file system")
    dsn = f"chdb://{mount}/history"
    try:
        topic.publish(10)
        topic.record("--history", dsn)
        used = int(subprocess.check_output(["du", "-sk", str(mount)], text=True).split()[0])
        filler = mount / "filler"
        filler.write_bytes(bytes((60 * 1024 - used - 40) * 1024))
        with running(topic.start("--history", dsn)) as process:
            assert process.stderr is not None
            ids = topic.publish(20_000)
            for line in process.stderr:
                assert process.poll() is None, line
                if "stream.sink_unavailable" in line:
                    break
            time.sleep(5)
            assert process.poll() is None
            filler.unlink()
            topic.wait_for(20_010, dsn=dsn)
            ended(process)
        assert topic.count("--index", "0", "--history", dsn) == 20_010
        told = {str(one["id"]) for one in topic.events("--index", "0", "--history", dsn)}
        assert told >= set(ids)
    finally:
        wait_until(lambda: os.system(f"umount {mount} 2>/dev/null") == 0, 20)  # noqa: S605


def test_the_engine_and_the_storing_processes_may_be_killed(topic: Recorded) -> None:
    with running(topic.start()) as process:
        ids: list[str] = []
        for place in range(6):
            ids += topic.publish(1000)
            if place % 2:
                engine = serving(topic.state)
                if engine is not None:
                    os.kill(engine, signal.SIGKILL)
            else:
                for child in _children(process.pid):
                    os.kill(child, signal.SIGKILL)
        topic.wait_for(len(ids))
        ended(process)
    assert Counter(str(one["id"]) for one in topic.events("--index", "0")) == Counter(ids)


def _children(pid: int) -> Iterator[int]:
    """Give the processes that store for a recorder."""
    for task in Path(f"/proc/{pid}/task").iterdir():
        for child in (task / "children").read_text().split():
            words = Path(f"/proc/{child}/cmdline").read_bytes()
            if b"multiprocessing.spawn" in words:
                yield int(child)


class Publisher:
    """Publishes ``total`` notifications, each until it is confirmed, whatever the broker does.

    What was sent and not confirmed is sent again, with the same id.
    """

    def __init__(self, broker: Broker, topic: str, total: int) -> None:
        self.confirmed: list[str] = []
        self._broker = broker
        self._topic = topic
        self._total = total
        self._bodies = copies(total)
        self._waiting: tuple[Captured, str, bytes] | None = None
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def join(self) -> None:
        self._thread.join()

    def _run(self) -> None:
        while len(self.confirmed) < self._total:
            try:
                with self._broker.channel(OUTER) as channel:
                    channel.confirm_delivery()
                    self._publish(channel)
            except (pika.exceptions.AMQPError, OSError, BrokerError):
                time.sleep(0.5)

    def _publish(self, channel: BlockingChannel) -> None:
        while len(self.confirmed) < self._total:
            self._waiting = self._waiting or next(self._bodies)
            one, message_id, body = self._waiting
            key, properties = relayed(one, message_id, body)
            channel.basic_publish(self._topic, key, body, properties)
            self.confirmed.append(message_id)
            self._waiting = None


@pytest.mark.timeout(1200)
def test_200_000_through_20_kills_of_the_recorder_and_5_of_the_broker(tmp_path: Path) -> None:
    total = 200_000
    chance = random.Random(20)
    with node_at(tmp_path / "node") as broker:
        assert broker.supervisor is not None
        rabbitmq = next(one for one in broker.supervisor._children if one.name == "rabbitmq")
        wanted = deployment(Topic("siem", queue=Queue("quorum", max_bytes=4 * 1024**3)))
        topic = expose_on(broker, tmp_path / "record", wanted)
        publishers = [Publisher(broker, "siem", total // 8) for _ in range(8)]
        for number in range(20):
            process = topic.start()
            time.sleep(chance.uniform(2.0, 6.0))
            if number % 4 == 3:
                assert rabbitmq.process is not None
                rabbitmq.process.kill()
                rabbitmq.process.wait()
                time.sleep(chance.uniform(0.0, 1.0))
                rabbitmq.start()
            process.kill()
            process.communicate()
        for publisher in publishers:
            publisher.join()
        confirmed = [one for publisher in publishers for one in publisher.confirmed]
        assert len(confirmed) == total
        topic.record(idle="10s")
        wait_until(lambda: backlog(broker, "siem") == 0, 60)
        engine = opened(f"chdb://{topic.state}/history")
        sql = "SELECT count() AS c, uniqExact(id) AS u FROM events WHERE index = 0"
        found = json.loads(engine.read(sql, {}))
        lines = engine.read("SELECT DISTINCT id FROM events", {}).splitlines()
        engine.close()
        assert {json.loads(line)["id"] for line in lines} == set(confirmed)
        assert found == {"c": total, "u": total}
        assert "everything is as it was recorded" in stackbus("verify", state=topic.state).stderr
