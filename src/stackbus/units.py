"""Durations ("24h") and sizes ("1GiB"): their text forms, once. Pure.

Used by the command line, the deployment and the operator's annotations. The patterns also stand
in the CustomResourceDefinition.
"""

from __future__ import annotations

import re
from datetime import timedelta

SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}
"""Seconds in each unit of time."""

WHOLE_DURATION = re.compile(r"([0-9]{1,9})(s|m|h|d|w)")
DURATION = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,6})?)(s|m|h|d|w)")
SIZE = re.compile(r"([0-9]{1,15})(B|[kKMGT]B|[KMGT]iB)")


def parse_duration(text: str) -> timedelta:
    """Read ``30s``, ``1.5h`` or ``7d``. Raises ValueError that names the expected form."""
    match = DURATION.fullmatch(text)
    if match is None:
        raise ValueError(
            f"{text!r} is not a duration: give a number and a unit, such as 30s, 10m, 24h or 7d"
        )
    try:
        return timedelta(seconds=float(match[1]) * SECONDS[match[2]])
    except OverflowError:
        raise ValueError(f"{text!r} is too long a duration") from None


def parse_size(text: str) -> int:
    """Read ``512MiB`` or ``2GB`` as bytes. Raises ValueError that names the expected form."""
    match = SIZE.fullmatch(text)
    if match is None:
        raise ValueError(
            f"{text!r} is not a size: give a number and a unit, such as 512MiB, 1GiB or 2GB"
        )
    base = 1024 if "i" in match[2] else 1000
    power: int = "BKMGT".index(match[2][0].upper())
    size: int = int(match[1]) * base**power
    return size
