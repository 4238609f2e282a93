"""The relay on a real broker: what it publishes, what it quarantines, which topics receive it."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest
from tests.conftest import Captured, deployment, golden, publish, wait_until
from tests.relaying import INNER, OUTER, PROBE, RelayedBus, numbered, numbers
from tests.unexpected import check_reasons

from stackbus.bus.names import PRIORITIES
from stackbus.bus.routing import matches
from stackbus.events.envelope import decode
from stackbus.events.scrub import Scrubber
from stackbus.expose.deployment import Queue, Topic
from stackbus.expose.status import topics as topic_status
from stackbus.relay.label import label

GOLDEN = golden()


def test_captured_notifications_arrive_labelled_scrubbed_and_otherwise_byte_for_byte(
    relayed: RelayedBus,
) -> None:
    relayed.start_relay()
    publish(relayed.broker, GOLDEN)
    messages = relayed.collect(len(GOLDEN))
    assert len(messages) == len(GOLDEN)
    scrubber = Scrubber()
    scrubbed = 0
    for captured, (routing_key, properties, body) in zip(GOLDEN, messages, strict=True):
        notification = captured.message()
        expected = scrubber.scrub(captured.body, str(notification["event_type"]))
        assert body == expected.body
        assert (properties.headers or {}).get("x-stackbus-scrubbed", []) == list(expected.paths)
        assert properties.message_id == notification["message_id"]
        assert properties.type == notification["event_type"]
        assert properties.app_id == captured.service
        assert properties.content_type == "application/json"
        assert properties.timestamp
        assert routing_key == label(captured.exchange, decode(body)).routing_key
        scrubbed += bool(expected.paths)
    assert scrubbed > 5  # tests/unit/test_scrub.py checks which
    assert b"gAAAA" not in b"".join(body for _, _, body in messages)


# Quarantine

UNREADABLE: dict[str, bytes] = {
    "empty": b"",
    "random": random.Random(1).randbytes(5000),
    "not UTF-8": b'{"event_type": "\xff"}',
    "deep": b'{"a":' * 50_000 + b"1" + b"}" * 50_000,
    "a list": b"[1, 2]",
    "half": GOLDEN[0].body[:-20],
    "a number as event type": b'{"event_type": 5, "message_id": "m", "priority": "INFO", "payload": {}}',
    "no priority of ours": b'{"event_type": "x", "message_id": "m", "priority": "LOUD", "payload": {}}',
    "pickle": b"\x80\x04\x95",
}  # fmt: skip


def test_unreadable_bodies_go_to_quarantine_whole_and_never_block(relayed: RelayedBus) -> None:
    relayed.start_relay()
    bad = [Captured("nova", "nova", "notifications.info", body) for body in UNREADABLE.values()]
    publish(relayed.broker, [item for pair in zip(bad, numbered(len(bad)), strict=True) for item in pair])  # fmt: skip
    assert numbers(relayed.collect(len(bad))) == list(range(len(bad)))
    quarantined = relayed.quarantined(len(bad))
    assert [body for _, body in quarantined] == list(UNREADABLE.values())
    assert all(headers["x-stackbus-exchange"] == "nova" for headers, _ in quarantined)
    check_reasons(str(headers["x-stackbus-reason"]) for headers, _ in quarantined)
    assert "canary" not in str([headers for headers, _ in quarantined])
    assert "canary" not in relayed.log()


def test_a_secret_that_stands_twice_is_masked_and_the_rest_arrives(relayed: RelayedBus) -> None:
    relayed.start_relay()
    body = (
        b'{"event_type": "compute.instance.update", "message_id": "m", "priority": "INFO", '
        b'"payload": {"token": "canary", "token": null, '
        b'"display_name": "{\\"token\\": 1, \\"token\\": \\"canary\\"}", "memory_mb": 512}}'
    )
    publish(relayed.broker, [Captured("nova", "nova", "notifications.info", body)])
    ((_, properties, received),) = relayed.collect(1)
    assert b"canary" not in received
    assert json.loads(received)["payload"]["memory_mb"] == 512
    assert json.loads(received)["payload"]["display_name"] == "***"
    assert properties.headers is not None
    assert "payload.display_name" in str(properties.headers["x-stackbus-scrubbed"])


def malformed(count: int) -> list[Captured]:
    """Return notifications with wrong types in one to three of their fields, and one of 16 MiB."""
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
    notifications = []
    for _ in range(count):
        message = numbered(1)[0].message()
        for name in draw.sample(fields, draw.randint(1, 3)):
            message[name] = draw.choice(values)
        exchange = draw.choice(["nova", "glance", "neutron"])
        body = json.dumps(message).encode()
        notifications.append(Captured("nova", exchange, "notifications.error", body))
    giant = numbered(1)[0].message()
    giant["payload"] = {"password": "hunter2", "blob": "x" * (16 * 1024 * 1024)}
    body = json.dumps(giant).encode()
    return [*notifications, Captured("nova", "nova", "notifications.info", body)]


def relay_all(bus: RelayedBus, notifications: list[Captured]) -> tuple[list[bytes], list[str]]:
    """Publish notifications; return the bodies that were relayed and the quarantine's reasons."""
    with bus.broker.channel(INNER) as channel:
        for notification in notifications:
            channel.basic_publish(
                notification.exchange, notification.routing_key, notification.body
            )
    bodies: list[bytes] = []
    reasons: list[str] = []

    def have_arrived() -> bool:
        bodies.extend(body for _, _, body in bus.broker.drain(OUTER, PROBE))
        reasons.extend(
            str((properties.headers or {}).get("x-stackbus-reason", ""))
            for _, properties, _ in bus.broker.drain(INNER, "stackbus.quarantine")
        )
        return len(bodies) + len(reasons) >= len(notifications)

    wait_until(have_arrived, 120, "some were lost")
    assert len(bodies) + len(reasons) == len(notifications)
    return bodies, reasons


def test_wrong_types_and_giants_are_relayed_or_quarantined_for_a_stated_reason(
    relayed: RelayedBus,
) -> None:
    relayed.start_relay()
    bodies, reasons = relay_all(relayed, malformed(300))
    assert b"hunter2" not in b"".join(bodies)
    assert max(map(len, bodies)) > 16 * 1024 * 1024
    assert bodies
    assert reasons
    check_reasons(reasons)
    assert "relay.bug" not in relayed.log()


PLANTED_BUG = """
import stackbus.relay.relay as relay
original = relay.decode
def decode(body):
    notification = original(body)
    return 1 / 0 if notification.publisher_id == "" else notification
relay.decode = decode
"""


def test_a_bug_planted_in_the_relay_fails_the_check_of_reasons(
    relayed: RelayedBus, tmp_path: Path
) -> None:
    """The relay quarantines what its own bug cannot read, and the check above notices it."""
    (tmp_path / "sitecustomize.py").write_text(PLANTED_BUG)
    relayed.start_relay(PYTHONPATH=tmp_path)
    good, bad = numbered(2)
    message = bad.message() | {"publisher_id": ""}
    bad = Captured("nova", "nova", "notifications.info", json.dumps(message).encode())
    bodies, reasons = relay_all(relayed, [bad, good])
    assert len(bodies) == 1
    with pytest.raises(AssertionError, match="1 notifications made stackbus fail"):
        check_reasons(reasons)
    assert "relay.bug" in relayed.log()


# Filters


def routing_key_words(captured: Captured) -> list[str]:
    return label(captured.exchange, decode(captured.body)).routing_key.split(".", 3)


PROJECTS = sorted({routing_key_words(captured)[2] for captured in GOLDEN} - {"-"})[:2]
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


def passes(topic: Topic, captured: Captured) -> bool:
    """Return whether a topic's filters let a notification through."""
    priority, service, project, event_type = routing_key_words(captured)
    return (
        (topic.priorities is None or priority in topic.priorities)
        and (topic.services is None or service in topic.services)
        and (topic.projects is None or project in topic.projects)
        and (topic.events is None or any(matches(words, event_type) for words in topic.events))
    )


def test_filters_let_through_exactly_the_notifications_asked_for(relayed: RelayedBus) -> None:
    relayed.apply(deployment(*FILTERS.values()))
    relayed.start_relay()
    publish(relayed.broker, GOLDEN)
    relayed.collect(len(GOLDEN))
    for name, topic in FILTERS.items():
        received = sorted(
            str(properties.message_id)
            for priority in PRIORITIES
            for _, properties, _ in relayed.broker.drain(OUTER, f"{topic.name}.{priority}")
        )
        expected = sorted(
            str(captured.message()["message_id"]) for captured in GOLDEN if passes(topic, captured)
        )
        assert received == expected, name
        assert bool(expected) is (name != "nothing")


def test_a_disabled_services_notifications_reach_no_topic(relayed: RelayedBus) -> None:
    relayed.apply(deployment("t", services=("glance", "nova")))
    relayed.start_relay()
    publish(relayed.broker, GOLDEN)
    relayed.collect(len(GOLDEN))
    services = {
        properties.app_id
        for priority in PRIORITIES
        for _, properties, _ in relayed.broker.drain(OUTER, f"t.{priority}")
    }
    assert services == {"glance", "nova"}


@pytest.mark.parametrize("kind", ["quorum", "classic"])
def test_what_a_queue_drops_is_counted_and_shown(relayed: RelayedBus, kind: str) -> None:
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
        statuses = topic_status(relayed.broker.management, relayed.control.store, OUTER)
        return {topic.name: topic.dropped for topic in statuses}

    wait_until(lambda: dropped()["short"] == 100 and dropped()["small"] > 20, 60, str(dropped()))
    left = len(relayed.broker.drain(OUTER, "small.info"))
    wait_until(lambda: left + dropped()["small"] == 100, 30, "dropped and left are not all")
