"""The relay on a real broker: killed, stopped, cut off or early, it loses nothing, in order."""

from __future__ import annotations

import random
import signal
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.conftest import Broker, deployment, exposure, golden, publish, wait_until
from tests.proxy import Proxy
from tests.relaying import OUTER, PROBE, RelayedBus, numbered, numbers

from stackbus.bus.names import PRIORITIES

HEARTBEAT = 5
"""Seconds, in place of 30: a silent connection is lost after 10 to 20 seconds."""


def test_killed_at_any_moment_it_loses_nothing_and_keeps_the_order(relayed: RelayedBus) -> None:
    total, kills = 8000, 8
    draw = random.Random(3)
    relay = relayed.start_relay()
    publisher = threading.Thread(target=publish, args=(relayed.broker, numbered(total)))
    publisher.start()
    for _ in range(kills):
        # A few hundred notifications after its start, so in the middle of its window.
        target = min(relayed.depth() + draw.randint(1, 400), total)
        wait_until(lambda target=target: relayed.depth() >= target, 120, relayed.log()[-2000:])  # type: ignore[misc]
        relay.kill()
        relay.wait()
        relay = relayed.start_relay()
    publisher.join()
    messages = relayed.collect(total)
    assert numbers(messages) == list(range(total))
    assert b"hunter2" not in b"".join(body for _, _, body in messages)


def test_a_second_relay_stands_by_and_takes_over(relayed: RelayedBus) -> None:
    first = relayed.start_relay()
    relayed.wait_for_relays(1)
    relayed.start_relay()
    relayed.wait_for_relays(2)
    publish(relayed.broker, numbered(500))
    first.kill()
    publish(relayed.broker, numbered(500, 500))
    assert numbers(relayed.collect(1000)) == list(range(1000))


def test_stopped_it_finishes_what_it_began(relayed: RelayedBus) -> None:
    relay = relayed.start_relay()
    relayed.wait_for_relays()
    publisher = threading.Thread(target=publish, args=(relayed.broker, numbered(3000)))
    publisher.start()
    wait_until(lambda: relayed.depth() >= 100)
    relay.send_signal(signal.SIGTERM)
    assert relay.wait(30) == 0
    publisher.join()
    relayed.start_relay()
    messages = relayed.collect(3000)
    # After a clean stop no notification comes twice.
    assert len(messages) == 3000
    assert numbers(messages) == list(range(3000))


def publish_around(relayed: RelayedBus, fault: Callable[[], None]) -> None:
    """Relay 500 notifications, then publish 3000, with ``fault`` while these are relayed."""
    publish(relayed.broker, numbered(500))
    assert len(relayed.collect(500)) >= 500
    publisher = threading.Thread(target=publish, args=(relayed.broker, numbered(3000, 500)))
    publisher.start()
    wait_until(lambda: relayed.depth() >= 100)
    fault()
    publisher.join()


def test_the_outer_bus_may_go_away_and_come_back(relayed: RelayedBus) -> None:
    proxy = Proxy(relayed.broker.description.ports.amqp)
    relayed.start_relay(outer_port=proxy.port)
    publish_around(relayed, proxy.cut)
    relayed.wait_for_losses(3)  # it has tried again, and again
    proxy.down = False
    assert numbers(relayed.collect(3000)) == list(range(500, 3500))


@pytest.mark.parametrize("side", ["inner", "outer"])
def test_either_side_may_be_silent_until_the_connection_is_lost(
    relayed: RelayedBus, side: str
) -> None:
    proxy = Proxy(relayed.broker.description.ports.amqp)
    relayed.start_relay(STACKBUS_AMQP_HEARTBEAT=HEARTBEAT, **{f"{side}_port": proxy.port})
    publish_around(relayed, proxy.fall_silent)
    relayed.wait_for_losses(1)
    proxy.speak()
    # What was cut in the middle of its window may come twice, but first in order.
    assert numbers(relayed.collect(3000)) == list(range(500, 3500))


def test_without_a_journal_it_holds_what_no_queue_would_keep(relayed: RelayedBus) -> None:
    relayed.start_relay()
    relayed.wait_for_relays()
    with relayed.broker.channel(OUTER) as channel:
        channel.queue_unbind("stackbus.journal", "stackbus", "#")
        channel.queue_unbind(PROBE, "stackbus", "#")
        channel.exchange_unbind("t", "stackbus", "#")
    publish(relayed.broker, numbered(20))
    wait_until(lambda: "the journal is not bound" in relayed.log())
    relayed.apply(deployment("t"))
    relayed.declare_probe()
    received: list[object] = []

    def have_arrived() -> bool:
        for priority in PRIORITIES:
            received.extend(relayed.broker.drain(OUTER, f"t.{priority}"))
        return len(received) >= 20

    wait_until(have_arrived)


def test_it_waits_for_a_bus_that_is_not_there_yet(relayed: RelayedBus) -> None:
    relayed.broker.management.delete("queues", "openstack", "stackbus.intake")
    relayed.start_relay()
    relayed.wait_for_losses(1)
    relayed.apply(deployment("t"))
    publish(relayed.broker, numbered(5))
    assert numbers(relayed.collect(5)) == list(range(5))


@pytest.mark.parametrize("durable", [False, True])
def test_on_a_bus_of_others_it_binds_exchanges_as_they_come(
    clean: Broker, tmp_path: Path, durable: bool
) -> None:
    """A service with other durability than ours declares its exchange and is not silenced."""
    clean.management.import_definitions({"vhosts": [{"name": "openstack"}]})
    bus = RelayedBus(clean, exposure(clean, tmp_path), tmp_path)
    bus.apply(deployment("t"))
    bus.declare_probe()
    bus.start_relay()
    try:
        bus.wait_for_relays()
        with clean.channel("openstack") as channel:
            channel.exchange_declare("nova", "topic", durable=durable)
            channel.exchange_declare("openstack", "topic", durable=durable)
            bus.wait_for_bindings("nova", "openstack")
            cinder = next(captured for captured in golden() if captured.service == "cinder")
            for exchange, notification in (("nova", numbered(1)[0]), ("openstack", cinder)):
                channel.basic_publish(exchange, notification.routing_key, notification.body)
            # The service declares it again with the same arguments, and gets no 406.
            channel.exchange_declare("nova", "topic", durable=durable)
        messages = bus.collect(2)
        assert sorted(str(properties.app_id) for _, properties, _ in messages) == ["cinder", "nova"]
    finally:
        bus.end_relays()
