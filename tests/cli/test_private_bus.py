"""The private bus from up to down: its life, its ports, and being killed."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from tests.conftest import Broker, backlog, deployment, publish, running, stackbus, wait_until
from tests.relaying import numbered

from stackbus.expose.secrets import NAMESPACE, FolderStore

OUTER = "openstack-external"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "deployment.yaml"
    path.write_text(yaml.safe_dump(deployment("a", "b").to_document()))
    return path


@pytest.fixture
def state(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path / "state"
    stackbus("down", state=tmp_path / "state")


def pid_of(bus: Broker, program: str) -> int:
    """Find the one process of ``bus`` that runs ``program``."""
    for path in Path("/proc").glob("[0-9]*/environ"):
        try:
            environment = path.read_bytes()
            command = (path.parent / "cmdline").read_bytes()
        except OSError:
            continue
        mine = bus.description.node.encode() in environment or str(bus.state).encode() in command
        if mine and program.encode() in command:
            return int(path.parent.name)
    raise AssertionError(f"no {program}")


def test_a_deployment_that_cannot_be_applied_is_not_kept(state: Path, file: Path) -> None:
    stackbus("up", "-f", str(file), "--detach", state=state)
    foreign = {"name": "c", "vhost": OUTER, "type": "fanout", "durable": True}
    foreign |= {"auto_delete": False, "internal": False, "arguments": {}}
    running(state).management.import_definitions({"exchanges": [foreign]})
    stackbus("down", state=state)
    file.write_text(yaml.safe_dump(deployment("c").to_document()))
    refused = stackbus("up", "-f", str(file), "--detach", state=state, code=1)
    assert "c" in refused.stderr
    stackbus("up", "--detach", state=state)
    told = json.loads(stackbus("status", "-o", "json", state=state).stdout)
    assert told["topics"] == ["a", "b"]


def test_up_status_down_and_up_again_is_the_same_bus(state: Path, file: Path) -> None:
    stackbus("up", "-f", str(file), "--detach", state=state)
    told = json.loads(stackbus("status", "-o", "json", state=state).stdout)
    assert told["relay"]["state"] == "active"
    assert told["topics"] == ["a", "b"]
    for key in ("management_url", "username", "password", "amqp_port", "amqps_port"):
        assert told[key]
    assert (told["inner_vhost"], told["outer_vhost"]) == ("openstack", "openstack-external")
    bus = running(state)
    # Everything listens on loopback, below the range of clients' ports.
    ports = told["ports"].values()
    assert all(port < 32768 for port in ports)
    listening = subprocess.run(["ss", "-ltnH"], capture_output=True, text=True, check=True).stdout
    for port in ports:
        addresses = {line.split()[3] for line in listening.splitlines() if f":{port} " in line}
        assert addresses
        assert addresses <= {f"127.0.0.1:{port}", f"[::1]:{port}", f"[::ffff:127.0.0.1]:{port}"}
    stackbus("plan", "-f", str(file), "-o", "json", state=state)
    publish(bus, numbered(50))
    wait_until(lambda: backlog(bus, "a") == 50)
    # Up again while it is up: nothing happens, with --detach; without, it says so.
    stackbus("up", "--detach", state=state)
    assert "up already" in stackbus("up", state=state, code=1).stderr
    stackbus("down", state=state)
    assert "no bus is up" in stackbus("status", state=state, code=1).stderr
    assert "no bus is up" in stackbus("topics", state=state, code=1).stderr
    stackbus("down", state=state)
    stackbus("up", "--detach", state=state)
    again = json.loads(stackbus("status", "-o", "json", state=state).stdout)
    assert {key: again[key] for key in again if key != "relay"} == {
        key: told[key] for key in told if key != "relay"
    }
    wait_until(lambda: backlog(running(state), "a") == 50)


def test_killed_the_node_comes_back_with_everything(state: Path, file: Path) -> None:
    """SIGKILL of broker and relay between publish and consume: nothing confirmed is lost."""
    stackbus("up", "-f", str(file), "--detach", state=state)
    bus = running(state)
    relay = pid_of(bus, "relay")
    os.kill(relay, signal.SIGSTOP)  # what is published now waits in the intake
    publish(bus, numbered(300))
    os.kill(pid_of(bus, "beam"), signal.SIGKILL)
    os.kill(relay, signal.SIGKILL)
    stackbus("up", "--detach", state=state)
    bus = running(state)
    wait_until(lambda: backlog(bus, "a") >= 300, 60)
    ids = {properties.message_id for _, properties, _ in bus.drain(OUTER, "a.info")}
    assert len(ids) == 300
    assert stackbus("plan", "-f", str(file), "-o", "json", state=state).stdout.strip() == "[]"
    # And with the supervisor killed, its children end; the next up is the same bus.
    supervisor = json.loads((state / "up.json").read_text())["pid"]
    os.kill(supervisor, signal.SIGKILL)
    stackbus("up", "--detach", state=state)
    assert running(state).description == bus.description
    wait_until(lambda: backlog(running(state), "b") >= 300, 30)


def test_in_the_foreground_ctrl_c_ends_it_cleanly(state: Path, file: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "stackbus", "up", "-f", str(file), "--state", str(state)],
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    lines = []
    for line in process.stderr:
        lines.append(line)
        if line.startswith("ready"):
            break
    process.send_signal(signal.SIGINT)
    rest = process.stderr.read()
    assert process.wait(60) == 0, "".join(lines) + rest
    assert "Traceback" not in rest
    assert "no bus is up" in stackbus("status", state=state, code=1).stderr


def test_it_listens_where_it_is_told_and_says_so(state: Path, file: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        refused = stackbus("up", "--detach", "--port-amqp", str(port), state=state, code=1)
        assert f"port {port} (amqp)" in refused.stderr
    stackbus(
        "up", "-f", str(file), "--detach", "--listen", "0.0.0.0",  # noqa: S104
        "--port-amqp", "29871", "--port-amqp-tls", "29872",
        "--advertise", "rabbit.example.org,127.0.0.1", state=state,
    )  # fmt: skip
    secret = FolderStore(state / "secrets").read(NAMESPACE, "openstack-a-notifications")
    assert secret is not None
    assert secret.data["hosts"] == "rabbit.example.org,127.0.0.1"
    assert (secret.data["port_amqp"], secret.data["port_amqp-tls"]) == ("29871", "29872")
    shown = subprocess.run(
        ["openssl", "x509", "-noout", "-ext", "subjectAltName", "-in", str(state / "tls/server.pem")],
        capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    assert "rabbit.example.org" in shown
    # The second host of the list is the one that answers here.
    stackbus("tail", "--secret", str(FolderStore(state / "secrets").path(NAMESPACE, secret.name)),
             "--until-idle", "1s")  # fmt: skip


def test_a_grace_time_ends_by_itself(state: Path, file: Path) -> None:
    stackbus("up", "-f", str(file), "--detach", state=state)
    bus = running(state)
    stackbus("rotate", "a", "--grace", "2s", state=state)

    def users() -> set[str]:
        definitions = bus.management.definitions()
        listed = definitions["users"]
        assert isinstance(listed, list)
        return {user["name"] for user in listed}

    wait_until(lambda: "a.g1" not in users(), 20)
    assert "a.g2" in users()
    assert stackbus("secret", "a", "--key", "username", state=state).stdout == "a.g2\n"


def test_without_rabbitmq_the_error_says_how_to_get_it(tmp_path: Path) -> None:
    done = stackbus(
        "up", "--detach", state=tmp_path / "s", code=1, env={"STACKBUS_RABBITMQ_SERVER": "/nowhere"}
    )
    assert "apt-get install rabbitmq-server" in done.stderr


def test_a_node_that_does_not_start_shows_what_it_said(tmp_path: Path) -> None:
    server = tmp_path / "rabbitmq-server"
    server.write_text("#!/bin/sh\necho 'erl: cannot do that'; exit 3\n")
    server.chmod(0o755)
    start = time.monotonic()
    done = stackbus(
        "up",
        "--detach",
        state=tmp_path / "s",
        code=1,
        env={"STACKBUS_RABBITMQ_SERVER": str(server)},
    )
    assert "cannot do that" in done.stderr
    assert time.monotonic() - start < 60
