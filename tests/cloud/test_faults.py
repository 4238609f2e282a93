"""A test cloud that fails to start leaves no process running and shows the reason.

``make test-cloud`` runs it, since it needs MariaDB. The members are stand-ins, the bus is real.
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
from tests.cloud.home import CloudHome, Failed
from tests.cloud.members import Member, Process


@pytest.fixture
def home(tmp_path: Path) -> Iterator[CloudHome]:
    cloud_home = CloudHome(tmp_path / "cloud")
    yield cloud_home
    down(cloud_home)


def member(home: CloudHome, name: str, *command: str) -> Member:
    program = home.venv(name) / "bin" / "python"
    program.parent.mkdir(parents=True, exist_ok=True)
    program.symlink_to(sys.executable)
    process = Process(f"{name}-api", ("python", *command), api=True)
    return Member(name, {f"{name}.conf": ""}, (), (process,), needs=(), emits=False)


@pytest.fixture
def members(home: CloudHome, monkeypatch: pytest.MonkeyPatch) -> None:
    port = str(home.port("good"))
    stand_ins = [
        member(home, "good", "-m", "http.server", "--bind", "127.0.0.1", port),
        member(home, "broken", "-c", "import sys; sys.exit('no database for me')"),
    ]
    monkeypatch.setattr(clouds, "with_needs", lambda *_: stand_ins)
    monkeypatch.setattr(Cloud, "_install", lambda *_: None)


def find_processes(home: CloudHome) -> list[str]:
    """Return the command lines of processes that name a cloud's folder."""
    commands = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = path.read_bytes().replace(b"\0", b" ").decode()
        except (FileNotFoundError, ProcessLookupError):
            continue
        if str(home.folder) in line and int(path.parent.name) != os.getpid():
            commands.append(line)
    return commands


@pytest.mark.usefixtures("members")
def test_a_service_that_does_not_start_ends_the_cloud_and_shows_its_log(home: CloudHome) -> None:
    sentences: list[str] = []
    with pytest.raises(Failed, match=r"broken-api ended; .*\n.*no database for me"):
        Cloud(home, sentences.append).up(["good", "broken"])
    assert sentences[-1].endswith("taking everything down")
    assert home.running() == []
    assert find_processes(home) == []


@pytest.mark.usefixtures("members")
def test_with_keep_going_the_other_services_go_on(home: CloudHome) -> None:
    cloud = Cloud(home, lambda _: None, keep_going=True)
    cloud.up(["good", "broken"])
    assert list(cloud.failed) == ["broken"]
    assert "no database for me" in cloud.failed["broken"]
    assert "good-api" in home.running()
    assert home.pid("broken-api") is None


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("moment", ["mariadb: up", "bus: up"])
def test_an_interrupted_start_leaves_no_process(
    home: CloudHome, moment: str, number: signal.Signals
) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.cloud", "up", "keystone", "--folder", str(home.folder)],
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
    output = process.communicate(timeout=120)[1]
    assert process.returncode == 130, "".join(lines) + output
    assert "nothing is left running" in output
    assert find_processes(home) == []


def test_a_port_in_use_is_not_chosen_and_a_port_taken_later_is_an_error(home: CloudHome) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        ports = {home.port(f"p{number}") for number in range(50)}
        assert port not in ports
        assert len(ports) == 50
    restarted = CloudHome(home.folder)
    assert restarted.port("p7") == home.port("p7")
    with socket.create_server(("127.0.0.1", home.port("p7"))):
        with pytest.raises(Failed, match=re.escape(f"port {home.port('p7')}, this cloud's p7,")):
            Cloud(restarted, lambda _: None).up(["keystone"])


def test_a_process_id_of_another_process_is_not_ended(home: CloudHome) -> None:
    home.save()
    home.start("sleeper", [sys.executable, "-c", "import time; time.sleep(60)"], dict(os.environ))
    pid = home.pid("sleeper")
    assert pid is not None
    file = home.folder / "run" / "sleeper.json"
    file.write_text(file.read_text("utf-8").replace('"started": "', '"started": "9'), "utf-8")
    home.stop("sleeper")
    os.kill(pid, 0)
    os.kill(pid, signal.SIGKILL)
