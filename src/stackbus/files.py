"""Private files: written completely or not at all, read by their first line, and locks."""

from __future__ import annotations

import fcntl
import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from stackbus.errors import InputError, StackbusError


def write_private(path: Path, content: str | bytes) -> None:
    """Write ``content`` to ``path`` completely or not at all, with mode 0600.

    Raises StackbusError (disk full, no permission) and leaves the old file as it was.
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


def read_first_line(path: Path, content: str) -> str:
    """Return the first line of ``path``; '' if it is empty.

    Raises InputError, which names the expected ``content``, such as "a password".
    """
    try:
        lines = path.read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: {content} cannot be read from this file: {error}") from error
    return lines[0].strip() if lines else ""


@contextmanager
def locked(path: Path, timeout: float, busy: str) -> Iterator[None]:
    """Hold the lock file ``path``, after waiting up to ``timeout`` seconds for its holder.

    The kernel frees the lock when the process ends, in whatever way. Raises
    StackbusError(``busy``) at the timeout.
    """
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        raise StackbusError(f"{path}: cannot be written: {error.strerror}") from error
    try:
        end = time.monotonic() + timeout
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
