"""Reports of a run: a condition for the error that stopped it, an event for each change it made.

The messages go into the resource's status (``conditions.py``) and, by ``PostEvent``, into
Kubernetes' events. They contain no secret: a step of a plan names fields, not values.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from stackbus.errors import (
    BrokerError,
    BrokerUnreachable,
    Conflict,
    InputError,
    InvalidDeployment,
    StackbusError,
    Waiting,
)
from stackbus.expose.apply import Plan
from stackbus.expose.cluster.conditions import BROKER, ENDPOINT, READY, RELAY, Report
from stackbus.expose.credentials import secret_name
from stackbus.expose.secrets import NAMESPACE

PostEvent = Callable[[str, str, str], None]
"""Posts an event of the resource: its type (Normal or Warning), reason and message."""


def report_success(report: Report, refused: Mapping[str, str], *, is_waiting: bool) -> None:
    """Set Ready at the end of a run without errors; ``refused`` has reasons by topic."""
    count = sum(not topic.problem for topic in report.topics or ())
    if is_waiting:
        report.set_condition(READY, "False", "Waiting", report.conditions[ENDPOINT].message)
    elif refused:
        report.set_condition(READY, "False", "SecretConflict", "; ".join(refused.values()))
    elif count:
        report.set_condition(
            READY,
            "True",
            "Exposed",
            f"{count} topics are exposed" if count > 1 else "1 topic is exposed",
        )
    else:
        report.set_condition(READY, "True", "NothingToExpose", "the resource lists no topic")


def report_error(report: Report, error: StackbusError) -> None:
    """Set the conditions that follow from the error that stopped the run."""
    match error:
        case InvalidDeployment():
            reason = "InvalidSpec"
        case BrokerUnreachable():
            reason = "BrokerUnreachable"
            report.set_condition(BROKER, "False", reason, str(error))
            report.set_condition(RELAY, "Unknown", reason, "the broker does not answer")
        case BrokerError():
            reason = "BrokerRefuses"
            report.set_condition(BROKER, "False", reason, str(error))
        case InputError():
            reason = "BrokerSecret"
            report.set_condition(BROKER, "False", reason, str(error))
        case Waiting():
            reason = "Waiting"
        case Conflict():
            reason = "Conflict"
        case _:
            reason = "KubernetesError"
    report.set_condition(READY, "False", reason, str(error))


def list_transitions(
    before: list[Mapping[str, Any]], after: list[dict[str, Any]]
) -> Iterator[tuple[str, str, str]]:
    """Yield an event for each condition that changed its status or its reason."""
    previous = {
        condition["type"]: (condition["status"], condition["reason"]) for condition in before
    }
    for condition in after:
        kind, status, reason = condition["type"], condition["status"], condition["reason"]
        if previous.get(kind) != (status, reason):
            yield (
                "Normal" if status == "True" else "Warning",
                reason if kind == READY else kind + reason,
                condition["message"],
            )


def post_changes(
    plan: Plan, topics: Mapping[str, object], exposed: Mapping[str, object], post_event: PostEvent
) -> None:
    """Post events for topics exposed and removed, and for repaired Secrets and broker items.

    ``exposed`` are the topics before the run, ``topics`` those after it.
    """
    for topic in topics.keys() - exposed.keys():
        post_event(
            "Normal", "TopicExposed", f"topic {topic}: Secret {NAMESPACE}/{secret_name(topic)}"
        )
    for topic in exposed.keys() - topics.keys():
        post_event("Normal", "TopicRemoved", f"topic {topic}: its queues, user and Secret are gone")
    names = {secret_name(topic) for topic in topics.keys() & exposed.keys()}
    for step in plan.secret_steps:
        if step.key[1:2] == (NAMESPACE,) and step.key[2] in names and step.sign != "-":
            cause = f"{step.detail} had changed" if step.sign == "~" else "it was missing"
            post_event("Normal", "SecretWritten", f"Secret {step.key[2]} restored: {cause}")
    drift = [
        f"{step.kind} {step.key[-1]}"
        for part in plan.parts
        if topics.keys() == exposed.keys() and part.actual.ledger.owned
        for step in part.steps
    ]
    if drift:
        shown = ", ".join(drift[:5]) + (f" and {len(drift) - 5} more" if len(drift) > 5 else "")  # noqa: PLR2004 -- what fits a line
        post_event("Normal", "BrokerChanged", f"restored in RabbitMQ: {shown}")
