"""Rotation by annotation: pure.

Called by ``reconcile.py``. The administrator writes ``stackbus.io/rotate``: topics with commas
between, each with ``:GRACE`` if 24 hours are not right, or ``*`` for all. The wish is turned, in
one write, into ``stackbus.io/rotating``: the generation that each topic is to reach. So whoever is
stopped anywhere and begins again rotates once, not twice.
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

_WISH = re.compile(r"\s*(\*|[^\s:,*]+)\s*(?::\s*([^\s:,*]+)\s*)?")


@dataclass(frozen=True, slots=True)
class Target:
    """The generation that a topic is to reach, and how long the one before still works."""

    topic: str
    generation: int
    grace: timedelta


def targets(wish: str, exposed: Mapping[str, Generations]) -> tuple[Target, ...]:
    """Read what the administrator wrote. ``exposed``: the topics and their generations.

    Raises InputError that names the value and the mend.
    """
    found: dict[str, Target] = {}
    for word in wish.split(","):
        match = _WISH.fullmatch(word)
        try:
            grace = parse_duration(match[2]) if match and match[2] else None
        except ValueError:
            match = None
        if match is None:
            raise InputError(
                f"{ROTATE}: {word[:80]!r}: a topic, or a topic and a grace time (siem:24h; "
                "siem:0s ends the old credentials at once), or * for all topics was expected"
            )
        if match[1] != "*" and match[1] not in exposed:
            near = difflib.get_close_matches(match[1], list(exposed), 1)
            mend = (
                f"did you mean {near[0]!r}?" if near else f"exposed: {', '.join(exposed) or 'none'}"
            )
            raise InputError(f"{ROTATE}: {match[1]!r}: no such topic; {mend}")
        for topic in exposed if match[1] == "*" else (match[1],):
            reached = exposed[topic].current + 1
            found[topic] = Target(topic, reached, DEFAULT_GRACE if grace is None else grace)
    return tuple(found.values())


def written(wanted: tuple[Target, ...]) -> str:
    """Write targets down for the annotation."""
    return json.dumps(
        {one.topic: [one.generation, int(one.grace.total_seconds())] for one in wanted}
    )


def read(text: str) -> tuple[Target, ...]:
    """Read what ``written`` wrote; what somebody made of it since counts as nothing."""
    try:
        return tuple(
            Target(str(topic), int(generation), timedelta(seconds=int(grace)))
            for topic, (generation, grace) in json.loads(text).items()
        )
    except (ValueError, TypeError, AttributeError, OverflowError):
        return ()
