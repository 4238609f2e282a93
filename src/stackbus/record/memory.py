"""What Python and the C library do with memory, where thousands of values come and go each second.

Called by ``recording.py`` and ``storing.py`` at the start of their processes.
"""

from __future__ import annotations

import ctypes
import gc
from contextlib import suppress

_OBJECTS = 100_000  # new ones until Python looks for cycles among them
_M_MMAP_THRESHOLD, _LARGE = -3, 1024 * 1024  # mallopt(3), bytes


def spare_memory_and_collector() -> None:
    """Let Python look for cycles rarely, and give large blocks back when they are freed.

    Python would walk all that is held again and again: a third of the time of reading went there.
    glibc would keep a batch's block for the next one, in each process.
    """
    gc.freeze()
    gc.set_threshold(_OBJECTS)
    with suppress(AttributeError):  # another C library has no such thing
        ctypes.CDLL(None).mallopt(_M_MMAP_THRESHOLD, _LARGE)
