"""The services' logs as a channel: files and folders, followed through rotation and truncation.

Opened by ``recorder.py``; a delivery's mark is how far each file had been read when it was taken,
and committing writes that down in the history. A file is known by its inode and its first bytes,
not by its name, so a rotated one is read to its end; one that was truncated, or that begins
otherwise than it did, is read from its start. What is read twice is recognised by its message_id.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import time
import zlib
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO, Protocol, cast

import structlog

from stackbus.errors import InputError
from stackbus.record.channel import Delivery
from stackbus.record.channels.lines import LOG, is_told

_LOOK = 1.0  # seconds between two looks for what was written since
_PART = 4 * 1024**2  # bytes that one look takes, at most but for a line that is longer
_LONGEST_LINE = 64 * 1024**2  # bytes
_HEAD = 256  # bytes by which a file is recognised
_NO_LIMIT = 1 << 62

log = structlog.get_logger()


class Positions(Protocol):
    """Where it is kept how far a channel has been read; ``history/history.py`` is the real one."""

    def positions(self, channel: str) -> dict[str, str]:
        """Give what was saved, by source."""

    def save_positions(self, channel: str, positions: Mapping[str, str]) -> None:
        """Keep it."""


@dataclass(frozen=True, slots=True)
class _Read:
    """How far a file has been read: ``offset`` bytes, and by which first bytes it is known."""

    offset: int
    head: str
    length: int


class LogChannel:
    """Log files; of a folder, all in it that have ``.log`` in their names."""

    name = LOG

    def __init__(self, paths: Sequence[Path], positions: Positions) -> None:
        """Follow ``paths``. Raises InputError for one that does not exist."""
        for path in paths:
            if not path.exists():
                raise InputError(f"--logs {path}: no such file or folder")
        self._paths = list(paths)
        self._positions = positions

    @contextmanager
    def opened(self) -> Iterator[_Files]:
        """Begin where the last one has ended."""
        yield _Files(self._paths, self._positions)


class _Files:
    """The files as they are followed.

    Marks count the deliveries; ``_progress`` says what of the files lies before each.
    """

    def __init__(self, paths: Sequence[Path], positions: Positions) -> None:
        self._paths = paths
        self._positions = positions
        self._read = {
            source: _Read(**json.loads(text)) for source, text in positions.positions(LOG).items()
        }
        self._seen: dict[str, os.stat_result] = {}
        self._packed: dict[str, int] = {}
        self._compared: set[str] = set()
        self._unreadable: set[Path] = set()
        self._queue: list[tuple[str, Path, int]] = []
        self._looked = 0.0
        self._taken = 0
        self._committed = 0
        self._progress: deque[tuple[int, str, _Read]] = deque()

    def receive(self, seconds: float) -> list[Delivery]:
        """Take a part of one file; look again at all of them when none has more."""
        if not self._queue:
            if self._taken == self._committed:
                self._save(self._taken)  # of files that hold no notification too
            rest = self._looked + _LOOK - time.monotonic()
            if rest > 0:
                time.sleep(min(rest, seconds))
                return []
            self._look()
            return []
        source, path, limit = self._queue[0]
        before = self._read.get(source)
        deliveries = self._take(source, path, limit)
        if self._read.get(source) == before:
            self._queue.pop(0)
        return deliveries

    def commit(self, mark: int) -> None:
        """Write down how far the files had been read at ``mark``."""
        self._committed = mark
        self._save(mark)

    def _save(self, mark: int) -> None:
        reached: dict[str, str] = {}
        while self._progress and self._progress[0][0] <= mark:
            _, source, read = self._progress.popleft()
            reached[source] = json.dumps(asdict(read))
        self._positions.save_positions(LOG, reached)

    def _look(self) -> None:
        """List the files that have more, up to where each ended the last time.

        So a line is read when it is a second old, and its copy on the bus, which tells more, goes
        first.
        """
        self._looked = time.monotonic()
        found: list[tuple[float, str, Path, int]] = []
        seen: dict[str, os.stat_result] = {}
        for path in _files(self._paths):
            try:
                status = path.stat()
            except OSError:
                continue  # it was rotated away just now
            source = f"{status.st_dev}:{status.st_ino}"
            seen[source] = status
            before = self._seen.get(source)
            if before is None:
                continue
            limit = min(status.st_size, before.st_size)
            offset = self._read[source].offset if source in self._read else 0
            if _is_packed(path):
                has_more = self._packed.get(source) != status.st_size
            else:
                # A file that was written and is no longer than before may be another one.
                may_differ = (
                    status.st_mtime_ns != before.st_mtime_ns or source not in self._compared
                )
                has_more = limit > offset or status.st_size < offset or may_differ
            if has_more:
                found.append((status.st_mtime, source, path, limit))
        self._seen = seen
        self._queue = [(source, path, limit) for _, source, path, limit in sorted(found)]

    def _take(self, source: str, path: Path, limit: int) -> list[Delivery]:
        try:
            with _opened(path) as file:
                status = os.fstat(file.fileno())
                if f"{status.st_dev}:{status.st_ino}" != source:
                    return []  # rotated meanwhile: the next look finds it
                if _is_packed(path):
                    self._packed[source] = status.st_size
                    return self._deliveries(source, path, file, _NO_LIMIT, _NO_LIMIT)
                return self._deliveries(source, path, file, limit, status.st_size)
        except (OSError, EOFError, zlib.error) as error:
            if path not in self._unreadable:
                log.warning("record.log_unreadable", path=str(path), reason=str(error))
                self._unreadable.add(path)
            return []

    def _deliveries(
        self, source: str, path: Path, file: BinaryIO, limit: int, size: int
    ) -> list[Delivery]:
        head = file.read(_HEAD)
        self._compared.add(source)
        read = self._read.get(source)
        if read is not None and (size < read.offset or _digest(head[: read.length]) != read.head):
            log.info("record.log_began_anew", path=str(path))
            read = None
        offset = read.offset if read else 0
        file.seek(offset)
        received = datetime.now(UTC)
        deliveries = []
        end = offset + _PART
        while offset < min(end, limit):
            line = file.readline(_LONGEST_LINE)
            if not line.endswith(b"\n") and len(line) < _LONGEST_LINE:
                break  # the rest of it is still to be written
            offset += len(line)
            if is_told(line):
                self._taken += 1
                deliveries.append(
                    Delivery(
                        channel=LOG,
                        origin=path.name,
                        body=line.rstrip(),
                        received=received,
                        mark=self._taken,
                    )
                )
                self._reached(source, offset, head)
        self._reached(source, offset, head)
        return deliveries

    def _reached(self, source: str, offset: int, head: bytes) -> None:
        known = head[:offset]
        self._read[source] = read = _Read(offset, _digest(known), len(known))
        self._progress.append((self._taken, source, read))


def _files(paths: Iterable[Path]) -> Iterator[Path]:
    """Give the files that are meant, and those that rotation made of them."""
    for path in paths:
        if path.is_dir():
            yield from (one for one in path.rglob("*.log*") if one.is_file())
        else:
            for one in path.parent.iterdir():
                rest = one.name.removeprefix(path.name)
                if one.name.startswith(path.name) and rest[:1] in ("", ".", "-") and one.is_file():
                    yield one


def _opened(path: Path) -> BinaryIO:
    if _is_packed(path):
        return cast("BinaryIO", gzip.open(path, "rb"))
    return path.open("rb")


def _is_packed(path: Path) -> bool:
    return path.suffix == ".gz"


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:16]
