"""Every metric of stackbus, with its meaning and the remedy when it is high.

``stackbus relay``, ``record`` and ``operator`` serve them over HTTP with ``--metrics``.
``docs/reference/metrics.md`` is generated from this file.
"""

from __future__ import annotations

from prometheus_client import Counter, Gauge, Histogram

RELAYED = Counter(
    "stackbus_relayed_total",
    "Notifications confirmed by the outer bus. Not rising while services work: check that the "
    "relay is active and that the control exchanges are bound to stackbus.intake.",
    ["service"],
)
SCRUBBED = Counter(
    "stackbus_scrubbed_total",
    "Notifications in which at least one value was masked. Rising suddenly: a service began to "
    "send secrets; the header x-stackbus-scrubbed of its notifications has the paths.",
    ["service"],
)
QUARANTINED = Counter(
    "stackbus_quarantined_total",
    "Bodies that could not be read and are now in the queue stackbus.quarantine. Above 0: look at "
    "their header x-stackbus-reason, and find the service that sends them.",
)
RECONNECTS = Counter(
    "stackbus_relay_reconnects_total",
    "Times the relay lost a connection and started again. Rising often: the relay's log has the "
    "reason.",
)
IN_FLIGHT = Gauge(
    "stackbus_relay_in_flight",
    "Notifications published and not yet confirmed. At the prefetch for minutes: the outer bus is "
    "slow, or blocked by a memory or disk alarm.",
)

RECEIVED = Counter(
    "stackbus_record_told_total",
    "Notifications received over a channel, counted before they are read: service is empty if the "
    "channel does not name it. Not rising while services work: check that the relay is active and "
    "whether the topic has a filter. Rising faster than stored, doubled and quarantined together "
    "(sums by channel): the history is away or slower than the channel; the recorder's log has "
    "stream.sink_unavailable or stream.source_lost.",
    ["service", "channel"],
)
STORED = Counter(
    "stackbus_record_stored_total",
    "Notifications written to the history. Not rising while told rises: look at doubled and "
    "quarantined; if these do not rise either, the history is away.",
    ["service", "channel"],
)
DOUBLED = Counter(
    "stackbus_record_doubled_total",
    "Notifications that the history had already. Rising suddenly: the recorder or the bus was "
    "restarted. On a second channel this is normal.",
    ["service", "channel"],
)
RECORD_QUARANTINED = Counter(
    "stackbus_record_quarantined_total",
    "Bodies that could not be read and are now in the history's quarantine. Above 0: "
    "`stackbus quarantine` lists them with the reason.",
    ["channel"],
)
UNKNOWN = Counter(
    "stackbus_record_unknown_total",
    "Notifications of an event type that stackbus does not know: stored whole, without a resource "
    "type. Rising: a service was upgraded; please report the event type.",
    ["service"],
)
RECORD_LAG = Gauge(
    "stackbus_record_lag_seconds",
    "Seconds from the timestamp of a notification to its insert, for the newest one of the last "
    "batch. Rising: a backlog is being processed, or more arrives than the history can store.",
    ["channel"],
)
BATCH = Histogram(
    "stackbus_record_batch_notifications",
    "Notifications in one insert. Always the setting record_batch: a backlog is being processed.",
    buckets=(1, 10, 100, 1000, 5000, 10000),
)
INSERT_SECONDS = Histogram(
    "stackbus_record_insert_seconds",
    "Seconds of one insert. High: the history's disk is slow or full, or many parts wait for a "
    "merge.",
    buckets=(0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30),
)

RECONCILES = Counter(
    "stackbus_reconciles_total",
    "Runs of the operator over the resource, by result: done, later (it will retry), never (the "
    "resource must be changed). later rising for minutes: the conditions of the resource "
    "(`kubectl describe`) have the reason.",
    ["result"],
)
RECONCILE_SECONDS = Histogram(
    "stackbus_reconcile_seconds",
    "Seconds of one run. High: RabbitMQ's management API is slow, or many topics are new.",
    buckets=(0.1, 0.3, 1, 3, 10, 30, 100),
)
FAILURES = Counter(
    "stackbus_reconcile_failures_total",
    "Runs that failed, by error. BrokerUnreachable: check RabbitMQ. Conflict: an object of that "
    "name does not belong to stackbus. KubernetesError: compare the roles with deploy/.",
    ["error"],
)
CHANGES = Counter(
    "stackbus_changes_total",
    "Objects created (+), changed (~) and deleted (-) in RabbitMQ and among the Secrets. Rising "
    "while nobody edits the resource: somebody else changes the objects that stackbus created.",
    ["kind", "sign"],
)
TOPICS = Gauge(
    "stackbus_topics",
    "Topics that are exposed. Fewer than the resource lists: its status has the reason.",
)
CERTIFICATE_EXPIRES = Gauge(
    "stackbus_certificate_expires_timestamp_seconds",
    "Unix time at which a topic's client certificate expires. Nearer than the setting renew_days: "
    "the operator should have renewed it; check that it is running.",
    ["topic"],
)
BROKER_REACHABLE = Gauge(
    "stackbus_broker_reachable",
    "1 while RabbitMQ's management API answers the operator. 0: check RabbitMQ, the NetworkPolicy "
    "and the broker's Secret.",
)
RELAY_ACTIVE = Gauge(
    "stackbus_relay_active",
    "1 while a relay consumes from the inner bus. 0: consumers receive nothing; check the "
    "Deployment stackbus-relay.",
)
RELAY_BEHIND = Gauge(
    "stackbus_relay_behind",
    "Notifications that waited for the relay at the operator's last look. Rising: the outer bus is "
    "slow, or no relay is running.",
)

ALL = (
    RELAYED,
    SCRUBBED,
    QUARANTINED,
    RECONNECTS,
    IN_FLIGHT,
    RECEIVED,
    STORED,
    DOUBLED,
    RECORD_QUARANTINED,
    UNKNOWN,
    RECORD_LAG,
    BATCH,
    INSERT_SECONDS,
    RECONCILES,
    RECONCILE_SECONDS,
    FAILURES,
    CHANGES,
    TOPICS,
    CERTIFICATE_EXPIRES,
    BROKER_REACHABLE,
    RELAY_ACTIVE,
    RELAY_BEHIND,
)
