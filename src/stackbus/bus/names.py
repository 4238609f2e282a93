"""Every name on the bus, once. Pure.

``expose/topology.py`` creates the named items in RabbitMQ, ``relay/relay.py`` publishes to it,
and ``expose/status.py``, ``expose/tail.py`` and the recorder read it.

    inner vhost: control exchanges -> INTAKE -> relay; unreadable bodies -> QUARANTINE
    outer vhost: OUTER_EXCHANGE -> JOURNAL, and -> exchange of a topic -> queue of each priority;
                 notifications that a queue drops -> DROPPED
"""

from __future__ import annotations

import hashlib

from stackbus.services import SERVICES
from stackbus.services.service import SHARED_EXCHANGE

PRIORITIES = ("audit", "critical", "debug", "error", "info", "sample", "warn")
"""oslo.messaging's seven, in routing keys and queue names (oslo_messaging/notify/notifier.py)."""

NOTIFICATION_TOPICS = ("notifications", "versioned_notifications", "ironic_versioned_notifications")
"""oslo topics of the ten services: the first word of the routing keys on a control exchange."""

CONTROL_EXCHANGES = (*(service.exchange for service in SERVICES), SHARED_EXCHANGE)
"""The exchanges on which the services publish: their own, and the one that some share."""

# Inner vhost
INTAKE = "stackbus.intake"
"""Queue of the relay: bound to every control exchange, with one active consumer."""

QUARANTINE = "stackbus.quarantine"
"""Exchange and queue of bodies that the relay cannot read."""

# Outer vhost
OUTER_EXCHANGE = "stackbus"
"""Exchange to which the relay publishes every notification."""

JOURNAL = "stackbus.journal"
"""Stream of every relayed notification; also the name of its policy."""

DROPPED = "stackbus.dropped"
"""Exchange and queue of what topic queues dropped by age or size; also the name of its policy."""

RECORD_TOPIC = "stackbus.record"
"""Topic of the recorder beside the private broker; a deployment cannot list it."""

# Policies of the inner vhost
OWN_QUEUES_POLICY = "stackbus.own"
DEFAULT_QUEUES_POLICY = "stackbus.default-queues"

# Users
RELAY_USER = "stackbus.relay"
TAIL_USER = "stackbus.tail"


def service_user(service: str) -> str:
    """Return the user with which an OpenStack service publishes."""
    return f"stackbus.service.{service}"


OWN_USERS = (RELAY_USER, TAIL_USER, *(service_user(service.name) for service in SERVICES))
"""The users that are not consumers: the relay, ``stackbus tail``, and one for each service."""

# How RabbitMQ remembers what stackbus owns
USER_TAG = "stackbus"
LEDGER_PARAMETER = "stackbus"
"""Global parameter with the names that stackbus owns and each topic's generations."""

MAX_USERNAME = 64
"""Characters of a certificate's CN at most (X.520, ub-common-name); the CN is the user's name."""


def queue_name(topic: str, priority: str) -> str:
    """Return the name of a topic's queue for one priority."""
    return f"{topic}.{priority}"


def consumer_user(topic: str, generation: int) -> str:
    """Return the name of a topic's user in one generation of its credentials.

    A topic whose name does not fit a certificate's CN is cut, and made unique by its SHA-256.
    """
    name = f"{topic}.g{generation}"
    if len(name) <= MAX_USERNAME:
        return name
    suffix = f"-{hashlib.sha256(topic.encode()).hexdigest()[:16]}.g{generation}"
    return topic[: MAX_USERNAME - len(suffix)] + suffix
