"""Log files as a source: every line once, in order, through rotation, truncation and restarts."""

from __future__ import annotations

import gzip
import json
import os
import shutil
import time
from collections.abc import Mapping
from pathlib import Path

import pytest

from stackbus.errors import InputError
from stackbus.flow.stream import Delivery, Subscription
from stackbus.sources import log as log_module
from stackbus.sources.log import LogSource


class MemoryPositions:
    """Positions in memory; the history is held to the same in tests/unit/test_history.py."""

    def __init__(self) -> None:
        self.saved: dict[str, str] = {}

    def load(self, channel: str) -> dict[str, str]:
        assert channel == "log"
        return dict(self.saved)

    def save(self, channel: str, positions: Mapping[str, str]) -> None:
        assert channel == "log"
        self.saved.update(positions)


@pytest.fixture(autouse=True)
def scan_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_module, "_SCAN_SECONDS", 0.02)


def line(number: int, more: str = "") -> str:
    message = {"message_id": f"m{number}", "event_type": "image.update", "more": more}
    return (
        f"2026-11-24 10:00:00 1 INFO oslo.messaging.notification.image.update [-] "
        f"{json.dumps(message)}\n"
    )


def receive_ids(
    subscription: Subscription, seconds: float = 0.3, *, commit: bool = True
) -> list[str]:
    """Receive for ``seconds``; return the message ids."""
    deliveries: list[Delivery] = []
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        deliveries += subscription.receive(0.02)
    if commit and deliveries:
        subscription.commit(deliveries[-1].position)
    return [message_id(delivery) for delivery in deliveries]


def message_id(delivery: Delivery) -> str:
    return str(json.loads(LogSource.extract(delivery.body))["message_id"])


def ids(*numbers: int) -> list[str]:
    return [f"m{number}" for number in numbers]


def test_lines_are_followed_and_a_restart_continues(tmp_path: Path) -> None:
    path, positions = tmp_path / "nova.log", MemoryPositions()
    path.write_text("something else\n" + line(1) + line(2))
    with LogSource([path], positions).subscribe() as subscription:
        assert receive_ids(subscription) == ids(1, 2)
        with path.open("a") as file:
            file.write(line(3))
        assert receive_ids(subscription) == ids(3)
    with path.open("a") as file:
        file.write(line(4))
    with LogSource([path], positions).subscribe() as subscription:
        assert receive_ids(subscription) == ids(4)


def test_uncommitted_deliveries_come_again(tmp_path: Path) -> None:
    path, positions = tmp_path / "nova.log", MemoryPositions()
    path.write_text(line(1) + line(2) + line(3))
    with LogSource([path], positions).subscribe() as subscription:
        deliveries: list[Delivery] = []
        while len(deliveries) < 3:
            deliveries += subscription.receive(0.02)
        subscription.commit(deliveries[0].position)
    with LogSource([path], positions).subscribe() as subscription:
        assert receive_ids(subscription) == ids(2, 3)


def test_an_incomplete_line_is_read_when_it_is_complete(tmp_path: Path) -> None:
    path = tmp_path / "nova.log"
    path.write_text(line(1) + line(2)[:40])
    with LogSource([path], MemoryPositions()).subscribe() as subscription:
        assert receive_ids(subscription) == ids(1)
        with path.open("a") as file:
            file.write(line(2)[40:])
        assert receive_ids(subscription) == ids(2)


def test_a_rotated_file_is_read_to_its_end_and_so_is_the_new_file(tmp_path: Path) -> None:
    path, positions = tmp_path / "nova.log", MemoryPositions()
    path.write_text(line(1))
    with LogSource([path], positions).subscribe() as subscription:
        assert receive_ids(subscription) == ids(1)
    with path.open("a") as file:  # after the recorder was stopped
        file.write(line(2))
    path.rename(tmp_path / "nova.log.1")
    path.write_text(line(3))
    with LogSource([path], positions).subscribe() as subscription:
        assert sorted(receive_ids(subscription)) == ids(2, 3)


def test_a_truncated_file_is_read_from_its_start(tmp_path: Path) -> None:
    path = tmp_path / "nova.log"
    path.write_text(line(1) + line(2))
    with LogSource([path], MemoryPositions()).subscribe() as subscription:
        assert receive_ids(subscription) == ids(1, 2)
        with path.open("w") as file:
            file.write(line(3))
        assert receive_ids(subscription) == ids(3)


def test_a_file_that_was_truncated_and_has_grown_beyond_is_read_from_its_start(
    tmp_path: Path,
) -> None:
    path, positions = tmp_path / "nova.log", MemoryPositions()
    path.write_text(line(1))
    with LogSource([path], positions).subscribe() as subscription:
        assert receive_ids(subscription) == ids(1)
    path.write_text(line(2) + line(3) + line(4))
    with LogSource([path], positions).subscribe() as subscription:
        assert receive_ids(subscription) == ids(2, 3, 4)


def test_a_file_replaced_by_another_of_the_same_size_is_read(tmp_path: Path) -> None:
    path, positions = tmp_path / "nova.log", MemoryPositions()
    path.write_text(line(1))
    with LogSource([path], positions).subscribe() as subscription:
        assert receive_ids(subscription) == ids(1)
    path.write_text(line(2))
    with LogSource([path], positions).subscribe() as subscription:
        assert receive_ids(subscription) == ids(2)


def test_copy_and_truncate_loses_nothing(tmp_path: Path) -> None:
    path, positions = tmp_path / "nova.log", MemoryPositions()
    path.write_text(line(1))
    with LogSource([path], positions).subscribe() as subscription:
        assert receive_ids(subscription) == ids(1)
        with path.open("a") as file:
            file.write(line(2))
        shutil.copy(path, tmp_path / "nova.log.1")
        os.truncate(path, 0)
        with path.open("a") as file:
            file.write(line(3))
        # The copy is a file that nobody has read: what is in it comes again, and is recognised.
        assert set(receive_ids(subscription, 0.5)) == set(ids(1, 2, 3))


def test_a_compressed_file_is_read_once(tmp_path: Path) -> None:
    path, positions = tmp_path / "nova.log", MemoryPositions()
    path.write_text(line(3))
    with gzip.open(tmp_path / "nova.log.2.gz", "wt") as file:
        file.write(line(1) + line(2))
    with LogSource([path], positions).subscribe() as subscription:
        assert sorted(receive_ids(subscription)) == ids(1, 2, 3)
        assert receive_ids(subscription) == []
    with LogSource([path], positions).subscribe() as subscription:
        assert receive_ids(subscription) == []


def test_a_folder_is_read_with_all_below_it(tmp_path: Path) -> None:
    (tmp_path / "nova").mkdir()
    (tmp_path / "nova" / "nova-api.log").write_text(line(1))
    (tmp_path / "glance.log-20261124").write_text(line(2))
    (tmp_path / "notes.txt").write_text(line(3))
    with LogSource([tmp_path], MemoryPositions()).subscribe() as subscription:
        assert sorted(receive_ids(subscription)) == ids(1, 2)
        (tmp_path / "new.log").write_text(line(4))
        assert receive_ids(subscription) == ids(4)


def test_a_file_whose_name_only_starts_the_same_is_not_read(tmp_path: Path) -> None:
    (tmp_path / "nova.log").write_text(line(1))
    (tmp_path / "nova.logistics").write_text(line(2))
    with LogSource([tmp_path / "nova.log"], MemoryPositions()).subscribe() as subscription:
        assert receive_ids(subscription) == ids(1)


def test_a_large_file_is_read_in_parts_and_a_long_line_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log_module, "_READ_BYTES", 1000)
    path = tmp_path / "nova.log"
    path.write_text("".join(line(n) for n in range(100)) + line(100, "x" * 5000) + line(101))
    with LogSource([path], MemoryPositions()).subscribe() as subscription:
        end = time.monotonic() + 10
        deliveries: list[Delivery] = []
        while len(deliveries) < 102 and time.monotonic() < end:
            part = subscription.receive(0.02)
            assert len(part) < 20
            deliveries += part
    assert [message_id(delivery) for delivery in deliveries] == ids(*range(102))


def test_files_without_notifications_are_not_read_again(tmp_path: Path) -> None:
    path, positions = tmp_path / "nova.log", MemoryPositions()
    path.write_text("no notification\n" * 100)
    with LogSource([path], positions).subscribe() as subscription:
        assert receive_ids(subscription) == []
    (position,) = positions.saved.values()
    assert json.loads(position)["offset"] == path.stat().st_size


def test_an_unreadable_file_is_skipped(tmp_path: Path) -> None:
    (tmp_path / "broken.log.gz").write_bytes(b"no gzip")
    (tmp_path / "good.log").write_text(line(1))
    with LogSource([tmp_path], MemoryPositions()).subscribe() as subscription:
        assert receive_ids(subscription) == ids(1)


def test_a_path_that_does_not_exist_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"nowhere: no such file or folder"):
        LogSource([tmp_path / "nowhere"], MemoryPositions())
