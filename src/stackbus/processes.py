"""Child processes that end with their parent."""

from __future__ import annotations

import ctypes
import os
import signal

_PR_SET_PDEATHSIG = 1  # prctl(2)
_LIBC = ctypes.CDLL(None, use_errno=True)  # loaded before a fork, after which loading is unsafe


def end_with_parent(parent: int, number: signal.Signals) -> None:
    """Have the kernel send a signal to the calling process when its parent ends.

    The child calls this first. It exits at once if ``parent``, the process that started it, has
    ended already. Linux sends the signal when the *thread* that started the child ends: prctl(2).
    """
    _LIBC.prctl(_PR_SET_PDEATHSIG, number)
    if os.getppid() != parent:
        os._exit(1)
