"""Every metric of stackbus, in one list: what it counts and what to do when it is high.

Counted by the rooms, served over HTTP by ``--metrics`` of ``stackbus relay``, ``record`` and
``operator``; ``docs/reference/metrics.md`` is generated from this file.
"""

from __future__ import annotations

from prometheus_client import Counter, Gauge, Histogram

RELAYED = Counter(
    "stackbus_relayed_total",
    "Notifications confirmed by the outer bus. Flat while services work: is the relay active, "
    "are the control exchanges bound to stackbus.intake?",
    ["service"],
)
SCRUBBED = Counter(
    "stackbus_scrubbed_total",
    "Notifications from which at least one value was removed. A jump: a service began to send "
    "secrets; the header x-stackbus-scrubbed of its notifications says where.",
    ["service"],
)
QUARANTINED = Counter(
    "stackbus_quarantined_total",
    "Bodies that could not be read, now in stackbus.quarantine. Anything above 0: look at their "
    "header x-stackbus-reason; a service sends what is no notification.",
)
RECONNECTS = Counter(
    "stackbus_relay_reconnects_total",
    "Times the relay lost a bus and began anew. High: read the relay's log for the reason.",
)
IN_FLIGHT = Gauge(
    "stackbus_relay_in_flight",
    "Notifications published and not yet confirmed. At the prefetch for minutes: the outer bus "
    "is slow or blocked (memory or disk alarm).",
)

RECEIVED = Counter(
    "stackbus_record_told_total",
    "Notifications received over a channel, counted before they are read: service is empty where "
    "the channel does not name it. Flat while services work: is the relay active, has the topic a "
    "filter? Rising faster than stored, doubled and quarantined together (sums by channel): the "
    "history is slower than the channel or away, or the connection breaks before notifications "
    "are stored and they come again; the log has stream.sink_unavailable or stream.source_lost.",
    ["service", "channel"],
)
STORED = Counter(
    "stackbus_record_stored_total",
    "Notifications written to the history. Flat while told rises: see doubled and quarantined; if "
    "these are flat too, the history is away.",
    ["service", "channel"],
)
DOUBLED = Counter(
    "stackbus_record_doubled_total",
    "Notifications that the history had already. A jump: the recorder or the bus was restarted; "
    "over a second channel it is as it should be.",
    ["service", "channel"],
)
RECORD_QUARANTINED = Counter(
    "stackbus_record_quarantined_total",
    "Bodies that could not be read, kept in the history's quarantine. Anything above 0: "
    "`stackbus quarantine` says why.",
    ["channel"],
)
UNKNOWN = Counter(
    "stackbus_record_unknown_total",
    "Notifications of a type that stackbus does not know: kept whole, found by no resource. "
    "Rising: a service was upgraded; tell us which type.",
    ["service"],
)
RECORD_LAG = Gauge(
    "stackbus_record_lag_seconds",
    "Seconds from a notification's timestamp to its insert, of the last batch's newest. Growing: "
    "a backlog is worked off, or more comes than the history takes.",
    ["channel"],
)
BATCH = Histogram(
    "stackbus_record_batch_notifications",
    "Notifications inserted at once. Always the setting record_batch: a backlog is worked off.",
    buckets=(1, 10, 100, 1000, 5000, 10000),
)
INSERT_SECONDS = Histogram(
    "stackbus_record_insert_seconds",
    "Seconds of one insert. Long: the history's disk is slow or full, or many parts wait to be "
    "merged.",
    buckets=(0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30),
)

RECONCILES = Counter(
    "stackbus_reconciles_total",
    "Runs of the operator over the resource, by result: done, later (it will try again), never "
    "(the resource must change). later rising for minutes: `kubectl describe` the resource, its "
    "conditions say what is missing.",
    ["result"],
)
RECONCILE_SECONDS = Histogram(
    "stackbus_reconcile_seconds",
    "Seconds of one run. Long: RabbitMQ's management API is slow, or many topics are new.",
    buckets=(0.1, 0.3, 1, 3, 10, 30, 100),
)
FAILURES = Counter(
    "stackbus_reconcile_failures_total",
    "Runs that something stopped, by what it was. BrokerUnreachable: is RabbitMQ up? Conflict: "
    "something of that name is not stackbus'. KubernetesError: compare the roles in deploy/.",
    ["error"],
)
CHANGES = Counter(
    "stackbus_changes_total",
    "Things made (+), changed (~) and removed (-) in RabbitMQ and among the Secrets. Rising while "
    "nobody changes the resource: somebody else changes what stackbus made.",
    ["kind", "sign"],
)
TOPICS = Gauge("stackbus_topics", "Topics that are exposed. Lower than asked for: see the status.")
CERTIFICATE_EXPIRES = Gauge(
    "stackbus_certificate_expires_timestamp_seconds",
    "When a topic's client certificate ends, as a Unix time. Less than the setting renew_days "
    "away: the operator should have renewed it; is it running?",
    ["topic"],
)
BROKER_REACHABLE = Gauge(
    "stackbus_broker_reachable",
    "1 while RabbitMQ's management API answers the operator. 0: look at RabbitMQ, at the "
    "NetworkPolicy, at the broker's Secret.",
)
RELAY_ACTIVE = Gauge(
    "stackbus_relay_active",
    "1 while a relay takes from the inner bus. 0: nothing reaches the consumers; look at the "
    "Deployment stackbus-relay.",
)
RELAY_BEHIND = Gauge(
    "stackbus_relay_behind",
    "Notifications that wait for the relay, when the operator last looked. Growing: the outer bus "
    "is slow, or there is no relay.",
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
