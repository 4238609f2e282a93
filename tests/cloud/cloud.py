"""Bring the test cloud up, and take it down.

``up`` installs the environments from PyPI while MariaDB and a private bus start; then it starts
Keystone and its catalogue, then every other service as soon as the services that it needs answer.
Each service gets the configuration of ``members.py`` and the drop-in that ``stackbus config`` prints.
A failure or an interruption ends every process that was started. A second start reuses databases
and environments.
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
from stackbus.demo.recipes import install_commands
from stackbus.services import SERVICES
from stackbus.services.service import SHARED_EXCHANGE
from tests.cloud import catalogue
from tests.cloud.home import CloudHome, Failed, wait_until
from tests.cloud.members import Member, Process, with_needs

TOPICS = ("everything-a", "everything-b")
CAPTURE = "cloud.sent"
"""A queue on the inner bus with every notification; the topics are compared with it."""

READY_SECONDS = 240.0
_FOLDER = Path(__file__).parent
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


def stackbus(home: CloudHome, *arguments: str) -> str:
    """Run a command of stackbus on the cloud's bus and return its output. Raises Failed."""
    result = subprocess.run(
        [sys.executable, "-m", "stackbus", *arguments, "--state", str(home.state("bus"))],
        capture_output=True,
        text=True,
        check=False,
    )
    if result.returncode:
        raise Failed(f"stackbus {arguments[0]}: {result.stderr.strip() or result.stdout.strip()}")
    return result.stdout


class Cloud:
    """Starts a test cloud. ``failed`` holds the reason of each member that did not start."""

    def __init__(self, home: CloudHome, progress: Progress, *, keep_going: bool = False) -> None:
        self.home = home
        self.keep_going = keep_going
        self.failed: dict[str, str] = {}
        self._progress = progress
        self._begin = time.monotonic()

    def up(self, names: list[str]) -> None:
        """Start these members and the members that they need.

        Raises Failed, after it has ended everything that was started.
        """
        members = with_needs(names, self.home)
        self.home.check_ports()
        self.home.save()
        try:
            with ThreadPoolExecutor(len(members) + 2) as pool:
                try:
                    self._up(members, pool)
                except BaseException:
                    self.home.stopping.set()
                    raise
        except BaseException:
            self.say("taking everything down")
            down(self.home)
            raise

    def say(self, sentence: str) -> None:
        """Report progress, with the seconds since the start."""
        self._progress(f"{time.monotonic() - self._begin:6.1f} s  {sentence}")

    def _up(self, members: list[Member], pool: ThreadPoolExecutor) -> None:
        bus = pool.submit(self._start_bus)
        databases = [name for member in members for name in member.databases]
        databases_ready = pool.submit(self._start_mariadb, databases)
        # One environment after the other: uv uses every core by itself.
        installs: dict[str, Future[None]] = {}
        last_install = pool.submit(lambda: None)
        for member in members:
            last_install = pool.submit(self._install, member.name, last_install)
            installs[member.name] = last_install
        bus.result()
        ups: dict[str, Future[None]] = {}
        for member in members:
            needs = [ups[name] for name in member.needs]
            ups[member.name] = pool.submit(
                self._start, member, installs[member.name], databases_ready, needs
            )
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

    def _start_bus(self) -> None:
        home = self.home
        file = home.folder / "deployment.json"
        file.write_text(json.dumps(_DEPLOYMENT), "utf-8")
        # A bus that is up already is left as it is.
        port = ("--port-amqp", str(home.port("amqp")))
        stackbus(home, "up", "-f", str(file), "--record", "--detach", *port)
        bus = status(home)
        login = (str(bus["username"]), str(bus["password"]))
        with httpx.Client(timeout=30, auth=login) as http:
            for method, path, body in _inner_bus_requests(home, bus):
                response = http.request(method, f"{bus['management_url']}/api/{path}", json=body)
                if response.is_error:
                    raise Failed(
                        f"the bus: {method} {path}: {response.status_code} {response.text}"
                    )
        self.say("bus: up, with two topics")

    def _start_mariadb(self, names: list[str]) -> None:
        home = self.home
        data = home.state("mariadb")
        server = shutil.which("mariadbd", path=f"{os.environ['PATH']}:/usr/sbin")
        if server is None:
            raise Failed("MariaDB is missing: apt install mariadb-server-core")
        as_root = ["--user=root"] if os.getuid() == 0 else []
        if not (data / "mysql").exists():
            data.mkdir(mode=0o700, parents=True, exist_ok=True)
            command = ["mariadb-install-db", "--no-defaults", *as_root, f"--datadir={data}"]
            home.run("mariadb", [*command, "--auth-root-authentication-method=normal"])
        init_file = home.folder / "databases.sql"
        init_file.touch(mode=0o600)
        init_file.write_text(
            "".join(
                f"CREATE DATABASE IF NOT EXISTS {name} CHARACTER SET utf8mb3;\n" for name in names
            )
            + f"CREATE USER IF NOT EXISTS 'cloud'@'{LOOPBACK}' IDENTIFIED BY '{home.password}';\n"
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
            f"--port={home.port('mariadb')}",
            f"--init-file={init_file}",
            "--skip-name-resolve",
            "--max-connections=1000",
            "--innodb-buffer-pool-size=256M",
            # The databases of a cloud that lives an hour may lose their last second.
            "--innodb-flush-log-at-trx-commit=0",
        ]
        home.start("mariadb", command, dict(os.environ))
        self._wait("mariadb", lambda: _listens(home.port("mariadb")))
        self.say("mariadb: up")

    def _install(self, name: str, previous: Future[None]) -> None:
        previous.result()
        home = self.home
        requirements = _FOLDER / "requirements" / f"{name}.txt"
        mark = home.venv(name) / "installed.txt"
        text = requirements.read_text("utf-8")
        if mark.exists() and mark.read_text("utf-8") == text:
            return
        for command in install_commands(home.venv(name), requirements):
            home.run(name, command)
        mark.write_text(text, "utf-8")
        self.say(f"{name}: installed")

    def _start(
        self,
        member: Member,
        installed: Future[None],
        databases_ready: Future[None],
        needs: Sequence[Future[None]],
    ) -> None:
        installed.result()
        databases_ready.result()
        self._configure(member)
        self._run_once(member, "prepare", member.prepare)
        for need in needs:
            need.result()
        for process in member.processes:
            start_process(self.home, member.name, process)
        api = next(process for process in member.processes if process.api)
        url = self.home.url(member.name)
        self._wait(api.name, lambda: _answers(url))
        if member.name == "keystone":
            catalogue.create(self.home)
        self._run_once(member, "finish", member.finish)
        self._check_running(member.processes)
        self.say(f"{member.name}: up at {url}")

    def _configure(self, member: Member) -> None:
        home = self.home
        etc = home.etc(member.name)
        etc.mkdir(mode=0o700, parents=True, exist_ok=True)
        for folder in ("lock", *member.folders):
            (home.state(member.name) / folder).mkdir(mode=0o700, parents=True, exist_ok=True)
        for shipped in member.shipped:
            shutil.copy(home.venv(member.name) / "etc" / shipped, etc)
        drop_in = ""
        if member.emits:
            # Nova emits both formats, so that both are captured.
            format_option = ("--notification-format", "both") if member.name == "nova" else ()
            drop_in = stackbus(home, "config", member.name, *format_option)
        for number, (name, text) in enumerate(member.files.items()):
            path = etc / name
            path.touch(mode=0o600)
            path.write_text(text + (drop_in if number == 0 else ""), "utf-8")

    def _run_once(self, member: Member, step: str, commands: Sequence[tuple[str, ...]]) -> None:
        """Run commands that run once in the life of a cloud."""
        mark = self.home.state(member.name) / f"{step}.done"
        if mark.exists():
            return
        extra = {"OS_BOOTSTRAP_PASSWORD": self.home.password} if member.name == "keystone" else {}
        for program, *arguments in commands:
            command = [str(self.home.venv(member.name) / "bin" / program), *arguments]
            self.home.run(member.name, command, self.home.environment(member.name, extra))
        mark.touch()

    def _wait(self, name: str, ready: Callable[[], bool]) -> None:
        def is_ready() -> bool:
            if ready():
                return True
            if self.home.stopping.is_set():
                raise Failed(f"{name}: stopped while it was starting")
            if self.home.pid(name) is None:
                raise Failed(f"{name} ended; {self._log_end(name)}")
            return False

        if not wait_until(is_ready, READY_SECONDS):
            seconds = f"{READY_SECONDS:.0f} s"
            raise Failed(f"{name} does not answer after {seconds}; {self._log_end(name)}")

    def _log_end(self, name: str) -> str:
        return f"the end of its log:\n{self.home.last_lines(name)}"

    def _check_running(self, processes: Sequence[Process]) -> None:
        for process in processes:
            if self.home.pid(process.name) is None:
                raise Failed(f"{process.name} ended; {self._log_end(process.name)}")


def start_process(home: CloudHome, member: str, process: Process) -> None:
    """Start a process of a member in the member's environment."""
    program, *arguments = process.command
    command = [str(home.venv(member) / "bin" / program), *arguments]
    extra = {**process.environment, "OS_STDERR_CAPTURE": "0"}
    home.start(process.name, command, home.environment(member, extra))


def down(home: CloudHome) -> list[str]:
    """End every process, the last started first; return their names."""
    names = list(reversed(home.running()))
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(home.stop, [name for name in names if name != "mariadb"]))
    home.stop("mariadb")
    stackbus(home, "down")
    return names


def status(home: CloudHome) -> dict[str, object]:
    """Return the answer of ``stackbus status`` about the cloud's bus."""
    answer: dict[str, object] = json.loads(stackbus(home, "status", "-o", "json"))
    return answer


def _inner_bus_requests(
    home: CloudHome, bus: Mapping[str, object]
) -> list[tuple[str, str, dict[str, object]]]:
    """Return the requests that create the services' RPC vhost and the queue CAPTURE."""
    inner, admin = bus["inner_vhost"], bus["username"]
    all_rights: dict[str, object] = {"configure": ".*", "write": ".*", "read": ".*"}
    calls: list[tuple[str, str, dict[str, object]]] = [
        ("PUT", "vhosts/cloud-rpc", {}),
        ("PUT", "users/cloud", {"password": home.password, "tags": ""}),
        ("PUT", "permissions/cloud-rpc/cloud", all_rights),
        ("PUT", f"permissions/{inner}/{admin}", all_rights),
        ("PUT", f"queues/{inner}/{CAPTURE}", {"durable": True}),
    ]
    for exchange in [*(service.exchange for service in SERVICES), SHARED_EXCHANGE]:
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
