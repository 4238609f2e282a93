"""The recorder on a real broker: credentials, connections, disk and processes fail, nothing is lost."""

from __future__ import annotations

import os
import signal
import subprocess
from collections import Counter
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from tests.conftest import backlog, deployment, wait_until
from tests.proxy import Proxy
from tests.recording import Recorded, end_recorder, running

HEARTBEAT = "5"
"""Seconds, in place of 30: after 10 to 20 seconds of silence the connection would be lost."""


def engine_pid(state: Path) -> int | None:
    """Return the id of the process that has the history of a state folder open."""
    for entry in Path("/proc").iterdir():
        try:
            words = (entry / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if b"stackbus.history.server" in words and str(state / "history").encode() in words:
            return int(entry.name)
    return None


def storing_pids(pid: int) -> Iterator[int]:
    """Yield the ids of the processes that store for a recorder."""
    for task in Path(f"/proc/{pid}/task").iterdir():
        for child in (task / "children").read_text().split():
            if b"multiprocessing.spawn" in Path(f"/proc/{child}/cmdline").read_bytes():
                yield int(child)


def recorded_ids(topic: Recorded) -> Counter[str]:
    """Count the first events of each notification in the history, by its id."""
    return Counter(str(event["id"]) for event in topic.events("--index", "0"))


def test_a_rotation_and_a_revocation_are_survived(topic: Recorded) -> None:
    with running(topic.start()) as process:
        ids = topic.publish(100)
        topic.wait_for(100)
        plan = topic.control.plan_rotation(deployment("siem"), "siem", grace=timedelta())
        topic.control.apply(plan)  # closes its connection and removes its user
        wait_until(lambda: topic.consumers() == 0, 60, "the old connection is still open")
        topic.write_secret()
        ids += topic.publish(100)
        topic.wait_for(200)
        end_recorder(process)
    assert {str(event["id"]) for event in topic.events()} == set(ids)


def test_the_next_host_is_tried(topic: Recorded) -> None:
    topic.write_secret(hosts="127.0.0.99,127.0.0.1")
    topic.publish(50)
    assert "50 stored" in topic.record(50)


def test_connections_may_be_cut_again_and_again(topic: Recorded) -> None:
    proxy = Proxy(topic.broker.description.ports.amqp)
    topic.write_secret(port_amqp=str(proxy.port))
    with running(topic.start()) as process:
        ids = topic.publish(500)
        topic.wait_for(100)
        wait_until(lambda: topic.consumers() == 7, 60, "the broker does not count the consumers")
        for _ in range(4):
            proxy.cut()
            ids += topic.publish(500)
            wait_until(lambda: topic.consumers() == 0, 60, "the broker has not noticed the cut")
            proxy.down = False
            wait_until(lambda: topic.consumers() == 7, 60, "the recorder has not come back")
        topic.wait_for(len(ids))
        end_recorder(process)
    assert recorded_ids(topic) == Counter(ids)


def test_a_connection_may_be_silent_until_it_is_lost(topic: Recorded) -> None:
    proxy = Proxy(topic.broker.description.ports.amqp)
    topic.write_secret(port_amqp=str(proxy.port))
    with running(topic.start(env={"STACKBUS_AMQP_HEARTBEAT": HEARTBEAT})) as process:
        ids = topic.publish(500)
        topic.wait_for(100)
        wait_until(lambda: topic.consumers() == 7, 60, "the broker does not count the consumers")
        proxy.fall_silent()
        ids += topic.publish(500)
        wait_until(lambda: topic.consumers() == 0, 60, "the broker has not noticed the silence")
        proxy.speak()
        topic.wait_for(len(ids))
        assert "stream.source_lost" in end_recorder(process)
    assert recorded_ids(topic) == Counter(ids)


def test_a_history_that_is_away_for_several_heartbeats_costs_no_connection(topic: Recorded) -> None:
    """The history's process neither answers nor ends; the recorder keeps its connection alive."""

    user = topic.read_secret()["username"]

    def received_octets() -> int:
        connections = topic.broker.management._list("connections")
        # RabbitMQ lists a connection once it has statistics of it.
        return sum(int(str(item["recv_oct"])) for item in connections if item["user"] == user)

    with running(topic.start(env={"STACKBUS_AMQP_HEARTBEAT": HEARTBEAT})) as process:
        ids = topic.publish(200)
        topic.wait_for(200)
        engine = engine_pid(topic.state)
        assert engine is not None
        os.kill(engine, signal.SIGSTOP)
        try:
            ids += topic.publish(2000)
            octets: set[int] = set()

            def has_heard_heartbeats() -> bool:
                octets.add(received_octets())
                octets.discard(0)
                return len(octets) > 5

            # The recorder sends nothing but heartbeats: one each five seconds.
            wait_until(has_heard_heartbeats, 120, "the broker hears no heartbeats", 0.5)
            assert process.poll() is None
            assert backlog(topic.broker, "siem") == 2000
        finally:
            os.kill(engine, signal.SIGCONT)
        topic.wait_for(len(ids))
        assert "stream.source_lost" not in end_recorder(process)
    assert recorded_ids(topic) == Counter(ids)


def test_a_history_that_is_full_for_a_while(topic: Recorded) -> None:
    """A file system of 60 MB is filled up to a little; later there is room again."""
    mount = topic.folder / "small"
    mount.mkdir()
    if os.system(f"mount -t tmpfs -o size=60m tmpfs {mount} 2>/dev/null") != 0:  # noqa: S605
        pytest.skip("no permission to mount a small file system")
    dsn = f"chdb://{mount}/history"
    try:
        topic.publish(10)
        topic.record(10, "--history", dsn)
        used = int(subprocess.check_output(["du", "-sk", str(mount)], text=True).split()[0])
        filler = mount / "filler"
        filler.write_bytes(bytes((60 * 1024 - used - 40) * 1024))
        with running(topic.start("--history", dsn)) as process:
            assert process.stderr is not None
            ids = topic.publish(20_000)
            failures = 0
            for line in process.stderr:
                failures += "stream.sink_unavailable" in line
                if failures == 3:  # it tries again, and again
                    break
            assert process.poll() is None
            filler.unlink()
            topic.wait_for(20_010, dsn=dsn)
            end_recorder(process)
        assert topic.count("--index", "0", "--history", dsn) == 20_010
        events = topic.events("--index", "0", "--history", dsn)
        assert {str(event["id"]) for event in events} >= set(ids)
    finally:
        wait_until(lambda: os.system(f"umount {mount} 2>/dev/null") == 0)  # noqa: S605


def test_the_engine_and_the_storing_processes_may_be_killed(topic: Recorded) -> None:
    with running(topic.start()) as process:
        ids: list[str] = []
        for number in range(6):
            ids += topic.publish(1000)
            if number % 2:
                engine = engine_pid(topic.state)
                if engine is not None:
                    os.kill(engine, signal.SIGKILL)
            else:
                for pid in storing_pids(process.pid):
                    os.kill(pid, signal.SIGKILL)
        topic.wait_for(len(ids))
        end_recorder(process)
    assert recorded_ids(topic) == Counter(ids)
