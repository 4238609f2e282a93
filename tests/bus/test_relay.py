"""The relay on a real broker: everything arrives, scrubbed, in order, whatever is killed or cut."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pika
import pytest
from tests.conftest import Broker, Captured, deployment, exposure, golden, publish, wait_until
from tests.proxy import Proxy

from stackbus.bus.names import PRIORITIES
from stackbus.bus.routing import matches
from stackbus.events.envelope import decode
from stackbus.events.scrub import Scrubber
from stackbus.expose.apply import Exposure
from stackbus.expose.deployment import Deployment, Queue, Topic
from stackbus.expose.status import relay as relay_status
from stackbus.expose.status import topics as topic_status
from stackbus.relay.label import label

INNER, OUTER = "openstack", "openstack-external"
PROBE = "probe"
GOLDEN = golden()


@dataclass
class Bus:
    """A bus with topics, and relays that tests start and end."""

    broker: Broker
    control: Exposure
    folder: Path
    relays: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def apply(self, wanted: Deployment) -> None:
        self.control.apply(self.control.plan(wanted))

    def probe(self) -> None:
        """Bind a queue to the outer exchange that sees everything, in order."""
        with self.broker.channel(OUTER) as channel:
            channel.queue_declare(PROBE, durable=True)
            channel.queue_bind(PROBE, "stackbus", "#")

    def start_relay(
        self, outer_port: int | None = None, inner_port: int | None = None
    ) -> subprocess.Popen[bytes]:
        credentials = self.control.plan(deployment()).credentials
        assert credentials is not None
        password = credentials.own_passwords["stackbus.relay"]
        port = self.broker.description.ports.amqp
        url = "amqp://stackbus.relay:{}@127.0.0.1:{}/{}"
        log = (self.folder / "relay.log").open("ab")
        relay = subprocess.Popen(
            [sys.executable, "-m", "stackbus", "relay", "--state", str(self.folder)],
            env={
                **os.environ,
                "STACKBUS_INNER_URL": url.format(password, inner_port or port, INNER),
                "STACKBUS_OUTER_URL": url.format(password, outer_port or port, OUTER),
                "STACKBUS_RELAY_RETRY_MAX": "1",
                "STACKBUS_RELAY_REBIND": "0.3",
            },
            stdout=log,
            stderr=log,
        )
        self.relays.append(relay)
        return relay

    def wait_for_relays(self, count: int = 1) -> None:
        end = time.monotonic() + 60
        while True:
            status = relay_status(self.broker.management, INNER)
            if status.state == "active" and status.standby == count - 1:
                return
            assert time.monotonic() < end, f"{status}\n{self.log()[-2000:]}"
            time.sleep(0.1)

    def log(self) -> str:
        return (self.folder / "relay.log").read_text("utf-8")

    def collect(
        self, count: int, seconds: float = 60, queue: str = PROBE
    ) -> list[tuple[str, pika.BasicProperties, bytes]]:
        """Take from ``queue`` until ``count`` different notifications have come."""
        told: list[tuple[str, pika.BasicProperties, bytes]] = []
        ids: set[str | None] = set()
        end = time.monotonic() + seconds
        while len(ids) < count:
            assert time.monotonic() < end, f"{len(ids)} of {count} came\n{self.log()[-2000:]}"
            for method, properties, body in self.broker.drain(OUTER, queue):
                told.append((str(method.routing_key), properties, body))
                ids.add(properties.message_id)
            time.sleep(0.1)
        return told

    def quarantined(self, count: int) -> list[tuple[dict[str, object], bytes]]:
        found: list[tuple[dict[str, object], bytes]] = []

        def enough() -> bool:
            found.extend(
                (dict(properties.headers or {}), body)
                for _, properties, body in self.broker.drain(INNER, "stackbus.quarantine")
            )
            return len(found) >= count

        wait_until(enough, 60, "the quarantine is too small")
        return found


@pytest.fixture
def relayed(clean: Broker, tmp_path: Path) -> Iterator[Bus]:
    bus = Bus(clean, exposure(clean, tmp_path), tmp_path)
    try:
        bus.apply(deployment("t"))
        bus.probe()
        yield bus
    finally:
        for relay in bus.relays:
            relay.kill()
            relay.wait()


def numbered(count: int, start: int = 0) -> list[Captured]:
    """Give small notifications in order; each id tells its place."""
    made = []
    for place in range(start, start + count):
        message = {
            "message_id": f"{place:06d}-{uuid.uuid4().hex[:8]}",
            "publisher_id": "compute.h",
            "event_type": "instance.update",
            "priority": "INFO",
            "payload": {
                "nova_object.data": {"tenant_id": "p", "place": place},
                "adminPass": "hunter2",
            },
            "timestamp": "2026-11-22 11:28:35.656005",
        }
        body = json.dumps({"oslo.version": "2.0", "oslo.message": json.dumps(message)}).encode()
        made.append(Captured("nova", "nova", "versioned_notifications.info", body))
    return made


def places(told: list[tuple[str, pika.BasicProperties, bytes]]) -> list[int]:
    """Give the places of the first arrival of each notification."""
    first: dict[str, int] = {}
    for _, properties, _ in told:
        identifier = str(properties.message_id)
        first.setdefault(identifier, int(identifier[:6]))
    return list(first.values())


def test_captured_notifications_arrive_labelled_scrubbed_and_otherwise_byte_for_byte(
    relayed: Bus,
) -> None:
    relayed.start_relay()
    publish(relayed.broker, GOLDEN)
    told = relayed.collect(len(GOLDEN))
    assert len(told) == len(GOLDEN)
    scrubber = Scrubber()
    touched = 0
    for one, (routing_key, properties, body) in zip(GOLDEN, told, strict=True):
        message = one.message()
        expected = scrubber.scrub(one.body, str(message["event_type"]))
        assert body == expected.body
        assert (properties.headers or {}).get("x-stackbus-scrubbed", []) == list(expected.paths)
        assert properties.message_id == message["message_id"]
        assert properties.type == message["event_type"]
        assert properties.app_id == one.service
        assert properties.content_type == "application/json"
        assert properties.timestamp
        assert routing_key == label(one.exchange, decode(body)).routing_key
        touched += bool(expected.paths)
    assert touched > 5  # which, says tests/unit/test_scrub.py
    assert b"gAAAA" not in b"".join(body for _, _, body in told)


AWKWARD: dict[str, bytes] = {
    "empty": b"",
    "random": random.Random(1).randbytes(5000),
    "not UTF-8": b'{"event_type": "\xff"}',
    "deep": b'{"a":' * 50_000 + b"1" + b"}" * 50_000,
    "a list": b"[1, 2]",
    "half": GOLDEN[0].body[:-20],
    "a number as event type": b'{"event_type": 5, "message_id": "m", "priority": "INFO", "payload": {}}',
    "no priority of ours": b'{"event_type": "x", "message_id": "m", "priority": "LOUD", "payload": {}}',
    "a secret twice": b'{"event_type":"x","message_id":"m","priority":"INFO","payload":{"token":"canary","token":null}}',
    "pickle": b"\x80\x04\x95",
}  # fmt: skip


def test_what_cannot_be_read_goes_to_quarantine_whole_and_never_blocks(relayed: Bus) -> None:
    relayed.start_relay()
    sent = [Captured("nova", "nova", "notifications.info", body) for body in AWKWARD.values()]
    mixed = [one for pair in zip(sent, numbered(len(sent)), strict=True) for one in pair]
    publish(relayed.broker, mixed)
    assert places(relayed.collect(len(sent))) == list(range(len(sent)))
    kept = relayed.quarantined(len(sent))
    assert [body for _, body in kept] == list(AWKWARD.values())
    assert all(
        header["x-stackbus-reason"] and header["x-stackbus-exchange"] == "nova"
        for header, _ in kept
    )
    assert "canary" not in str([header for header, _ in kept])
    assert "canary" not in relayed.log()


def test_wrong_types_and_giants_are_told_or_quarantined(relayed: Bus) -> None:
    draw = random.Random(7)
    values: list[object] = [
        None,
        5,
        -1.5,
        True,
        "x" * 300,
        [],
        {},
        [1],
        {"a": {}},
        "é\n\x00",
        2**70,
    ]
    fields = ["message_id", "publisher_id", "event_type", "priority", "payload", "timestamp"]
    sent = []
    for _ in range(300):
        message = json.loads(json.loads(numbered(1)[0].body)["oslo.message"])
        for name in draw.sample(fields, draw.randint(1, 3)):
            message[name] = draw.choice(values)
        body = json.dumps(message).encode()
        sent.append(
            Captured(
                "nova", draw.choice(["nova", "glance", "neutron"]), "notifications.error", body
            )
        )
    giant = json.loads(json.loads(numbered(1)[0].body)["oslo.message"])
    giant["payload"] = {"password": "hunter2", "blob": "x" * (16 * 1024 * 1024)}
    sent.append(Captured("nova", "nova", "notifications.info", json.dumps(giant).encode()))
    relayed.start_relay()
    with relayed.broker.channel(INNER) as channel:
        for one in sent:
            channel.basic_publish(one.exchange, one.routing_key, one.body)
    told: list[bytes] = []
    aside: list[bytes] = []

    def all_arrived() -> bool:
        told.extend(body for _, _, body in relayed.broker.drain(OUTER, PROBE))
        aside.extend(body for _, _, body in relayed.broker.drain(INNER, "stackbus.quarantine"))
        return len(told) + len(aside) >= len(sent)

    wait_until(all_arrived, 90, "some were lost")
    assert len(told) + len(aside) == len(sent)
    assert b"hunter2" not in b"".join(told)
    assert max(map(len, told)) > 16 * 1024 * 1024
    assert told
    assert aside


def test_killed_at_any_moment_it_loses_nothing_and_keeps_the_order(relayed: Bus) -> None:
    total, kills = 6000, 8
    sent = numbered(total)
    draw = random.Random(3)
    relay = relayed.start_relay()
    publisher = threading.Thread(target=publish, args=(relayed.broker, sent))
    publisher.start()
    for _ in range(kills):
        time.sleep(draw.uniform(0.8, 2.4))
        relay.kill()
        relay.wait()
        relay = relayed.start_relay()
    publisher.join()
    told = relayed.collect(total, 120)
    assert places(told) == list(range(total))
    assert b"hunter2" not in b"".join(body for _, _, body in told)


def test_a_second_relay_stands_by_and_takes_over(relayed: Bus) -> None:
    first = relayed.start_relay()
    relayed.wait_for_relays(1)
    relayed.start_relay()
    relayed.wait_for_relays(2)
    publish(relayed.broker, numbered(500))
    first.kill()
    publish(relayed.broker, numbered(500, 500))
    assert places(relayed.collect(1000)) == list(range(1000))


def test_stopped_it_finishes_what_it_began(relayed: Bus) -> None:
    relay = relayed.start_relay()
    relayed.wait_for_relays()
    publisher = threading.Thread(target=publish, args=(relayed.broker, numbered(3000)))
    publisher.start()
    time.sleep(0.5)
    relay.send_signal(signal.SIGTERM)
    assert relay.wait(20) == 0
    publisher.join()
    relayed.start_relay()
    told = relayed.collect(3000)
    # Stopped cleanly, nothing comes twice.
    assert len(told) == 3000
    assert places(told) == list(range(3000))


def publish_in_the_middle_of(relayed: Bus, fault: Callable[[], None]) -> None:
    """Let 500 notifications through, then send 3000, in the middle of which ``fault`` comes."""
    publish(relayed.broker, numbered(500))
    assert len(relayed.collect(500)) >= 500
    publisher = threading.Thread(target=publish, args=(relayed.broker, numbered(3000, 500)))
    publisher.start()
    time.sleep(0.4)
    fault()
    publisher.join()


def test_the_outer_bus_may_go_away_and_come_back(relayed: Bus) -> None:
    proxy = Proxy(relayed.broker.description.ports.amqp)
    relayed.start_relay(outer_port=proxy.port)
    publish_in_the_middle_of(relayed, proxy.cut)
    time.sleep(4)
    proxy.down = False
    assert places(relayed.collect(3000)) == list(range(500, 3500))


@pytest.mark.parametrize("side", ["inner", "outer"])
def test_either_side_may_be_silent_for_a_minute(relayed: Bus, side: str) -> None:
    proxy = Proxy(relayed.broker.description.ports.amqp)
    if side == "inner":
        relayed.start_relay(inner_port=proxy.port)
    else:
        relayed.start_relay(outer_port=proxy.port)
    publish_in_the_middle_of(relayed, proxy.fall_silent)
    time.sleep(60)
    proxy.speak()
    # What was cut in the middle of its window may come twice, but first in order.
    assert places(relayed.collect(3000, seconds=120)) == list(range(500, 3500))


def test_without_a_journal_it_holds_what_nobody_would_keep(relayed: Bus) -> None:
    relayed.start_relay()
    relayed.wait_for_relays()
    with relayed.broker.channel(OUTER) as channel:
        channel.queue_unbind("stackbus.journal", "stackbus", "#")
        channel.queue_unbind(PROBE, "stackbus", "#")
        channel.exchange_unbind("t", "stackbus", "#")
    publish(relayed.broker, numbered(20))
    wait_until(lambda: "the journal is not bound" in relayed.log())
    relayed.apply(deployment("t"))
    relayed.probe()
    wait_until(
        lambda: sum(len(relayed.broker.drain(OUTER, f"t.{word}")) for word in PRIORITIES) >= 20
    )


def test_it_waits_for_a_bus_that_is_not_there_yet(relayed: Bus) -> None:
    relayed.broker.management.delete("queues", INNER, "stackbus.intake")
    relayed.start_relay()
    wait_until(lambda: "relay.lost" in relayed.log())
    relayed.apply(deployment("t"))
    publish(relayed.broker, numbered(5))
    assert places(relayed.collect(5)) == list(range(5))


@pytest.mark.parametrize("durable", [False, True])
def test_on_a_bus_of_others_it_binds_exchanges_as_they_come(
    clean: Broker, tmp_path: Path, durable: bool
) -> None:
    """A service with other durability than ours declares its exchange and is not silenced."""
    clean.management.import_definitions({"vhosts": [{"name": INNER}]})
    bus = Bus(clean, exposure(clean, tmp_path), tmp_path)
    bus.apply(deployment("t"))
    bus.probe()
    bus.start_relay()
    try:
        bus.wait_for_relays()
        with clean.channel(INNER) as channel:
            channel.exchange_declare("nova", "topic", durable=durable)
            channel.exchange_declare("openstack", "topic", durable=durable)
            time.sleep(1.5)
            cinder = next(one for one in GOLDEN if one.service == "cinder")
            for exchange, one in (("nova", numbered(1)[0]), ("openstack", cinder)):
                channel.basic_publish(exchange, one.routing_key, one.body)
            # Declared again as the service does: the same, so no 406 silences it.
            channel.exchange_declare("nova", "topic", durable=durable)
        told = bus.collect(2)
        assert sorted(str(properties.app_id) for _, properties, _ in told) == ["cinder", "nova"]
    finally:
        for relay in bus.relays:
            relay.kill()
            relay.wait()


# Filters


def _words(one: Captured) -> list[str]:
    return label(one.exchange, decode(one.body)).routing_key.split(".", 3)


PROJECTS = sorted({_words(one)[2] for one in GOLDEN} - {"-"})[:2]
FILTERS = {
    "service": Topic("f1", services=("cinder",)),
    "services": Topic("f2", services=("keystone", "masakari", "nova")),
    "events": Topic("f3", events=("instance.#", "volume.create.*", "#.error")),
    "projects": Topic("f4", projects=(PROJECTS[0],)),
    "priorities": Topic("f5", priorities=("error",)),
    "all together": Topic(
        "f6",
        services=("neutron", "nova"),
        events=("*.create.#", "instance.*.end"),
        projects=tuple(PROJECTS),
        priorities=("info", "warn"),
    ),
    "nothing": Topic("f7", events=("no.such.event",)),
    "everything": Topic("f8"),
}


def _passes(topic: Topic, one: Captured) -> bool:
    priority, service, project, event_type = _words(one)
    return (
        (topic.priorities is None or priority in topic.priorities)
        and (topic.services is None or service in topic.services)
        and (topic.projects is None or project in topic.projects)
        and (topic.events is None or any(matches(one, event_type) for one in topic.events))
    )


def test_filters_let_through_exactly_what_was_asked_for(relayed: Bus) -> None:
    relayed.apply(deployment(*FILTERS.values()))
    relayed.start_relay()
    publish(relayed.broker, GOLDEN)
    relayed.collect(len(GOLDEN))
    for name, topic in FILTERS.items():
        told = sorted(
            str(properties.message_id)
            for word in PRIORITIES
            for _, properties, _ in relayed.broker.drain(OUTER, f"{topic.name}.{word}")
        )
        wanted = sorted(str(one.message()["message_id"]) for one in GOLDEN if _passes(topic, one))
        assert told == wanted, name
        assert bool(wanted) is (name != "nothing")


def test_a_disabled_services_notifications_reach_no_topic(relayed: Bus) -> None:
    relayed.apply(deployment("t", services=("glance", "nova")))
    relayed.start_relay()
    publish(relayed.broker, GOLDEN)
    relayed.collect(len(GOLDEN))
    told = {
        properties.app_id
        for word in PRIORITIES
        for _, properties, _ in relayed.broker.drain(OUTER, f"t.{word}")
    }
    assert told == {"glance", "nova"}


@pytest.mark.parametrize("kind", ["quorum", "classic"])
def test_what_a_queue_drops_is_counted_and_shown(relayed: Bus, kind: str) -> None:
    relayed.apply(
        deployment(
            Topic("small", queue=Queue(kind, max_bytes=20_000)),
            Topic("short", queue=Queue(kind, max_age=1)),
        )
    )
    relayed.start_relay()
    publish(relayed.broker, numbered(100))
    relayed.collect(100)

    def dropped() -> dict[str, int]:
        found = topic_status(relayed.broker.management, relayed.control.store, OUTER)
        return {topic.name: topic.dropped for topic in found}

    wait_until(lambda: dropped()["short"] == 100 and dropped()["small"] > 20, 40, str(dropped()))
    kept = len(relayed.broker.drain(OUTER, "small.info"))
    assert kept + dropped()["small"] == 100
