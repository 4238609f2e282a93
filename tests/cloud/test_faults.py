"""The test cloud when something goes wrong: nothing is left running, and the reason is shown.

Run by ``make test-cloud``, because it needs MariaDB; its members are stand-ins, its bus is not.
"""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cloud import cloud as clouds
from tests.cloud.cloud import Cloud, down
from tests.cloud.members import Member, Process
from tests.cloud.place import Failed, Place


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    one = Place(tmp_path / "cloud")
    yield one
    down(one)


def member(place: Place, name: str, *command: str) -> Member:
    program = place.venv(name) / "bin" / "python"
    program.parent.mkdir(parents=True, exist_ok=True)
    program.symlink_to(sys.executable)
    process = Process(f"{name}-api", ("python", *command), api=True)
    return Member(name, {f"{name}.conf": ""}, (), (process,), needs=(), emits=False)


@pytest.fixture
def members(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    port = str(place.port("good"))
    both = [
        member(place, "good", "-m", "http.server", "--bind", "127.0.0.1", port),
        member(place, "broken", "-c", "import sys; sys.exit('no database for me')"),
    ]
    monkeypatch.setattr(clouds, "with_needs", lambda *_: both)
    monkeypatch.setattr(Cloud, "_install", lambda *_: None)


def left_of(place: Place) -> list[str]:
    """Give the command lines of processes that have to do with a cloud's folder."""
    found = []
    for one in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = one.read_bytes().replace(b"\0", b" ").decode()
        except (FileNotFoundError, ProcessLookupError):
            continue
        if str(place.folder) in line and int(one.parent.name) != os.getpid():
            found.append(line)
    return found


@pytest.mark.usefixtures("members")
def test_a_service_that_does_not_come_up_takes_all_down_and_shows_its_log(place: Place) -> None:
    said: list[str] = []
    with pytest.raises(Failed, match=r"broken-api ended; .*\n.*no database for me"):
        Cloud(place, said.append).up(["good", "broken"])
    assert said[-1].endswith("taking everything down")
    assert place.running() == []
    assert left_of(place) == []


@pytest.mark.usefixtures("members")
def test_or_the_others_go_on_as_asked(place: Place) -> None:
    one = Cloud(place, lambda _: None, keep_going=True)
    one.up(["good", "broken"])
    assert list(one.failed) == ["broken"]
    assert "no database for me" in one.failed["broken"]
    assert "good-api" in place.running()
    assert place.pid("broken-api") is None


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("moment", ["mariadb: up", "bus: up"])
def test_an_interrupted_start_leaves_no_process(
    place: Place, moment: str, number: signal.Signals
) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.cloud", "up", "keystone", "--folder", str(place.folder)],
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    lines = []
    for line in process.stderr:
        lines.append(line)
        if moment in line:
            break
    process.send_signal(number)
    rest = process.communicate(timeout=120)[1]
    assert process.returncode == 130, "".join(lines) + rest
    assert "nothing is left running" in rest
    assert left_of(place) == []


def test_a_port_in_use_is_not_drawn_and_one_taken_meanwhile_is_told(place: Place) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        drawn = {place.port(f"p{number}") for number in range(50)}
        assert port not in drawn
        assert len(drawn) == 50
    again = Place(place.folder)
    assert again.port("p7") == place.port("p7")
    with socket.create_server(("127.0.0.1", place.port("p7"))):
        with pytest.raises(Failed, match=re.escape(f"port {place.port('p7')}, this cloud's p7,")):
            Cloud(again, lambda _: None).up(["keystone"])


def test_a_process_id_that_belongs_to_another_is_left_alone(place: Place) -> None:
    place.remember()
    place.start("sleeper", [sys.executable, "-c", "import time; time.sleep(60)"], dict(os.environ))
    pid = place.pid("sleeper")
    assert pid is not None
    file = place.folder / "run" / "sleeper.json"
    file.write_text(file.read_text("utf-8").replace('"started": "', '"started": "9'), "utf-8")
    place.stop("sleeper")
    os.kill(pid, 0)
    os.kill(pid, signal.SIGKILL)
