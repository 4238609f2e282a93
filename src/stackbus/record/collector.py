"""Python's cyclic garbage collector, where thousands of values are held that have no cycles."""

from __future__ import annotations

import gc

_OBJECTS = 100_000  # new ones until Python looks for cycles among them


def spare_the_collector() -> None:
    """Let Python look for cycles rarely: it would walk all that is held again and again.

    A third of the time of reading went there. Called by ``recording.py`` and ``storing.py``.
    """
    gc.freeze()
    gc.set_threshold(_OBJECTS)
