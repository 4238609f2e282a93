"""The recorder on a real broker: which notifications of which channel are events, and which not."""

from __future__ import annotations

import json
import os
import random
import re
import subprocess
import sys
import threading
import urllib.request
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.clickhouse import clickhouse
from tests.conftest import (
    Exposed,
    backlog,
    deployment,
    stackbus,
    wait_until,
)
from tests.malformed import spoil
from tests.opensearch import opensearch
from tests.recording import (
    GOLDEN,
    OUTER,
    Recorded,
    copies,
    end_recorder,
    handled,
    relay_label,
    running,
)
from tests.unexpected import check_reasons

from stackbus.broker.node import LOOPBACK, free_port
from stackbus.expose.deployment import Deployment
from stackbus.history.session import open_engine
from stackbus.settings import Settings, port_range

# The bus


@pytest.mark.parametrize("login", [[], ["--plain"], ["--auth", "password"]])
def test_every_captured_notification_is_recorded_by_every_login(
    expose: Callable[[Deployment], Exposed], tmp_path: Path, login: list[str]
) -> None:
    broker = expose(deployment("siem")).broker
    topic = Recorded(broker, tmp_path, "siem", broker.state / "secrets")
    ids = topic.publish(len(GOLDEN))
    command = ["record", "--secret", str(topic.secret), *login]
    process = subprocess.Popen(
        [sys.executable, "-m", "stackbus", *command, "--state", str(topic.state)],
        stderr=subprocess.PIPE,
        text=True,
    )
    with running(process):
        topic.wait_for(len(GOLDEN))
        wait_until(lambda: backlog(broker, "siem") == 0)
        output = end_recorder(process)
    total = len(GOLDEN)
    assert f"bus: {total} received, {total} stored, 0 already stored, 0 in quarantine" in output
    events = topic.events()
    assert Counter(ids) == Counter(str(event["id"]) for event in events if event["index"] == 0)
    assert {str(event["service"]) for event in events} == {item.service for item in GOLDEN}
    assert all(event["resource_type"] and event["channels"] == ["bus"] for event in events)


def test_a_recorder_ends_by_itself_when_nothing_more_comes(topic: Recorded) -> None:
    topic.publish(20)
    assert "20 stored" in topic.record_until_idle(idle="10s")
    assert "bus: 0 received, 0 stored" in topic.record_until_idle(idle="1s")


def test_a_notification_that_was_recorded_before_is_recognised(topic: Recorded) -> None:
    notifications = list(copies(50))
    topic.publish_copies(notifications)
    assert "50 received, 50 stored, 0 already stored" in topic.record(50)
    topic.publish_copies(notifications)
    assert "50 received, 0 stored, 50 already stored" in topic.record(50)
    assert len({str(event["id"]) for event in topic.events()}) == 50


def test_several_recorders_share_the_work_and_the_history(topic: Recorded) -> None:
    with running(topic.start()) as first, running(topic.start()) as second:
        wait_until(lambda: topic.consumers() == 14, 60, "two recorders of seven queues each")
        ids = topic.publish(6000)
        topic.wait_for(6000)
        summaries = [end_recorder(process).splitlines()[-1] for process in (first, second)]
    shares = [int(text.replace(",", "")) for text in re.findall(r"([\d,]+) stored", str(summaries))]
    assert sum(shares) == 6000
    assert min(shares) > 500, shares
    assert {str(event["id"]) for event in topic.events("--index", "0")} == set(ids)
    assert topic.count("--index", "0") == 6000
    assert stackbus("verify", state=topic.state)


def test_a_recorder_ends_politely(topic: Recorded) -> None:
    with running(topic.start()) as process:
        stop = threading.Event()
        ids: list[str] = []

        def publish() -> None:
            while not stop.is_set():
                ids.extend(topic.publish(100))

        wait_until(lambda: topic.consumers() == 7, 60)
        publisher = threading.Thread(target=publish)
        publisher.start()
        wait_until(lambda: len(ids) > 500, 60)
        try:
            output = end_recorder(process)
        finally:
            stop.set()
            publisher.join()
    summary = output.splitlines()[-1]
    assert "0 already stored" in summary
    stored = int(re.findall(r"([\d,]+) stored", summary)[0].replace(",", ""))
    wait_until(lambda: topic.unacknowledged() == 0)
    # The first recorder has acknowledged all that it stored: nothing of that comes again.
    assert "0 already stored" in topic.record(len(ids) - stored)
    assert topic.count("--index", "0") == len(ids)


def test_metrics_show_the_recorders_work(topic: Recorded) -> None:
    port = free_port(LOOPBACK, set(), port_range(Settings()))
    topic.publish(200)
    topic.publish_raw([b"no notification"])
    with running(topic.start("--metrics", f"127.0.0.1:{port}")):

        def value(line: str) -> float:
            text = urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics").read().decode()
            return sum(float(row.split()[-1]) for row in text.splitlines() if line in row)

        wait_until(lambda: handled(port)["bus"] == 201)
        assert value("stackbus_record_stored_total{") == 200
        assert value("stackbus_record_told_total{") == 201
        assert value('stackbus_record_quarantined_total{channel="bus"}') == 1
        assert value("stackbus_record_batch_notifications_count") >= 1
        assert value("stackbus_record_insert_seconds_count") >= 1
        assert value('stackbus_record_lag_seconds{channel="bus"}') > 0


# The other channels


def log_line(body: bytes) -> str:
    """Return a notification as oslo.messaging's log driver writes it into a service's log."""
    message = {
        name: value
        for name, value in json.loads(json.loads(body)["oslo.message"]).items()
        if not name.startswith("_") or name == "_context_request_id"
    }
    return (
        f"2026-11-24 10:00:00.000 1 INFO oslo.messaging.notification.{message['event_type']} [-] "
        f"{json.dumps(message)}\n"
    )


def test_the_log_restores_what_the_bus_lost_and_both_losses_are_counted(
    topic: Recorded, tmp_path: Path
) -> None:
    logs = tmp_path / "logs"
    logs.mkdir()
    notifications = list(
        copies(200, [item for item in GOLDEN if item.service in {"nova", "glance"}])
    )
    missed = Counter[tuple[str, str]]()
    in_neither = 0
    on_bus = [item for number, item in enumerate(notifications) if number % 10]  # it loses a tenth
    logged = 0
    for number, (captured, _, body) in enumerate(notifications):
        is_on_bus = bool(number % 10)
        is_logged = bool(number % 4) or captured.service == "glance"  # nova's log loses a quarter
        if is_logged:
            logged += 1
            with (logs / f"{captured.service}.log").open("a") as file:
                file.write(log_line(body))
        if is_on_bus or is_logged:
            missed["bus", captured.service] += not is_on_bus
            missed["log", captured.service] += not is_logged
        else:
            in_neither += 1  # no channel can know
    topic.publish_copies(on_bus)
    assert "in quarantine" in topic.record(len(on_bus), "--logs", str(logs), log=logged)
    assert topic.count("--index", "0") == 200 - in_neither
    coverage = json.loads(stackbus("coverage", "-o", "json", state=topic.state).stdout)
    lost = {(row["channel"], row["service"]): row["missed"] for row in coverage["coverage"]}
    assert lost == {key: missed[key] for key in lost}
    assert len(coverage["missed"]) == sum(missed.values())
    # A notification of both channels has its actor from the bus, which says more about it.
    both = topic.events("--channel", "log", "--service", "nova")
    assert any(event["user_name"] for event in both)
    assert "log: 0 received" in topic.record_until_idle("--logs", str(logs), idle="3s")


def test_an_index_of_opensearch_is_a_channel_too(topic: Recorded) -> None:
    with opensearch() as server:
        server.credentials = ("reader", "s3cret")
        for number, captured in enumerate(GOLDEN):
            source = {"@timestamp": f"2026-11-24T10:{number // 60:02}:{number % 60:02}Z"}
            server.add("notification-2026", {**source, **captured.message()})
        server.add("notification-2026", {"@timestamp": "2026-11-24T12:00:00Z", "message": "other"})
        password = topic.folder / "password"
        password.write_text("s3cret\n")
        env = {
            "STACKBUS_OPENSEARCH_USER": "reader",
            "STACKBUS_OPENSEARCH_PASSWORD_FILE": str(password),
        }
        arguments = ["--opensearch", server.url, "--index", "notification-*"]
        first = stackbus("record", *arguments, "--until-idle", "7s", state=topic.state, env=env)
        total = len(GOLDEN)
        assert (
            f"opensearch: {total} received, {total} stored, 0 already stored, 0 in" in first.stderr
        )
        again = stackbus("record", *arguments, "--until-idle", "1s", state=topic.state, env=env)
        assert " 0 stored" in again.stderr
    assert "s3cret" not in first.stderr + again.stderr
    assert {str(event["id"]) for event in topic.events()} == {
        str(captured.message()["message_id"]) for captured in GOLDEN
    }


def test_a_server_holds_the_history_of_two_recorders(topic: Recorded, tmp_path: Path) -> None:
    with clickhouse(tmp_path / "clickhouse") as dsn:
        env = {"STACKBUS_HISTORY": dsn}
        with running(topic.start(env=env)) as first, running(topic.start(env=env)) as second:
            wait_until(lambda: topic.consumers() == 14, 60, "two recorders of seven queues each")
            ids = topic.publish(3000)
            command = ("events", "--count", "--index", "0")
            wait_until(
                lambda: stackbus(*command, state=topic.state, env=env).stdout == "3000\n", 120
            )
            output = end_recorder(first) + end_recorder(second)
        assert "s3cret" not in output
        listing = ("events", "-o", "jsonl", "--limit", "0", "--index", "0")
        lines = stackbus(*listing, state=topic.state, env=env).stdout.splitlines()
        assert Counter(json.loads(line)["id"] for line in lines) == Counter(ids)
        assert "everything is as" in stackbus("verify", state=topic.state, env=env).stderr
    assert backlog(topic.broker, "siem") == 0
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
        f"INFO oslo.messaging.notification.{message['event_type']} [-] {json.dumps({**message, 'message_id': 'm5'})}\n"
        f"ERROR oslo_messaging.notify.messaging [-] Could not send notification to t. Payload={ {**message, 'message_id': 'm6'}!r}\n"
        f"ERROR oslo_messaging.notify.messaging [-] Could not send notification to t. Payload={{'adminPass': '{one}', 'o': <x>}}\n"
    )
    summary = topic.record(6, "--logs", str(log), log=3)
    assert "bus: 6 received, 2 stored, 0 already stored, 4 in quarantine" in summary
    assert "log: 3 received, 2 stored, 0 already stored, 1 in quarantine" in summary
    engine = open_engine(f"chdb://{topic.state}/history")
    rows = b"".join(
        engine.select(f"SELECT * FROM {table}", {})
        for table in ("events", "told", "quarantine", "positions")
    )
    for row in quarantine(topic):
        rows += quarantined_body(topic, row["digest"])
    engine.close()
    for canary in CANARIES:
        assert canary.encode() not in rows, canary
        assert canary not in summary
    assert b"***" in rows


def quarantine(topic: Recorded) -> list[dict[str, Any]]:
    """Return the rows of ``stackbus quarantine``."""
    rows = json.loads(stackbus("quarantine", "-o", "json", state=topic.state).stdout)
    assert isinstance(rows, list)
    return rows


def quarantined_body(topic: Recorded, digest: str) -> bytes:
    """Return a quarantined body, as the command prints it."""
    command = [sys.executable, "-m", "stackbus", "quarantine", "--body", digest]
    return subprocess.run(
        [*command, "--state", str(topic.state)], capture_output=True, check=True
    ).stdout


# Malformed input (tests/unit/test_malformed.py tries far more, without a broker)


def test_malformed_bodies_block_nothing_and_are_kept_whole(topic: Recorded) -> None:
    draw = random.Random(5)
    bad = [draw.randbytes(draw.randrange(1, 300)) for _ in range(60)]
    bad += [b"[" * 100_000, json.dumps({"event_type": "x"}).encode(), "é".encode("utf-16")]
    values: list[object] = [None, 7, [], {}, "é", 1e300, 10**30]
    odd = [
        spoil(captured, [draw.randrange(50) for _ in range(4)], draw.choice(values))
        for captured in GOLDEN
    ]
    good = 0
    with topic.broker.channel(OUTER) as channel:
        channel.confirm_delivery()
        for number, body in enumerate([*bad, *odd]):
            channel.basic_publish("siem", "info.x.-.x", body)
            if number % 3 == 0:
                captured, message_id, fine = next(copies(1, [GOLDEN[number % len(GOLDEN)]]))
                key, properties = relay_label(captured, message_id)
                channel.basic_publish("siem", key, fine, properties)
                good += 1
    total = len(bad) + len(odd) + good
    summary = topic.record(total)
    match = re.fullmatch(r"bus: ([\d,]+) received, ([\d,]+) stored, (\d+) already stored, (\d+) in quarantine", summary)  # fmt: skip
    assert match is not None, summary
    received, stored, known, quarantined = (int(text.replace(",", "")) for text in match.groups())
    assert received == total
    assert stored + known + quarantined == total
    assert quarantined >= len(bad)
    rows = quarantine(topic)
    assert len(rows) == quarantined
    assert all(row["origin"] == "siem info.x.-.x" for row in rows)
    check_reasons(row["reason"] for row in rows)
    whole = next(row for row in rows if row["bytes"] == 100_000)
    assert quarantined_body(topic, whole["digest"][:12]) == b"[" * 100_000
    stackbus("quarantine", "--retry", state=topic.state)
    assert len(quarantine(topic)) == quarantined


def test_a_notification_of_16_megabytes_is_one_like_any_other(topic: Recorded) -> None:
    large = next(captured for captured in GOLDEN if captured.service == "glance").message()
    large["message_id"] = "large"
    large["payload"] = {"id": "i", "name": "n", "properties": {"x": "é" * 8 * 1024**2}}
    body = json.dumps(large, ensure_ascii=False).encode()
    assert len(body) > 16 * 1024**2
    topic.publish_raw([body])
    topic.publish(100)
    assert "bus: 101 received, 101 stored, 0 already stored, 0 in quarantine" in topic.record(101)
    (event,) = topic.events("--id", "large")
    assert event["payload"] == large["payload"]


def test_a_flood_of_poison_stops_the_recorder_and_leaves_the_rest(topic: Recorded) -> None:
    topic.publish(10)
    assert "10 stored" in topic.record(10)
    topic.publish_raw([os.urandom(5000) for _ in range(100)])
    env = {
        "STACKBUS_QUARANTINE_MAX_BYTES": "100000",
        "STACKBUS_RECORD_BATCH": "10",
        # A second process may store a batch after the one that fails: it stays in the queue too.
        "STACKBUS_RECORD_PROCESSES": "1",
    }
    with running(topic.start(env=env)) as process:
        output = process.communicate(timeout=120)[1]
        assert process.returncode == 1
    assert "the quarantine would hold " in output
    assert "quarantine_max_bytes" in output
    rows = len(quarantine(topic))
    assert 0 < rows <= 20
    wait_until(lambda: backlog(topic.broker, "siem") == 100 - rows, 60, "the rest is gone")


def test_a_quarantined_body_that_can_be_read_now_becomes_an_event(topic: Recorded) -> None:
    topic.publish_raw([GOLDEN[0].body])
    topic.record(1)
    engine = open_engine(f"chdb://{topic.state}/history")
    # As an older stackbus might have left it.
    engine.execute(
        "INSERT INTO quarantine SELECT 'd', now(), 'bus', 'o', '', 'why', base64Encode('"
        + GOLDEN[1].body.decode().replace("\\", "\\\\").replace("'", "\\'")
        + "'), 0"
    )
    engine.close()
    process = stackbus("quarantine", "--retry", state=topic.state)
    assert "1 recorded as events, 0 left in quarantine" in process.stderr
    assert topic.count("--id", str(GOLDEN[1].message()["message_id"])) >= 1
