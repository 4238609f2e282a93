"""What the relay may acknowledge and count: only what RabbitMQ has confirmed."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter

from stackbus.relay.relay import _Publisher, _Window


def make_counter() -> tuple[CollectorRegistry, Counter]:
    registry = CollectorRegistry()
    return registry, Counter("relayed", "Notifications confirmed.", registry=registry)


def test_a_notification_counts_when_it_is_confirmed_and_not_before() -> None:
    registry, counter = make_counter()
    publisher = _Publisher(_Window())
    for tag in (1, 2, 3):
        publisher.add(tag, counter)
    assert registry.get_sample_value("relayed_total") == 0
    publisher.confirm(2, multiple=False)
    assert registry.get_sample_value("relayed_total") == 1
    publisher.confirm(3, multiple=True)
    assert registry.get_sample_value("relayed_total") == 3


def test_a_delivery_is_acknowledged_once_all_before_it_are_confirmed() -> None:
    _, counter = make_counter()
    window = _Window()
    outer, quarantine = _Publisher(window), _Publisher(window)
    outer.add(1, counter)
    quarantine.add(2, counter)
    outer.add(3, counter)
    outer.confirm(2, multiple=True)
    assert window.next_acknowledgement() == 1
    assert window.next_acknowledgement() is None
    quarantine.confirm(1, multiple=False)
    assert window.next_acknowledgement() == 3
    assert len(window) == 0
