"""Files that hold secrets: written wholly or not at all, and locked while they change.

Called by every room that keeps something in the state folder.
"""

from __future__ import annotations

import fcntl
import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from stackbus.errors import StackbusError


def write_private(path: Path, content: str | bytes) -> None:
    """Write ``content`` to ``path`` wholly or not at all, readable by its owner only.

    Raises StackbusError (disk full, no permission); the old file then still stands.
    """
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name[:100]}.")
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(content.encode() if isinstance(content, str) else content)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)  # noqa: PTH105 -- rename over, in one step
        except BaseException:
            os.unlink(temporary)  # noqa: PTH108 -- the name is a str
            raise
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except OSError as error:
        raise StackbusError(f"{path}: cannot be written: {error.strerror}") from error


@contextmanager
def locked(path: Path, patience: float, busy: str) -> Iterator[None]:
    """Hold the lock file ``path``; wait ``patience`` seconds for whoever holds it.

    The lock goes with the process, however it ends. Raises StackbusError(``busy``) after that.
    """
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        raise StackbusError(f"{path}: cannot be written: {error.strerror}") from error
    try:
        end = time.monotonic() + patience
        while True:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() >= end:
                    raise StackbusError(busy) from None
                time.sleep(0.05)
            else:
                break
        yield
    finally:
        os.close(handle)
