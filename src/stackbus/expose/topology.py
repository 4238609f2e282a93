"""The topology: every item that should exist in RabbitMQ for a deployment, as a value. Pure.

``topology`` builds it from the deployment, the credentials and the settings. ``changes.py``
compares it with the items that the broker has, and ``apply.py`` writes the difference.

    inner vhost: control exchanges -> stackbus.intake -> relay
    outer vhost: stackbus -> stackbus.journal, and by each topic's filter
                 -> exchange T -> queues T.<priority>
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from stackbus.bus import names
from stackbus.bus.names import CONTROL_EXCHANGES, NOTIFICATION_TOPICS, PRIORITIES, queue_name
from stackbus.expose.credentials import Credentials, Generations
from stackbus.expose.deployment import Deployment, Topic, binding_keys
from stackbus.expose.kinds import (
    binding,
    control_exchange,
    exchange,
    kind_of,
    permission,
    policy,
    queue,
    user,
    vhost,
)
from stackbus.expose.kinds.kind import Body, Item, Items
from stackbus.services import SERVICES
from stackbus.settings import Settings

_UNLIMITED = 1_000_000_000
"""A delivery limit that no queue reaches: 4.0 and newer drop a message after 20 attempts."""

_ANY_PRIORITY = f"({'|'.join(PRIORITIES)})"
_DEFAULT_QUEUES = rf"({'|'.join(NOTIFICATION_TOPICS)})\.{_ANY_PRIORITY}"
"""The queues that oslo.messaging declares itself, as a regular expression."""


@dataclass(frozen=True, slots=True)
class BusState:
    """The state of the broker, as far as the topology depends on it.

    ``owns_inner``: stackbus made the inner vhost, so it also makes the control exchanges. On
    any other bus it binds only those that are there (``control_exchanges``).
    """

    inner: str
    outer: str
    owns_inner: bool
    control_exchanges: frozenset[str]


def topology(
    deployment: Deployment,
    credentials: Credentials,
    generations: Mapping[str, Generations],
    bus: BusState,
    settings: Settings,
) -> Items:
    """Return every item that should exist."""
    items = dict(
        (
            vhost.item(bus.inner),
            vhost.item(bus.outer),
            *_inner_bus(bus, settings),
            *_outer_bus(bus, settings),
            *_own_users(credentials, bus),
        )
    )
    consumers = {consumer.topic: consumer for consumer in credentials.consumers}
    for topic in deployment.topics:
        items.update(_topic(topic, deployment.services, bus, settings))
        retiring = generations.get(topic.name, Generations()).retiring
        passwords: dict[str, Body] = {
            names.consumer_user(topic.name, generation.generation): {
                "password_hash": generation.password_hash
            }
            for generation in retiring
        }
        consumer = consumers[topic.name]
        passwords[consumer.username] = {"password": consumer.password}
        for username, password in passwords.items():
            items.update(_consumer(username, password, topic, bus, settings))
    return items


def select_vhosts(items: Items, vhosts: frozenset[str]) -> Items:
    """Return the items that belong to a broker with these vhosts.

    A user belongs where it has a permission.
    """
    users = {key[1] for key in items if key[0] == permission.NAME and key[2] in vhosts}
    return {
        key: body
        for key, body in items.items()
        if (
            key[1] in users
            if key[0] == user.NAME
            else not vhosts.isdisjoint(kind_of(key).vhosts(key))
        )
    }


def _inner_bus(bus: BusState, settings: Settings) -> Iterator[Item]:
    yield queue.item(bus.inner, names.INTAKE, "quorum", {"x-single-active-consumer": True})
    yield queue.item(bus.inner, names.QUARANTINE, "quorum")
    yield exchange.item(bus.inner, names.QUARANTINE, "fanout")
    yield binding.to_queue(bus.inner, names.QUARANTINE, names.QUARANTINE, "")
    yield policy.item(
        bus.inner,
        names.OWN_QUEUES_POLICY,
        _any_of([names.INTAKE, names.QUARANTINE]),
        {"delivery-limit": _UNLIMITED},
    )
    yield policy.item(
        bus.inner,
        names.DEFAULT_QUEUES_POLICY,
        f"^{_DEFAULT_QUEUES}$",
        {
            "message-ttl": settings.default_queue_max_age * 1000,
            "max-length-bytes": settings.default_queue_max_bytes,
        },
        priority=-1,  # whatever policy the administrator has for these queues wins
    )
    control_exchanges = set(bus.control_exchanges)
    if bus.owns_inner:
        yield from (control_exchange.item(bus.inner, name) for name in CONTROL_EXCHANGES)
        control_exchanges.update(CONTROL_EXCHANGES)
    for name in sorted(control_exchanges):
        for topic in NOTIFICATION_TOPICS:
            yield binding.to_queue(bus.inner, name, names.INTAKE, f"{topic}.*")


def _outer_bus(bus: BusState, settings: Settings) -> Iterator[Item]:
    yield exchange.item(bus.outer, names.OUTER_EXCHANGE, "topic")
    yield queue.item(bus.outer, names.JOURNAL, "stream")
    yield binding.to_queue(bus.outer, names.OUTER_EXCHANGE, names.JOURNAL, "#")
    yield policy.item(
        bus.outer,
        names.JOURNAL,
        f"^{re.escape(names.JOURNAL)}$",
        {"max-age": settings.journal_max_age, "max-length-bytes": settings.journal_max_bytes},
    )
    yield exchange.item(bus.outer, names.DROPPED, "fanout")
    yield queue.item(bus.outer, names.DROPPED, "classic")
    yield binding.to_queue(bus.outer, names.DROPPED, names.DROPPED, "")
    yield policy.item(
        bus.outer,
        names.DROPPED,
        f"^{re.escape(names.DROPPED)}$",
        {"max-length-bytes": settings.dropped_max_bytes},
    )


def _own_users(credentials: Credentials, bus: BusState) -> Iterator[Item]:
    passwords = credentials.own_passwords
    no_name = permission.NO_NAME

    relay = names.RELAY_USER
    sources = _any_of([names.INTAKE, *CONTROL_EXCHANGES])
    aside = _any_of([names.INTAKE, names.QUARANTINE])
    yield user.item(relay, {"password": passwords[relay]})
    yield permission.item(relay, bus.inner, no_name, aside, sources)
    yield permission.item(relay, bus.outer, no_name, _any_of([names.OUTER_EXCHANGE]), no_name)

    tail = names.TAIL_USER
    temporary = r"^amq\.gen.*$"
    yield user.item(tail, {"password": passwords[tail]})
    yield permission.item(tail, bus.outer, temporary, temporary, r"^[a-z0-9].*$")

    for service in SERVICES:
        name = names.service_user(service.name)
        exchange_pattern = re.escape(service.exchange)
        # Binding the default queues takes write on them and read on the exchange. Nobody may
        # read the queues themselves.
        declared = f"^({exchange_pattern}|{_DEFAULT_QUEUES})$"
        yield user.item(name, {"password": passwords[name]})
        yield permission.item(name, bus.inner, declared, declared, f"^{exchange_pattern}$")


def _topic(
    topic: Topic, enabled: tuple[str, ...] | None, bus: BusState, settings: Settings
) -> Iterator[Item]:
    yield exchange.item(bus.outer, topic.name, "topic")
    for routing_key in binding_keys(topic, enabled):
        yield binding.to_exchange(bus.outer, names.OUTER_EXCHANGE, topic.name, routing_key)
    for priority in PRIORITIES:
        name = queue_name(topic.name, priority)
        yield queue.item(bus.outer, name, topic.queue.type)
        yield binding.to_queue(bus.outer, topic.name, name, f"{priority}.#")
    limits: dict[str, object] = {
        "message-ttl": (topic.queue.max_age or settings.queue_max_age) * 1000,
        "max-length-bytes": topic.queue.max_bytes or settings.queue_max_bytes,
        "overflow": "drop-head",
        "dead-letter-exchange": names.DROPPED,
    }
    if topic.queue.type == "quorum":
        limits["delivery-limit"] = _UNLIMITED
    yield policy.item(bus.outer, topic.name, _queues_of(topic.name), limits)


def _consumer(
    username: str, password: Body, topic: Topic, bus: BusState, settings: Settings
) -> Iterator[Item]:
    limits = {"max-connections": settings.max_connections, "max-channels": settings.max_channels}
    yield user.item(username, password, limits)
    queues = _queues_of(topic.name)
    if topic.read_only:
        no_name = permission.NO_NAME
        yield permission.item(username, bus.outer, no_name, no_name, queues)
    else:
        # Declaring again takes configure. Binding again takes write on the queue and read on the
        # exchange. Write on the exchange is never given, so nothing can be published.
        exchange_and_queues = rf"^{re.escape(topic.name)}(\.{_ANY_PRIORITY})?$"
        yield permission.item(username, bus.outer, exchange_and_queues, queues, exchange_and_queues)


def _queues_of(topic: str) -> str:
    return rf"^{re.escape(topic)}\.{_ANY_PRIORITY}$"


def _any_of(alternatives: Iterable[str]) -> str:
    return f"^({'|'.join(re.escape(name) for name in alternatives)})$"
