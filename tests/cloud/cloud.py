"""Bring the test cloud up, and take it down.

Called by ``__main__.py``. Up: environments from PyPI, MariaDB and a private bus side by side; then
Keystone with its catalogue; then every other service as soon as what it needs answers. Each gets
its minimal configuration of ``members.py`` and the drop-in that ``stackbus config`` prints.
Whatever ends it early ends all that was started. A second start finds databases and environments.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import httpx

from stackbus.broker.node import LOOPBACK
from stackbus.bus.names import NOTIFICATION_TOPICS
from stackbus.services import SERVICES
from tests.cloud import catalogue
from tests.cloud.members import Member, Process, with_needs
from tests.cloud.place import Failed, Place, wait_until

TOPICS = ("everything-a", "everything-b")
CAPTURE = "cloud.sent"
"""A queue on the inner bus with everything that was sent: what the topics are held against."""

READY_SECONDS = 240.0
_HERE = Path(__file__).parent
_DEPLOYMENT = {
    "apiVersion": "lcm.mirantis.com/v1alpha1",
    "kind": "OpenStackDeployment",
    "metadata": {"name": "test-cloud", "namespace": "openstack"},
    "spec": {
        "features": {
            "messaging": {"notifications": {"external": {"enabled": True, "topics": list(TOPICS)}}}
        }
    },
}

Progress = Callable[[str], None]


def stackbus(place: Place, *arguments: str) -> str:
    """Run a command of stackbus on the cloud's bus; give what it prints. Raises Failed."""
    done = subprocess.run(
        [sys.executable, "-m", "stackbus", *arguments, "--state", str(place.state("bus"))],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise Failed(f"stackbus {arguments[0]}: {done.stderr.strip() or done.stdout.strip()}")
    return done.stdout


class Cloud:
    """The way up."""

    def __init__(self, place: Place, progress: Progress, *, keep_going: bool = False) -> None:
        self.place = place
        self.keep_going = keep_going
        self.failed: dict[str, str] = {}
        self._progress = progress
        self._begin = time.monotonic()

    def up(self, names: list[str]) -> None:
        """Bring these members and what they need up. Raises Failed, with nothing left running."""
        members = with_needs(names, self.place)
        self.place.check_ports()
        self.place.remember()
        try:
            with ThreadPoolExecutor(len(members) + 2) as pool:
                try:
                    self._up(members, pool)
                except BaseException:
                    self.place.stopping.set()
                    raise
        except BaseException:
            self.say("taking everything down")
            down(self.place)
            raise

    def say(self, sentence: str) -> None:
        """Tell how far it is."""
        self._progress(f"{time.monotonic() - self._begin:6.1f} s  {sentence}")

    def _up(self, members: list[Member], pool: ThreadPoolExecutor) -> None:
        bus = pool.submit(self._bus)
        databases = [name for one in members for name in one.databases]
        store = pool.submit(self._database, databases)
        # uv uses every core by itself: one environment after the other.
        environments: dict[str, Future[None]] = {}
        installing = pool.submit(lambda: None)
        for one in members:
            installing = pool.submit(self._install, one.name, installing)
            environments[one.name] = installing
        bus.result()
        ups: dict[str, Future[None]] = {}
        for one in members:
            before = [environments[one.name], store, *(ups[name] for name in one.needs)]
            ups[one.name] = pool.submit(self._member, one, before)
        errors = []
        for name, future in ups.items():
            try:
                future.result()
            except Failed as error:
                if not self.keep_going:
                    raise
                self.failed[name] = str(error)
                errors.append(str(error))
                self.say(f"{name}: DOWN")
        if len(errors) == len(members):
            raise Failed(errors[0])

    def _bus(self) -> None:
        place = self.place
        file = place.folder / "deployment.json"
        file.write_text(json.dumps(_DEPLOYMENT), "utf-8")
        # A bus that is up already stays as it is.
        port = ("--port-amqp", str(place.port("amqp")))
        stackbus(place, "up", "-f", str(file), "--record", "--detach", *port)
        told = status(place)
        who = (str(told["username"]), str(told["password"]))
        with httpx.Client(timeout=30, auth=who) as http:
            for method, path, body in _inner_bus(place, told):
                answer = http.request(method, f"{told['management_url']}/api/{path}", json=body)
                if answer.is_error:
                    raise Failed(f"the bus: {method} {path}: {answer.status_code} {answer.text}")
        self.say("bus: up, with two topics")

    def _database(self, names: list[str]) -> None:
        place = self.place
        data = place.state("mariadb")
        server = shutil.which("mariadbd", path=f"{os.environ['PATH']}:/usr/sbin")
        if server is None:
            raise Failed("MariaDB is missing: apt install mariadb-server-core")
        as_root = ["--user=root"] if os.getuid() == 0 else []
        if not (data / "mysql").exists():
            data.mkdir(mode=0o700, parents=True, exist_ok=True)
            command = ["mariadb-install-db", "--no-defaults", *as_root, f"--datadir={data}"]
            place.run("mariadb", [*command, "--auth-root-authentication-method=normal"])
        first = place.folder / "databases.sql"
        first.touch(mode=0o600)
        first.write_text(
            "".join(
                f"CREATE DATABASE IF NOT EXISTS {name} CHARACTER SET utf8mb3;\n" for name in names
            )
            + f"CREATE USER IF NOT EXISTS 'cloud'@'{LOOPBACK}' IDENTIFIED BY '{place.password}';\n"
            + f"GRANT ALL ON *.* TO 'cloud'@'{LOOPBACK}';\n",
            "utf-8",
        )
        command = [
            server,
            "--no-defaults",
            *as_root,
            f"--datadir={data}",
            f"--socket={data}/mariadb.sock",
            f"--bind-address={LOOPBACK}",
            f"--port={place.port('mariadb')}",
            f"--init-file={first}",
            "--skip-name-resolve",
            "--max-connections=1000",
            "--innodb-buffer-pool-size=256M",
            # A cloud of an hour on one machine: its databases may lose their last second.
            "--innodb-flush-log-at-trx-commit=0",
        ]
        place.start("mariadb", command, dict(os.environ))
        self._wait("mariadb", lambda: _listens(place.port("mariadb")))
        self.say("mariadb: up")

    def _install(self, name: str, before: Future[None]) -> None:
        before.result()
        place = self.place
        requirements = _HERE / "requirements" / f"{name}.txt"
        mark = place.venv(name) / "installed.txt"
        wanted = requirements.read_text("utf-8")
        if mark.exists() and mark.read_text("utf-8") == wanted:
            return
        uv = shutil.which("uv")
        if uv is None:
            raise Failed("uv is missing: make cloud installs it")
        venv = str(place.venv(name))
        place.run(name, [uv, "venv", "--quiet", "--clear", "--python", sys.executable, venv])
        python = str(place.venv(name) / "bin" / "python")
        install = [uv, "pip", "install", "--quiet", "--python", python]
        place.run(name, [*install, "-r", str(requirements)])
        mark.write_text(wanted, "utf-8")
        self.say(f"{name}: installed")

    def _member(self, one: Member, before: Sequence[Future[None]]) -> None:
        environment = before[0]
        environment.result()
        before[1].result()
        self._configure(one)
        self._once(one, "prepare", one.prepare)
        for need in before[2:]:
            need.result()
        for process in one.processes:
            start_process(self.place, one.name, process)
        api = next(process for process in one.processes if process.api)
        url = self.place.url(one.name)
        self._wait(api.name, lambda: _answers(url))
        if one.name == "keystone":
            catalogue.make(self.place)
        self._once(one, "finish", one.finish)
        self._look(one.processes)
        self.say(f"{one.name}: up at {url}")

    def _configure(self, one: Member) -> None:
        place = self.place
        etc = place.etc(one.name)
        etc.mkdir(mode=0o700, parents=True, exist_ok=True)
        for folder in ("lock", *one.folders):
            (place.state(one.name) / folder).mkdir(mode=0o700, parents=True, exist_ok=True)
        for shipped in one.shipped:
            shutil.copy(place.venv(one.name) / "etc" / shipped, etc)
        drop_in = ""
        if one.emits:
            # Both formats, so that what is captured holds both.
            both = ("--notification-format", "both") if one.name == "nova" else ()
            drop_in = stackbus(place, "config", one.name, *both)
        for number, (name, text) in enumerate(one.files.items()):
            path = etc / name
            path.touch(mode=0o600)
            path.write_text(text + (drop_in if number == 0 else ""), "utf-8")

    def _once(self, one: Member, what: str, commands: Sequence[tuple[str, ...]]) -> None:
        """Run commands that need to run once in the life of a cloud."""
        done = self.place.state(one.name) / f"{what}.done"
        if done.exists():
            return
        more = {"OS_BOOTSTRAP_PASSWORD": self.place.password} if one.name == "keystone" else {}
        for program, *arguments in commands:
            command = [str(self.place.venv(one.name) / "bin" / program), *arguments]
            self.place.run(one.name, command, self.place.environment(one.name, more))
        done.touch()

    def _wait(self, name: str, ready: Callable[[], bool]) -> None:
        def is_ready() -> bool:
            if ready():
                return True
            if self.place.stopping.is_set():
                raise Failed(f"{name}: stopped while it was starting")
            if self.place.pid(name) is None:
                raise Failed(f"{name} ended; {self._log_of(name)}")
            return False

        if not wait_until(is_ready, READY_SECONDS):
            seconds = f"{READY_SECONDS:.0f} s"
            raise Failed(f"{name} does not answer after {seconds}; {self._log_of(name)}")

    def _log_of(self, name: str) -> str:
        return f"the end of its log:\n{self.place.last_lines(name)}"

    def _look(self, processes: Sequence[Process]) -> None:
        for one in processes:
            if self.place.pid(one.name) is None:
                raise Failed(f"{one.name} ended; its log:\n{self.place.last_lines(one.name)}")


def start_process(place: Place, member: str, process: Process) -> None:
    """Start a process of a member, with the member's environment."""
    program, *arguments = process.command
    command = [str(place.venv(member) / "bin" / program), *arguments]
    more = {**process.environment, "OS_STDERR_CAPTURE": "0"}
    place.start(process.name, command, place.environment(member, more))


def down(place: Place) -> list[str]:
    """End all that is running, the last started first; give the names."""
    ended = list(reversed(place.running()))
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(place.stop, [name for name in ended if name != "mariadb"]))
    place.stop("mariadb")
    stackbus(place, "down")
    return ended


def status(place: Place) -> dict[str, object]:
    """Give what ``stackbus status`` says of the cloud's bus."""
    told: dict[str, object] = json.loads(stackbus(place, "status", "-o", "json"))
    return told


def _inner_bus(
    place: Place, told: Mapping[str, object]
) -> list[tuple[str, str, dict[str, object]]]:
    """Give the calls that make the services' RPC vhost, and the queue that sees what is sent."""
    inner, admin = told["inner_vhost"], told["username"]
    everything: dict[str, object] = {"configure": ".*", "write": ".*", "read": ".*"}
    calls: list[tuple[str, str, dict[str, object]]] = [
        ("PUT", "vhosts/cloud-rpc", {}),
        ("PUT", "users/cloud", {"password": place.password, "tags": ""}),
        ("PUT", "permissions/cloud-rpc/cloud", everything),
        ("PUT", f"permissions/{inner}/{admin}", everything),
        ("PUT", f"queues/{inner}/{CAPTURE}", {"durable": True}),
    ]
    for exchange in [*(one.exchange for one in SERVICES), "openstack"]:
        for topic in NOTIFICATION_TOPICS:
            path = f"bindings/{inner}/e/{exchange}/q/{CAPTURE}"
            calls.append(("POST", path, {"routing_key": f"{topic}.*"}))
    return calls


def _answers(url: str) -> bool:
    try:
        httpx.get(url, timeout=30)
    except httpx.HTTPError:
        return False
    return True


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex((LOOPBACK, port)) == 0
