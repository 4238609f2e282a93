"""Every metric of stackbus, in one list: what it counts and what to do when it is high.

Counted by the rooms, served over HTTP by ``stackbus relay --metrics``;
``docs/reference/metrics.md`` is generated from this file.
"""

from __future__ import annotations

from prometheus_client import Counter, Gauge

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

ALL = (RELAYED, SCRUBBED, QUARANTINED, RECONNECTS, IN_FLIGHT)
