"""What people are told of a run: conditions for what stopped it, events for what it did.

Called by ``reconcile.py``; the sentences go to the resource's status and, by ``Tell``, to
Kubernetes' events. No secret is in any of them: a step of a plan names fields, not values.
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
from stackbus.expose.cluster.status import BROKER, ENDPOINT, READY, RELAY, Report
from stackbus.expose.credentials import secret_name
from stackbus.expose.secrets import NAMESPACE

Tell = Callable[[str, str, str], None]
"""Tells people of something: Normal or Warning, a word, a sentence."""


def say_ready(report: Report, refused: Mapping[str, str], *, waits: bool) -> None:
    """Say how a run that nothing stopped has ended; ``refused``: topics, and why they are not."""
    count = sum(not topic.problem for topic in report.topics or ())
    if waits:
        report.say(READY, "False", "Waiting", report.conditions[ENDPOINT].message)
    elif refused:
        report.say(READY, "False", "SecretConflict", "; ".join(refused.values()))
    elif count:
        report.say(
            READY,
            "True",
            "Exposed",
            f"{count} topics are exposed" if count > 1 else "1 topic is exposed",
        )
    else:
        report.say(READY, "True", "NothingToExpose", "no topic is asked for")


def blame(error: StackbusError, report: Report) -> None:
    """Say in the conditions what stopped the run."""
    match error:
        case InvalidDeployment():
            reason = "InvalidSpec"
        case BrokerUnreachable():
            reason = "BrokerUnreachable"
            report.say(BROKER, "False", reason, str(error))
            report.say(RELAY, "Unknown", reason, "the broker does not answer")
        case BrokerError():
            reason = "BrokerRefuses"
            report.say(BROKER, "False", reason, str(error))
        case InputError():
            reason = "BrokerSecret"
            report.say(BROKER, "False", reason, str(error))
        case Waiting():
            reason = "Waiting"
        case Conflict():
            reason = "Conflict"
        case _:
            reason = "KubernetesError"
    report.say(READY, "False", reason, str(error))


def turned(
    before: list[Mapping[str, Any]], after: list[dict[str, Any]]
) -> Iterator[tuple[str, str, str]]:
    """Give an event for each condition that changed its status or its reason."""
    known = {one["type"]: (one["status"], one["reason"]) for one in before}
    for one in after:
        if known.get(one["type"]) != (one["status"], one["reason"]):
            kind = "Normal" if one["status"] == "True" else "Warning"
            reason = one["reason"] if one["type"] == READY else one["type"] + one["reason"]
            yield kind, reason, one["message"]


def tell_changes(
    plan: Plan, wanted: Mapping[str, object], known: Mapping[str, object], tell: Tell
) -> None:
    """Tell which topics came and went, and which Secrets had to be written again."""
    for topic in wanted.keys() - known.keys():
        tell("Normal", "TopicExposed", f"topic {topic}: Secret {NAMESPACE}/{secret_name(topic)}")
    for topic in known.keys() - wanted.keys():
        tell("Normal", "TopicRemoved", f"topic {topic}: its queues, user and Secret are gone")
    names = {secret_name(topic) for topic in wanted.keys() & known.keys()}
    for step in plan.secret_steps:
        if step.key[1:2] == (NAMESPACE,) and step.key[2] in names and step.sign != "-":
            what = f"{step.detail} had changed" if step.sign == "~" else "it was gone"
            tell("Normal", "SecretWritten", f"Secret {step.key[2]} written again: {what}")
    drift = [
        f"{step.kind} {step.key[-1]}"
        for part in plan.parts
        if wanted.keys() == known.keys() and part.actual.ledger.owned
        for step in part.steps
    ]
    if drift:
        shown = ", ".join(drift[:5]) + (f" and {len(drift) - 5} more" if len(drift) > 5 else "")  # noqa: PLR2004 -- what fits a line
        tell("Normal", "BrokerChanged", f"made as it should be in RabbitMQ: {shown}")
