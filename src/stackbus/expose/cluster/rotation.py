"""Rotation requested by an annotation. Pure.

The administrator sets ``stackbus.io/rotate``: topics separated by commas, each with ``:GRACE`` for
a grace time other than 24 hours, or ``*`` for all. ``reconcile.py`` replaces it, in one write, by
``stackbus.io/rotating``: the generation that each topic shall reach. So a rotation that is
interrupted and resumed happens once.
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta

from stackbus.errors import InputError
from stackbus.expose.credentials import Generations
from stackbus.units import parse_duration

ROTATE = "stackbus.io/rotate"
ROTATING = "stackbus.io/rotating"
DEFAULT_GRACE = timedelta(hours=24)

_REQUEST = re.compile(r"\s*(\*|[^\s:,*]+)\s*(?::\s*([^\s:,*]+)\s*)?")


@dataclass(frozen=True, slots=True)
class Target:
    """The generation that a topic shall reach; the one before works for the grace time."""

    topic: str
    generation: int
    grace: timedelta


def parse_request(text: str, exposed: Mapping[str, Generations]) -> tuple[Target, ...]:
    """Return the targets of the annotation ``ROTATE``; ``exposed`` has generations by topic.

    Raises InputError that names the value and the remedy.
    """
    targets: dict[str, Target] = {}
    for word in text.split(","):
        match = _REQUEST.fullmatch(word)
        try:
            grace = parse_duration(match[2]) if match and match[2] else None
        except ValueError:
            match = None
        if match is None:
            raise InputError(
                f"{ROTATE}: {word[:80]!r}: expected a topic, a topic and a grace time (siem:24h; "
                "siem:0s ends the old credentials at once), or * for all topics"
            )
        if match[1] != "*" and match[1] not in exposed:
            near = difflib.get_close_matches(match[1], list(exposed), 1)
            remedy = (
                f"did you mean {near[0]!r}?" if near else f"exposed: {', '.join(exposed) or 'none'}"
            )
            raise InputError(f"{ROTATE}: {match[1]!r}: no such topic; {remedy}")
        for topic in exposed if match[1] == "*" else (match[1],):
            generation = exposed[topic].current + 1
            targets[topic] = Target(topic, generation, DEFAULT_GRACE if grace is None else grace)
    return tuple(targets.values())


def encode_targets(targets: tuple[Target, ...]) -> str:
    """Return the value of the annotation ``ROTATING``."""
    return json.dumps(
        {target.topic: [target.generation, int(target.grace.total_seconds())] for target in targets}
    )


def decode_targets(text: str) -> tuple[Target, ...]:
    """Return the targets in the annotation ``ROTATING``; none if somebody damaged it."""
    try:
        return tuple(
            Target(str(topic), int(generation), timedelta(seconds=int(grace)))
            for topic, (generation, grace) in json.loads(text).items()
        )
    except (ValueError, TypeError, AttributeError, OverflowError):
        return ()
