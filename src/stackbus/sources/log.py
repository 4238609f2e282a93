"""Log files of services as a source, followed through rotation and truncation.

``_Follower`` reads complete lines, hands those that may hold a notification to ``flow/loop.py``
(``log_lines.py`` extracts it), and saves how far each file was read. Files are identified by inode
and first bytes, not by name: a rotated file is read to its end, and a file that was truncated or
replaced is read from its start. Lines read twice are recognised in the history by message_id.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import time
import zlib
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO, NamedTuple, cast

import structlog

from stackbus.errors import InputError
from stackbus.flow.stream import Delivery
from stackbus.sources import log_lines
from stackbus.sources.positions import Positions

LOG = "log"

_SCAN_SECONDS = 1.0  # between two scans for new lines
_READ_BYTES = 4 * 1024**2  # of one file at a time; a longer line is still read whole
_LONGEST_LINE = 64 * 1024**2  # bytes
_HEAD_BYTES = 256  # that identify a file beside its inode
_UNLIMITED = 1 << 62

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class _Progress:
    """How far a file was read: ``offset`` bytes; its first ``length`` bytes have the hash ``head``.

    Saved as JSON among the positions of the history.
    """

    offset: int
    head: str
    length: int


class _Pending(NamedTuple):
    """A file with lines to read, up to ``limit`` bytes; ``file_id`` is device and inode."""

    modified: float
    file_id: str
    path: Path
    limit: int


class LogSource:
    """Log files, and folders of which all files with ``.log`` in their names are read."""

    name = LOG

    def __init__(self, paths: Sequence[Path], positions: Positions) -> None:
        """Follow ``paths``. Raises InputError for a path that does not exist."""
        for path in paths:
            if not path.exists():
                raise InputError(f"{path}: no such file or folder: name a log file that exists")
        self._paths = list(paths)
        self._positions = positions

    @staticmethod
    def extract(body: bytes) -> bytes:
        """Return the notification in the line that a delivery brought. Raises Unreadable."""
        return log_lines.extract_notification(body)

    @contextmanager
    def subscribe(self) -> Iterator[_Follower]:
        """Follow the files from the positions saved last. Raises HistoryError."""
        yield _Follower(self._paths, self._positions)


class _Follower:
    """Files that are being followed.

    The position of a delivery is its number. ``_unsaved`` holds the progress in each file that
    belongs to a position not yet committed.
    """

    def __init__(self, paths: Sequence[Path], positions: Positions) -> None:
        self._paths = paths
        self._positions = positions
        self._progress = {
            file_id: _Progress(**json.loads(text)) for file_id, text in positions.load(LOG).items()
        }
        self._unsaved: deque[tuple[int, str, _Progress]] = deque()
        self._delivered = 0
        self._committed = 0
        self._pending: list[_Pending] = []
        self._last_scan = 0.0
        self._statuses: dict[str, os.stat_result] = {}  # of the last scan
        self._compressed: dict[str, int] = {}  # sizes of compressed files that were read
        self._verified: set[str] = set()  # files whose first bytes were compared
        self._unreadable: set[Path] = set()

    def receive(self, seconds: float) -> list[Delivery]:
        """Return the deliveries in the next part of a file; scan again if none is pending."""
        if not self._pending:
            if self._delivered == self._committed:
                self._save(self._delivered)  # the progress in files without notifications
            pause = self._last_scan + _SCAN_SECONDS - time.monotonic()
            if pause > 0:
                time.sleep(min(pause, seconds))
            else:
                self._scan()
            return []
        pending = self._pending[0]
        before = self._progress.get(pending.file_id)
        deliveries = self._read(pending)
        if self._progress.get(pending.file_id) == before:
            self._pending.pop(0)
        return deliveries

    def commit(self, position: int) -> None:
        """Save how far the files were read at ``position``."""
        self._committed = position
        self._save(position)

    def _save(self, position: int) -> None:
        texts: dict[str, str] = {}
        while self._unsaved and self._unsaved[0][0] <= position:
            _, file_id, progress = self._unsaved.popleft()
            texts[file_id] = json.dumps(asdict(progress))
        self._positions.save(LOG, texts)

    def _scan(self) -> None:
        """List the files with lines to read, each up to its size at the scan before.

        A line is read when it is a second old. So its copy on the bus, which holds more of the
        context, is recorded first.
        """
        self._last_scan = time.monotonic()
        statuses: dict[str, os.stat_result] = {}
        self._pending = []
        for path in _list_files(self._paths):
            try:
                status = path.stat()
            except OSError:
                continue  # rotated since it was listed
            file_id = _file_id(status)
            statuses[file_id] = status
            before = self._statuses.get(file_id)
            if before is not None and self._has_more(path, status, before):
                limit = min(status.st_size, before.st_size)
                self._pending.append(_Pending(status.st_mtime, file_id, path, limit))
        self._statuses = statuses
        self._pending.sort()

    def _has_more(self, path: Path, status: os.stat_result, before: os.stat_result) -> bool:
        file_id = _file_id(status)
        if _is_compressed(path):
            return self._compressed.get(file_id) != status.st_size
        progress = self._progress.get(file_id)
        offset = progress.offset if progress else 0
        # A file that was written to without growing may have been replaced.
        is_rewritten = status.st_mtime_ns != before.st_mtime_ns or file_id not in self._verified
        has_grown = min(status.st_size, before.st_size) > offset
        return has_grown or status.st_size < offset or is_rewritten

    def _read(self, pending: _Pending) -> list[Delivery]:
        path = pending.path
        try:
            with _open(path) as file:
                status = os.fstat(file.fileno())
                if _file_id(status) != pending.file_id:
                    return []  # rotated since the scan: the next scan finds the new file
                if _is_compressed(path):
                    self._compressed[pending.file_id] = status.st_size
                    return self._read_lines(pending, file, _UNLIMITED, _UNLIMITED)
                return self._read_lines(pending, file, pending.limit, status.st_size)
        except (OSError, EOFError, zlib.error) as error:
            if path not in self._unreadable:
                log.warning("log.unreadable", path=str(path), reason=str(error))
                self._unreadable.add(path)
            return []

    def _read_lines(
        self, pending: _Pending, file: BinaryIO, limit: int, size: int
    ) -> list[Delivery]:
        """Read the next lines up to ``limit``; return those that may hold a notification."""
        head = file.read(_HEAD_BYTES)
        self._verified.add(pending.file_id)
        progress = self._progress.get(pending.file_id)
        if progress is not None and (
            size < progress.offset or _hash(head[: progress.length]) != progress.head
        ):
            log.info("log.replaced", path=str(pending.path))
            progress = None
        offset = progress.offset if progress else 0
        end = min(offset + _READ_BYTES, limit)
        file.seek(offset)
        received = datetime.now(UTC)
        deliveries = []
        while offset < end:
            line = file.readline(_LONGEST_LINE)
            if not line.endswith(b"\n") and len(line) < _LONGEST_LINE:
                break  # the service has not written the rest yet
            offset += len(line)
            if log_lines.may_hold_notification(line):
                self._delivered += 1
                deliveries.append(
                    Delivery(
                        channel=LOG,
                        origin=pending.path.name,
                        body=line.rstrip(),
                        received=received,
                        position=self._delivered,
                    )
                )
                self._advance(pending.file_id, offset, head)
        self._advance(pending.file_id, offset, head)
        return deliveries

    def _advance(self, file_id: str, offset: int, head: bytes) -> None:
        head = head[:offset]
        progress = _Progress(offset, _hash(head), len(head))
        self._progress[file_id] = progress
        self._unsaved.append((self._delivered, file_id, progress))


def _list_files(paths: Iterable[Path]) -> Iterator[Path]:
    """Yield the log files in folders; of a file also its rotated copies: nova.log.1, nova.log-2."""
    for path in paths:
        if path.is_dir():
            yield from (file for file in path.rglob("*.log*") if file.is_file())
        else:
            for file in path.parent.iterdir():
                ending = file.name.removeprefix(path.name)
                is_copy = file.name.startswith(path.name) and ending[:1] in ("", ".", "-")
                if is_copy and file.is_file():
                    yield file


def _file_id(status: os.stat_result) -> str:
    return f"{status.st_dev}:{status.st_ino}"


def _open(path: Path) -> BinaryIO:
    if _is_compressed(path):
        return cast("BinaryIO", gzip.open(path, "rb"))
    return path.open("rb")


def _is_compressed(path: Path) -> bool:
    return path.suffix == ".gz"


def _hash(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:16]
