"""Log files as a channel: every line once in order, through rotation, truncation and restarts."""

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
from stackbus.record.channel import Delivery, Source
from stackbus.record.channels import log as log_channel
from stackbus.record.channels.lines import notification_in_line
from stackbus.record.channels.log import LogChannel


class Kept:
    """Positions in memory; the history is held to the same in tests/unit/test_history.py."""

    def __init__(self) -> None:
        self.saved: dict[str, str] = {}

    def positions(self, channel: str) -> dict[str, str]:
        assert channel == "log"
        return dict(self.saved)

    def save_positions(self, channel: str, positions: Mapping[str, str]) -> None:
        assert channel == "log"
        self.saved.update(positions)


@pytest.fixture(autouse=True)
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_channel, "_LOOK", 0.02)


def line(number: int, more: str = "") -> str:
    message = {"message_id": f"m{number}", "event_type": "image.update", "more": more}
    return (
        f"2026-11-24 10:00:00 1 INFO oslo.messaging.notification.image.update [-] "
        f"{json.dumps(message)}\n"
    )


def taken(source: Source, seconds: float = 0.3, *, commit: bool = True) -> list[str]:
    """Read what comes within ``seconds``; give the message ids."""
    found: list[Delivery] = []
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        found += source.receive(0.02)
    if commit and found:
        source.commit(found[-1].mark)
    return [json.loads(notification_in_line(one.body))["message_id"] for one in found]


def ids(*numbers: int) -> list[str]:
    return [f"m{number}" for number in numbers]


def test_lines_are_followed_and_a_restart_goes_on(tmp_path: Path) -> None:
    path, kept = tmp_path / "nova.log", Kept()
    path.write_text("something else\n" + line(1) + line(2))
    with LogChannel([path], kept).opened() as source:
        assert taken(source) == ids(1, 2)
        with path.open("a") as file:
            file.write(line(3))
        assert taken(source) == ids(3)
    with path.open("a") as file:
        file.write(line(4))
    with LogChannel([path], kept).opened() as source:
        assert taken(source) == ids(4)


def test_what_was_not_committed_comes_again(tmp_path: Path) -> None:
    path, kept = tmp_path / "nova.log", Kept()
    path.write_text(line(1) + line(2) + line(3))
    with LogChannel([path], kept).opened() as source:
        deliveries: list[Delivery] = []
        while len(deliveries) < 3:
            deliveries += source.receive(0.02)
        source.commit(deliveries[0].mark)
    with LogChannel([path], kept).opened() as source:
        assert taken(source) == ids(2, 3)


def test_half_a_line_is_waited_for(tmp_path: Path) -> None:
    path = tmp_path / "nova.log"
    path.write_text(line(1) + line(2)[:40])
    with LogChannel([path], Kept()).opened() as source:
        assert taken(source) == ids(1)
        with path.open("a") as file:
            file.write(line(2)[40:])
        assert taken(source) == ids(2)


def test_a_renamed_file_is_read_to_its_end_and_the_new_one_too(tmp_path: Path) -> None:
    path, kept = tmp_path / "nova.log", Kept()
    path.write_text(line(1))
    with LogChannel([path], kept).opened() as source:
        assert taken(source) == ids(1)
    with path.open("a") as file:  # after the recorder was stopped
        file.write(line(2))
    path.rename(tmp_path / "nova.log.1")
    path.write_text(line(3))
    with LogChannel([path], kept).opened() as source:
        assert sorted(taken(source)) == ids(2, 3)


def test_a_truncated_file_is_read_from_its_start(tmp_path: Path) -> None:
    path = tmp_path / "nova.log"
    path.write_text(line(1) + line(2))
    with LogChannel([path], Kept()).opened() as source:
        assert taken(source) == ids(1, 2)
        with path.open("w") as file:
            file.write(line(3))
        assert taken(source) == ids(3)


def test_a_file_that_was_truncated_and_has_grown_beyond_is_read_from_its_start(
    tmp_path: Path,
) -> None:
    path, kept = tmp_path / "nova.log", Kept()
    path.write_text(line(1))
    with LogChannel([path], kept).opened() as source:
        assert taken(source) == ids(1)
    path.write_text(line(2) + line(3) + line(4))
    with LogChannel([path], kept).opened() as source:
        assert taken(source) == ids(2, 3, 4)


def test_a_file_that_was_exchanged_for_one_of_the_same_size_is_read(tmp_path: Path) -> None:
    path, kept = tmp_path / "nova.log", Kept()
    path.write_text(line(1))
    with LogChannel([path], kept).opened() as source:
        assert taken(source) == ids(1)
    path.write_text(line(2))
    with LogChannel([path], kept).opened() as source:
        assert taken(source) == ids(2)


def test_copy_and_truncate_loses_nothing(tmp_path: Path) -> None:
    path, kept = tmp_path / "nova.log", Kept()
    path.write_text(line(1))
    with LogChannel([path], kept).opened() as source:
        assert taken(source) == ids(1)
        with path.open("a") as file:
            file.write(line(2))
        shutil.copy(path, tmp_path / "nova.log.1")
        os.truncate(path, 0)
        with path.open("a") as file:
            file.write(line(3))
        # The copy is a file that nobody has read: what is in it comes again, and is recognised.
        assert set(taken(source, 0.5)) == set(ids(1, 2, 3))


def test_a_packed_file_is_read_once(tmp_path: Path) -> None:
    path, kept = tmp_path / "nova.log", Kept()
    path.write_text(line(3))
    with gzip.open(tmp_path / "nova.log.2.gz", "wt") as file:
        file.write(line(1) + line(2))
    with LogChannel([path], kept).opened() as source:
        assert sorted(taken(source)) == ids(1, 2, 3)
        assert taken(source) == []
    with LogChannel([path], kept).opened() as source:
        assert taken(source) == []


def test_a_folder_is_read_with_all_below_it(tmp_path: Path) -> None:
    (tmp_path / "nova").mkdir()
    (tmp_path / "nova" / "nova-api.log").write_text(line(1))
    (tmp_path / "glance.log-20261124").write_text(line(2))
    (tmp_path / "notes.txt").write_text(line(3))
    with LogChannel([tmp_path], Kept()).opened() as source:
        assert sorted(taken(source)) == ids(1, 2)
        (tmp_path / "new.log").write_text(line(4))
        assert taken(source) == ids(4)


def test_a_name_that_only_begins_alike_is_another_file(tmp_path: Path) -> None:
    (tmp_path / "nova.log").write_text(line(1))
    (tmp_path / "nova.logistics").write_text(line(2))
    with LogChannel([tmp_path / "nova.log"], Kept()).opened() as source:
        assert taken(source) == ids(1)


def test_a_large_file_is_read_in_parts_and_a_long_line_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log_channel, "_PART", 1000)
    path = tmp_path / "nova.log"
    path.write_text("".join(line(n) for n in range(100)) + line(100, "x" * 5000) + line(101))
    with LogChannel([path], Kept()).opened() as source:
        end = time.monotonic() + 10
        found: list[Delivery] = []
        while len(found) < 102 and time.monotonic() < end:
            part = source.receive(0.02)
            assert len(part) < 20
            found += part
    assert [json.loads(notification_in_line(one.body))["message_id"] for one in found] == ids(
        *range(102)
    )


def test_files_without_notifications_are_not_read_again(tmp_path: Path) -> None:
    path, kept = tmp_path / "nova.log", Kept()
    path.write_text("nothing to tell\n" * 100)
    with LogChannel([path], kept).opened() as source:
        assert taken(source) == []
    (position,) = kept.saved.values()
    assert json.loads(position)["offset"] == path.stat().st_size


def test_what_cannot_be_opened_is_left_out(tmp_path: Path) -> None:
    (tmp_path / "broken.log.gz").write_bytes(b"no gzip")
    (tmp_path / "good.log").write_text(line(1))
    with LogChannel([tmp_path], Kept()).opened() as source:
        assert taken(source) == ids(1)


def test_a_path_that_does_not_exist_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"--logs .*nowhere: no such file or folder"):
        LogChannel([tmp_path / "nowhere"], Kept())
