"""What the resource's status says: pure.

Called by ``reconcile.py``, which fills a Report while it works; ``Report.to_status`` is what is
written. A condition is a word for machines and a sentence for people, which says what to do.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from stackbus.expose.status import RelayStatus

READY, BROKER, ENDPOINT, RELAY, ROTATED = (
    "Ready",
    "BrokerReachable",
    "EndpointReady",
    "RelayActive",
    "Rotated",
)
_MOST_MESSAGE = 4000
"""Characters of a sentence; Kubernetes allows 32768."""


@dataclass(frozen=True, slots=True)
class Condition:
    """One condition; ``status`` is True, False or Unknown, in Kubernetes' spelling."""

    status: str
    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class TopicReport:
    """One topic, as the status tells it; ``problem`` says why it is not exposed."""

    name: str
    secret: str
    queues: tuple[str, ...] = ()
    certificate_expires: datetime | None = None
    rotated_at: datetime | None = None
    problem: str = ""


@dataclass(slots=True)
class Report:
    """What one run has found, so far."""

    conditions: dict[str, Condition] = field(default_factory=dict)
    topics: tuple[TopicReport, ...] | None = None
    hosts: tuple[str, ...] = ()
    relay: RelayStatus | None = None

    def say(self, kind: str, status: str, reason: str, message: str) -> None:
        """Set a condition."""
        self.conditions[kind] = Condition(status, reason, message[:_MOST_MESSAGE])

    def to_status(
        self, before: Mapping[str, Any], generation: int, now: datetime
    ) -> dict[str, Any]:
        """Give the status to write; what was not looked at stays as it was ``before``."""
        status: dict[str, Any] = {
            "observedGeneration": generation,
            "conditions": _conditions(self.conditions, before.get("conditions") or [], now),
        }
        topics = (
            before.get("topics") if self.topics is None else [_topic(one) for one in self.topics]
        )
        status["topics"] = topics or []
        status["exposedTopics"] = sum("problem" not in one for one in status["topics"])
        hosts = list(self.hosts) or (before.get("endpoint") or {}).get("hosts")
        if hosts:
            status["endpoint"] = {"hosts": hosts}
        if self.relay is not None:
            status["relay"] = {
                "state": self.relay.state,
                "standby": self.relay.standby,
                "behind": self.relay.backlog,
                "quarantined": self.relay.quarantined,
            }
        elif before.get("relay"):
            status["relay"] = before["relay"]
        return status


def was_refused(status: Mapping[str, Any]) -> bool:
    """Tell whether the last rotation that was asked for made no sense."""
    return any(
        one["type"] == ROTATED and one["status"] == "False"
        for one in status.get("conditions") or []
    )


def _conditions(
    found: Mapping[str, Condition], before: list[Mapping[str, Any]], now: datetime
) -> list[dict[str, Any]]:
    known = {one["type"]: one for one in before}
    result = []
    for kind in (READY, BROKER, ENDPOINT, RELAY, ROTATED):
        if kind not in found:
            if kind in known:
                result.append(dict(known[kind]))
            continue
        condition, last = found[kind], known.get(kind, {})
        since = last.get("lastTransitionTime") if last.get("status") == condition.status else None
        result.append(
            {
                "type": kind,
                "status": condition.status,
                "reason": condition.reason,
                "message": condition.message,
                "lastTransitionTime": since or _time(now),
            }
        )
    return result


def _topic(topic: TopicReport) -> dict[str, Any]:
    value: dict[str, Any] = {
        "name": topic.name,
        "secret": topic.secret,
        "queues": list(topic.queues),
    }
    if topic.certificate_expires is not None:
        value["certificateExpires"] = _time(topic.certificate_expires)
    if topic.rotated_at is not None:
        value["lastRotation"] = _time(topic.rotated_at)
    if topic.problem:
        value["problem"] = topic.problem
    return value


def _time(moment: datetime) -> str:
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
