"""The status of topics and relay: queues, backlog, consumers, dropped notifications, certificates.

``topics`` and ``relay`` ask the broker and the Secrets, and change nothing. ``stackbus topics``,
``stackbus status`` and the operator show the result.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from stackbus.bus.names import (
    DROPPED,
    INTAKE,
    LEDGER_PARAMETER,
    PRIORITIES,
    QUARANTINE,
    queue_name,
)
from stackbus.expose import certificates
from stackbus.expose.changes import Ledger
from stackbus.expose.credentials import secret_name
from stackbus.expose.secrets import NAMESPACE, SecretStore

_MAX_DROPPED = 10_000
"""Dropped notifications that are counted at most; where there are more, counts are minimums."""


class StatusApi(Protocol):
    """The management API, as status uses it; ``clients/management.py`` is the real one."""

    def global_parameter(self, name: str) -> Mapping[str, object] | None:
        """Return the value of a global parameter."""

    def queues(self, vhost: str) -> list[dict[str, object]]:
        """Return a vhost's queues with their counts."""

    def queue(self, vhost: str, name: str) -> dict[str, object] | None:
        """Return one queue with its counts and its consumers, None if it does not exist."""

    def peek(self, vhost: str, queue: str, count: int) -> list[dict[str, object]]:
        """Return messages of a queue without consuming them."""


@dataclass(frozen=True, slots=True)
class QueueStatus:
    """One queue of a topic."""

    name: str
    messages: int
    consumers: int


@dataclass(frozen=True, slots=True)
class TopicStatus:
    """One topic. ``dropped``: notifications that its queues dropped, by age or by size.

    ``retiring``: when the grace time of each older generation ends.
    """

    name: str
    secret: str
    username: str
    queues: tuple[QueueStatus, ...]
    dropped: int
    certificate_expires: datetime | None
    retiring: Mapping[str, datetime]

    @property
    def backlog(self) -> int:
        """Return the messages in all its queues."""
        return sum(queue.messages for queue in self.queues)

    @property
    def consumers(self) -> int:
        """Return the consumers of all its queues."""
        return sum(queue.consumers for queue in self.queues)

    def to_json(self) -> dict[str, object]:
        """Return the topic as ``stackbus topics -o json`` shows it."""
        expires = self.certificate_expires
        return {
            "topic": self.name,
            "secret": self.secret,
            "username": self.username,
            "backlog": self.backlog,
            "consumers": self.consumers,
            "dropped": self.dropped,
            "certificate_expires": expires.isoformat() if expires else None,
            "retiring": {name: until.isoformat() for name, until in self.retiring.items()},
            "queues": [
                {"name": queue.name, "messages": queue.messages, "consumers": queue.consumers}
                for queue in self.queues
            ],
        }


@dataclass(frozen=True, slots=True)
class RelayStatus:
    """The relay as the broker sees it. ``state``: ``active`` or ``absent``; ``standby``: others."""

    state: str
    standby: int
    backlog: int
    quarantined: int

    def to_json(self) -> dict[str, object]:
        """Return the relay as ``status -o json`` prints it."""
        return {
            "state": self.state,
            "standby": self.standby,
            "backlog": self.backlog,
            "quarantined": self.quarantined,
        }


@dataclass(frozen=True, slots=True)
class BusStatus:
    """The bus as a whole. ``location``: addresses, ports and vhosts of the broker, by name."""

    rabbitmq_version: str
    location: Mapping[str, object]
    relay: RelayStatus
    is_recorded: bool
    topics: tuple[str, ...]

    def to_json(self) -> dict[str, object]:
        """Return the status as ``status -o json`` prints it."""
        return {
            "state": "up",
            "rabbitmq_version": self.rabbitmq_version,
            **self.location,
            "relay": self.relay.to_json(),
            "recorded": self.is_recorded,
            "topics": list(self.topics),
        }


def topics(broker: StatusApi, store: SecretStore, outer_vhost: str) -> tuple[TopicStatus, ...]:
    """Return the status of each topic, ordered by name."""
    ledger = Ledger.from_json(broker.global_parameter(LEDGER_PARAMETER))
    queues = {str(queue["name"]): queue for queue in broker.queues(outer_vhost)}
    dropped = _count_dropped(broker, outer_vhost, queues.get(DROPPED, {}))
    statuses = []
    for name, generations in sorted(ledger.topics.items()):
        secret = store.read(NAMESPACE, secret_name(name))
        data = secret.data if secret else {}
        present = [
            queues[queue_name(name, priority)]
            for priority in PRIORITIES
            if queue_name(name, priority) in queues
        ]
        statuses.append(
            TopicStatus(
                name,
                secret_name(name),
                data.get("username", ""),
                tuple(
                    QueueStatus(
                        str(queue["name"]), _count(queue, "messages"), _count(queue, "consumers")
                    )
                    for queue in present
                ),
                sum(dropped[str(queue["name"])] for queue in present),
                _expiry(data.get("client_cert", "")),
                {str(old.generation): old.until for old in generations.retiring},
            )
        )
    return tuple(statuses)


def relay(broker: StatusApi, inner_vhost: str) -> RelayStatus:
    """Return whether a relay consumes the intake, how many stand by, and its backlog."""
    intake = broker.queue(inner_vhost, INTAKE) or {}
    details = intake.get("consumer_details")
    consumers = len(details) if isinstance(details, list) else 0
    return RelayStatus(
        state="active" if consumers else "absent",
        standby=max(0, consumers - 1),
        backlog=_count(intake, "messages"),
        quarantined=_count(broker.queue(inner_vhost, QUARANTINE) or {}, "messages"),
    )


def wait_for_relay(broker: StatusApi, inner_vhost: str, pause: Callable[[], bool]) -> bool:
    """Wait until a relay consumes. ``pause`` waits a moment and returns whether to go on."""
    while relay(broker, inner_vhost).state != "active":
        if not pause():
            return False
    return True


def _count_dropped(broker: StatusApi, vhost: str, queue: Mapping[str, object]) -> Counter[str]:
    """Return the dropped notifications by the queue that dropped them (RabbitMQ's x-death)."""
    count = min(_count(queue, "messages"), _MAX_DROPPED)
    dropped: Counter[str] = Counter()
    for message in broker.peek(vhost, DROPPED, count) if count else ():
        properties = message.get("properties")
        headers = properties.get("headers") if isinstance(properties, dict) else None
        if isinstance(headers, dict):
            dropped[str(headers.get("x-first-death-queue"))] += 1
    return dropped


def _count(queue: Mapping[str, object], name: str) -> int:
    value = queue.get(name)
    return value if isinstance(value, int) else 0


def _expiry(certificate: str) -> datetime | None:
    try:
        return certificates.expires(certificate)
    except ValueError:
        return None
