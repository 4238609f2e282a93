"""The status of the resource: conditions, topics, endpoint and relay. Pure.

``reconcile.py`` fills a ``Report`` while it works and writes ``Report.to_status`` to the resource.
A condition has a reason for machines and a message for people, which says what to do.
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
_MAX_MESSAGE = 4000
"""Characters of a message; Kubernetes allows 32768."""


@dataclass(frozen=True, slots=True)
class Condition:
    """One condition; ``status`` is True, False or Unknown, in Kubernetes' spelling."""

    status: str
    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class TopicReport:
    """One topic in the status; ``problem`` is the reason why it is not exposed."""

    name: str
    secret: str
    queues: tuple[str, ...] = ()
    certificate_expires: datetime | None = None
    rotated_at: datetime | None = None
    problem: str = ""


@dataclass(slots=True)
class Report:
    """The results of one run so far."""

    conditions: dict[str, Condition] = field(default_factory=dict)
    topics: tuple[TopicReport, ...] | None = None
    hosts: tuple[str, ...] = ()
    relay: RelayStatus | None = None

    def set_condition(self, kind: str, status: str, reason: str, message: str) -> None:
        """Set a condition."""
        self.conditions[kind] = Condition(status, reason, message[:_MAX_MESSAGE])

    def to_status(
        self, before: Mapping[str, Any], generation: int, now: datetime
    ) -> dict[str, Any]:
        """Return the status to write; parts that the run did not reach stay as ``before``."""
        status: dict[str, Any] = {
            "observedGeneration": generation,
            "conditions": _conditions(self.conditions, before.get("conditions") or [], now),
        }
        topics = (
            before.get("topics")
            if self.topics is None
            else [_topic(topic) for topic in self.topics]
        )
        status["topics"] = topics or []
        status["exposedTopics"] = sum("problem" not in topic for topic in status["topics"])
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


def rotation_was_refused(status: Mapping[str, Any]) -> bool:
    """Return whether the last rotation request was invalid."""
    return any(
        condition["type"] == ROTATED and condition["status"] == "False"
        for condition in status.get("conditions") or []
    )


def _conditions(
    conditions: Mapping[str, Condition], before: list[Mapping[str, Any]], now: datetime
) -> list[dict[str, Any]]:
    previous = {condition["type"]: condition for condition in before}
    result = []
    for kind in (READY, BROKER, ENDPOINT, RELAY, ROTATED):
        if kind not in conditions:
            if kind in previous:
                result.append(dict(previous[kind]))
            continue
        condition, last = conditions[kind], previous.get(kind, {})
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
