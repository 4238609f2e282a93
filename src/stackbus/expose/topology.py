"""Everything that should exist in RabbitMQ for a deployment: a value. Pure.

Called by ``apply.py``; ``changes.py`` holds it against what the broker has. An item's key says
which thing it is, its body how it should be, in the words of RabbitMQ's definitions
(``GET /api/definitions``), so that one comparison and one import serve all kinds.

    inner vhost: control exchanges -> stackbus.intake -> relay
    outer vhost: stackbus -> journal, and by each topic's filter -> T -> T.<priority>
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from stackbus.expose.credentials import (
    RELAY,
    TAIL,
    Credentials,
    Generations,
    username,
)
from stackbus.expose.deployment import Deployment, Topic, filters
from stackbus.services import SERVICES
from stackbus.services.service import NOTIFICATION_TOPICS, PRIORITIES, SHARED_EXCHANGE
from stackbus.settings import Settings

Key = tuple[str, ...]
"""(kind, vhost or user, name, ...): which thing an item is."""

Body = Mapping[str, object]
Items = dict[Key, Body]

INTAKE = "stackbus.intake"
QUARANTINE = "stackbus.quarantine"
OUTER_EXCHANGE = "stackbus"
JOURNAL = "stackbus.journal"
DROPPED = "stackbus.dropped"
TAG = "stackbus"

KINDS = (
    "vhost",
    "user",
    "permission",
    "policy",
    "exchange",
    "control exchange",
    "queue",
    "binding",
)
"""In the order in which they can be created; removed in the opposite one."""

OWNED_KINDS = ("vhost", "user", "policy", "exchange", "queue")
"""Kinds whose names stand in the ledger; permissions and bindings follow from these."""

CONTROL_EXCHANGES = (*(service.exchange for service in SERVICES), SHARED_EXCHANGE)

_NEVER = "^$"
_UNLIMITED = 1_000_000_000
"""A delivery limit that no queue reaches: 4.0 and newer drop a message after 20 attempts."""

_DEFAULT_QUEUES = rf"({'|'.join(NOTIFICATION_TOPICS)})\.({'|'.join(PRIORITIES)})"


@dataclass(frozen=True, slots=True)
class Bus:
    """What has to be known of the bus before one can say what should be on it.

    ``owns_inner``: stackbus made the inner vhost, so it also makes the control exchanges; on
    any other bus it only looks which are there (``control_exchanges``).
    """

    inner: str
    outer: str
    owns_inner: bool
    control_exchanges: frozenset[str]


def topology(
    deployment: Deployment,
    credentials: Credentials,
    generations: Mapping[str, Generations],
    bus: Bus,
    settings: Settings,
) -> Items:
    """Give every item that should exist."""
    items: Items = {}
    for key, body in (
        *_vhosts(bus),
        *_inner(bus, settings),
        *_outer(bus, settings),
        *_own_users(credentials, bus),
    ):
        items[key] = body
    consumers = {consumer.topic: consumer for consumer in credentials.consumers}
    for topic in deployment.topics:
        passwords: dict[str, Body] = {
            username(topic.name, retired.generation): {"password_hash": retired.password_hash}
            for retired in generations.get(topic.name, Generations()).retiring
        }
        consumer = consumers[topic.name]
        passwords[consumer.username] = {"password": consumer.password}
        items.update(_topic(topic, deployment.services, bus, settings))
        for name, password in passwords.items():
            items.update(_consumer(name, password, topic, bus, settings))
    return items


def vhosts_of(key: Key) -> tuple[str, ...]:
    """Tell in which vhost a thing is; a user is in none."""
    match key:
        case ("user", *_):
            return ()
        case ("permission", _, vhost) | (_, vhost, *_):
            return (vhost,)
        case _:
            raise ValueError(f"no key of a thing: {key}")


def on_vhosts(items: Items, vhosts: frozenset[str]) -> Items:
    """Give the part of ``items`` that belongs to a broker with these vhosts.

    A user belongs where it has a permission.
    """
    users = {key[1] for key in items if key[0] == "permission" and key[2] in vhosts}
    return {
        key: body
        for key, body in items.items()
        if (key[1] in users if key[0] == "user" else not vhosts.isdisjoint(vhosts_of(key)))
    }


def queue_name(topic: str, priority: str) -> str:
    """Name a topic's queue of one priority."""
    return f"{topic}.{priority}"


def control_exchange(vhost: str, name: str) -> tuple[Key, Body]:
    """Give a control exchange as the printed drop-ins let the services declare it: durable."""
    return ("control exchange", vhost, name), _exchange_body("topic")


def _vhosts(bus: Bus) -> Iterator[tuple[Key, Body]]:
    yield ("vhost", bus.inner), {}
    yield ("vhost", bus.outer), {}


def _inner(bus: Bus, settings: Settings) -> Iterator[tuple[Key, Body]]:
    yield _queue(bus.inner, INTAKE, {"x-queue-type": "quorum", "x-single-active-consumer": True})
    yield _queue(bus.inner, QUARANTINE, {"x-queue-type": "quorum"})
    yield ("exchange", bus.inner, QUARANTINE), _exchange_body("fanout")
    yield _binding(bus.inner, QUARANTINE, "queue", QUARANTINE, "")
    yield _policy(
        bus.inner,
        "stackbus.own",
        rf"^stackbus\.({INTAKE.partition('.')[2]}|{QUARANTINE.partition('.')[2]})$",
        {"delivery-limit": _UNLIMITED},
    )
    # Lowest priority: whatever policy the administrator has for these queues wins.
    yield _policy(
        bus.inner,
        "stackbus.default-queues",
        f"^{_DEFAULT_QUEUES}$",
        {
            "message-ttl": settings.default_queue_max_age * 1000,
            "max-length-bytes": settings.default_queue_max_bytes,
        },
        priority=-1,
    )
    bound = set(bus.control_exchanges)
    if bus.owns_inner:
        for exchange in CONTROL_EXCHANGES:
            yield control_exchange(bus.inner, exchange)
            bound.add(exchange)
    for exchange in sorted(bound):
        for topic in NOTIFICATION_TOPICS:
            yield _binding(bus.inner, exchange, "queue", INTAKE, f"{topic}.*")


def _outer(bus: Bus, settings: Settings) -> Iterator[tuple[Key, Body]]:
    yield ("exchange", bus.outer, OUTER_EXCHANGE), _exchange_body("topic")
    yield _queue(bus.outer, JOURNAL, {"x-queue-type": "stream"})
    yield _binding(bus.outer, OUTER_EXCHANGE, "queue", JOURNAL, "#")
    yield _policy(
        bus.outer,
        JOURNAL,
        rf"^{re.escape(JOURNAL)}$",
        {"max-age": settings.journal_max_age, "max-length-bytes": settings.journal_max_bytes},
    )
    yield ("exchange", bus.outer, DROPPED), _exchange_body("fanout")
    yield _queue(bus.outer, DROPPED, {})
    yield _binding(bus.outer, DROPPED, "queue", DROPPED, "")
    yield _policy(
        bus.outer,
        DROPPED,
        rf"^{re.escape(DROPPED)}$",
        {"max-length-bytes": settings.dropped_max_bytes},
    )


def _own_users(credentials: Credentials, bus: Bus) -> Iterator[tuple[Key, Body]]:
    passwords = credentials.own_passwords
    sources = _any_of([INTAKE, *CONTROL_EXCHANGES])
    yield _user(RELAY, {"password": passwords[RELAY]})
    yield _permission(RELAY, bus.inner, _NEVER, _any_of([INTAKE, QUARANTINE]), sources)
    yield _permission(RELAY, bus.outer, _NEVER, _any_of([OUTER_EXCHANGE]), _NEVER)
    yield _user(TAIL, {"password": passwords[TAIL]})
    yield _permission(TAIL, bus.outer, r"^amq\.gen.*$", r"^amq\.gen.*$", r"^[a-z0-9].*$")
    for service in SERVICES:
        name = f"stackbus.service.{service.name}"
        exchange = re.escape(service.exchange)
        declared = f"^({exchange}|{_DEFAULT_QUEUES})$"
        yield _user(name, {"password": passwords[name]})
        # Binding the default queues needs write on them and read on the exchange; reading the
        # queues themselves is nobody's.
        yield _permission(name, bus.inner, declared, declared, f"^{exchange}$")


def _topic(
    topic: Topic, enabled: tuple[str, ...] | None, bus: Bus, settings: Settings
) -> Iterator[tuple[Key, Body]]:
    outer = bus.outer
    yield ("exchange", outer, topic.name), _exchange_body("topic")
    for routing_key in filters(topic, enabled):
        yield _binding(outer, OUTER_EXCHANGE, "exchange", topic.name, routing_key)
    arguments: Body = {"x-queue-type": "quorum"} if topic.queue.type == "quorum" else {}
    for priority in PRIORITIES:
        name = queue_name(topic.name, priority)
        yield _queue(outer, name, arguments)
        yield _binding(outer, topic.name, "queue", name, f"{priority}.#")
    limits: dict[str, object] = {
        "message-ttl": (topic.queue.max_age or settings.queue_max_age) * 1000,
        "max-length-bytes": topic.queue.max_bytes or settings.queue_max_bytes,
        "overflow": "drop-head",
        "dead-letter-exchange": DROPPED,
    }
    if topic.queue.type == "quorum":
        limits["delivery-limit"] = _UNLIMITED
    yield _policy(outer, topic.name, _queues(topic.name), limits)


def _consumer(
    name: str, password: Body, topic: Topic, bus: Bus, settings: Settings
) -> Iterator[tuple[Key, Body]]:
    yield _user(
        name,
        {
            **password,
            "limits": {
                "max-connections": settings.max_connections,
                "max-channels": settings.max_channels,
            },
        },
    )
    queues = _queues(topic.name)
    exchange_and_queues = f"^{re.escape(topic.name)}(\\.({'|'.join(PRIORITIES)}))?$"
    if topic.read_only:
        yield _permission(name, bus.outer, _NEVER, _NEVER, queues)
    else:
        # Declaring again needs configure; binding again needs write on the queue (never on the
        # exchange, so nothing can be published) and read on the exchange.
        yield _permission(name, bus.outer, exchange_and_queues, queues, exchange_and_queues)


def _queues(topic: str) -> str:
    return f"^{re.escape(topic)}\\.({'|'.join(PRIORITIES)})$"


def _any_of(names: Iterable[str]) -> str:
    return f"^({'|'.join(re.escape(name) for name in names)})$"


def _exchange_body(kind: str) -> Body:
    return {
        "type": kind,
        "durable": True,
        "auto_delete": False,
        "internal": False,
        "arguments": {},
    }


def _queue(vhost: str, name: str, arguments: Body) -> tuple[Key, Body]:
    return ("queue", vhost, name), {
        "durable": True,
        "auto_delete": False,
        "arguments": dict(arguments),
    }


def _binding(
    vhost: str, source: str, kind: str, destination: str, routing_key: str
) -> tuple[Key, Body]:
    return binding_key(vhost, source, kind, destination, routing_key, {}), {}


def binding_key(
    vhost: str, source: str, kind: str, destination: str, routing_key: str, arguments: Body
) -> Key:
    """Give the key of a binding; its arguments are part of which binding it is."""
    extra = json.dumps(arguments, sort_keys=True) if arguments else ""
    return ("binding", vhost, source, kind, destination, routing_key, extra)


def _policy(
    vhost: str, name: str, pattern: str, definition: Body, priority: int = 0
) -> tuple[Key, Body]:
    return ("policy", vhost, name), {
        "pattern": pattern,
        "apply-to": "queues",
        "priority": priority,
        "definition": dict(definition),
    }


def _user(name: str, body: Body) -> tuple[Key, Body]:
    return ("user", name), {"tags": [TAG], "limits": {}, **body}


def _permission(user: str, vhost: str, configure: str, write: str, read: str) -> tuple[Key, Body]:
    return ("permission", user, vhost), {"configure": configure, "write": write, "read": read}
