"""A private RabbitMQ node, run from the system's package in a folder of its own.

``prepare`` writes the node's files; ``broker/supervisor.py`` then runs ``command``. Configuration,
cookie, data and logs are in the node's folder, and its name, ports and Erlang port mapper are its
own, so another RabbitMQ on the same machine is not affected.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import socket
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path

from stackbus.bus.rabbitmq_conf import RABBITMQ_CONF
from stackbus.errors import PortTaken, StackbusError
from stackbus.files import write_private

ADMINISTRATOR = "stackbus-admin"
LOOPBACK = "127.0.0.1"

PORTS = range(20_000, 32_768)
"""Below the range of Linux's ephemeral ports, which clients may hold when the node starts."""

_PLUGINS = (
    "rabbitmq_management",
    "rabbitmq_stream",
    "rabbitmq_auth_mechanism_ssl",
    "rabbitmq_prometheus",
)
_MAX_MESSAGE = 128 * 1024**2


@dataclass(frozen=True, slots=True)
class Ports:
    """Every port of the node, and of its Erlang port mapper (``epmd``)."""

    amqp: int
    amqps: int
    management: int
    stream: int
    prometheus: int
    distribution: int
    epmd: int


@dataclass(frozen=True, slots=True)
class Description:
    """The node's name, addresses and administrator, stored in ``<state>/broker.json`` (0600)."""

    node: str
    listen: str
    hosts: tuple[str, ...]
    username: str
    password: str
    inner_vhost: str
    outer_vhost: str
    ports: Ports

    @property
    def management_url(self) -> str:
        """The URL of the management API."""
        return f"http://{LOOPBACK}:{self.ports.management}"

    @property
    def amqp_host(self) -> str:
        """The address to which processes on this machine connect."""
        return LOOPBACK if self.listen in ("0.0.0.0", LOOPBACK, "localhost") else self.listen  # noqa: S104

    def to_json(self) -> dict[str, object]:
        """Return the content of ``broker.json``, which ``stackbus status -o json`` prints too."""
        return {
            "node": self.node,
            "management_url": self.management_url,
            "username": self.username,
            "password": self.password,
            "amqp_host": self.amqp_host,
            "amqp_port": self.ports.amqp,
            "amqps_port": self.ports.amqps,
            "inner_vhost": self.inner_vhost,
            "outer_vhost": self.outer_vhost,
            "listen": self.listen,
            "hosts": list(self.hosts),
            "ports": asdict(self.ports),
        }


@dataclass(frozen=True, slots=True)
class NodeOptions:
    """The administrator's options for this start. None: as at the last start, or the default."""

    listen: str | None = None
    port_amqp: int | None = None
    port_amqps: int | None = None
    advertise: tuple[str, ...] | None = None


class Node:
    """The node whose files are in ``<state>/broker``."""

    def __init__(self, state: Path, server: Path, ports: range = PORTS) -> None:
        """Use the folder ``state``; ``server`` is the ``rabbitmq-server`` program to run.

        A new node chooses its ports from ``ports``.
        """
        self._state = state
        self._home = state / "broker"
        self._server = server
        self._ports = ports
        self.log = self._home / "log" / "rabbitmq.log"

    @property
    def tls(self) -> Path:
        """The folder of the node's PEM files: ca.pem, server.pem, server.key."""
        return self._state / "tls"

    def read_description(self) -> Description | None:
        """Read ``broker.json``; None if this folder never had a node."""
        path = self._state / "broker.json"
        try:
            value = json.loads(path.read_text("utf-8"))
            return Description(
                node=value["node"],
                listen=value["listen"],
                hosts=tuple(value["hosts"]),
                username=value["username"],
                password=value["password"],
                inner_vhost=value["inner_vhost"],
                outer_vhost=value["outer_vhost"],
                ports=Ports(**value["ports"]),
            )
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise StackbusError(
                f"{path}: the file is damaged ({type(error).__name__}): restore it from a backup "
                "of the state folder"
            ) from error

    def prepare(self, options: NodeOptions, inner_vhost: str, outer_vhost: str) -> Description:
        """Choose name, ports and password at the first start, and write the node's files.

        Raises StackbusError if RabbitMQ is not installed, and PortTaken if another process uses a
        port that was given or used before.
        """
        self._check_server()
        previous = self.read_description()
        listen = options.listen or (previous.listen if previous else LOOPBACK)
        ports = _choose_ports(previous.ports if previous else None, options, listen, self._ports)
        hosts = options.advertise
        if not hosts and previous and listen == previous.listen:
            hosts = previous.hosts
        description = Description(
            node=previous.node if previous else _node_name(self._state),
            listen=listen,
            hosts=hosts or (_advertised_host(listen),),
            username=ADMINISTRATOR,
            password=previous.password if previous else secrets.token_urlsafe(32),
            inner_vhost=inner_vhost,
            outer_vhost=outer_vhost,
            ports=ports,
        )
        for folder in ("data", "log", "conf.d"):
            (self._home / folder).mkdir(mode=0o700, parents=True, exist_ok=True)
        cookie = self._home / ".erlang.cookie"
        if not cookie.exists():
            write_private(cookie, secrets.token_hex(16))
            cookie.chmod(0o400)
        write_private(self._home / "enabled_plugins", f"[{','.join(_PLUGINS)}].\n")
        write_private(self._home / "rabbitmq.conf", self._configuration(description))
        write_private(
            self._state / "broker.json", json.dumps(description.to_json(), indent=2) + "\n"
        )
        return description

    def command(self) -> list[str]:
        """Return the command that runs the node in the foreground."""
        return [str(self._server)]

    def port_mapper_command(self, description: Description) -> list[str]:
        """Return the command that runs the node's Erlang port mapper in the foreground."""
        return ["epmd", "-port", str(description.ports.epmd), "-address", LOOPBACK]

    def environment(self, description: Description) -> Mapping[str, str]:
        """Return the whole environment of the node's processes.

        It names every file that RabbitMQ would otherwise read from ``/etc/rabbitmq``, where the
        configuration of another node may be.
        """
        home = str(self._home)
        return {
            "PATH": os.environ.get("PATH", os.defpath),
            "LANG": "C.UTF-8",
            "HOME": home,
            "ERL_EPMD_PORT": str(description.ports.epmd),
            "ERL_EPMD_ADDRESS": LOOPBACK,
            "RABBITMQ_NODENAME": description.node,
            "RABBITMQ_CONF_ENV_FILE": f"{home}/rabbitmq-env.conf",
            "RABBITMQ_CONFIG_FILE": f"{home}/rabbitmq.conf",
            "RABBITMQ_CONFIG_FILES": f"{home}/conf.d",
            "RABBITMQ_ADVANCED_CONFIG_FILE": f"{home}/advanced.config",
            "RABBITMQ_ENABLED_PLUGINS_FILE": f"{home}/enabled_plugins",
            "RABBITMQ_MNESIA_BASE": f"{home}/data",
            "RABBITMQ_LOG_BASE": f"{home}/log",
            "RABBITMQ_DIST_PORT": str(description.ports.distribution),
            # The script is replaced by the node, so the process that was started is the node.
            "RABBITMQ_ALLOW_INPUT": "true",
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": (
                "-noinput -kernel inet_dist_use_interface {127,0,0,1}"
                # Quorum queues publish their counts every second instead of every five.
                " -rabbit quorum_tick_interval 1000"
            ),
        }

    def _configuration(self, description: Description) -> str:
        ports, tls = description.ports, self.tls
        return f"""\
# Written by stackbus at each start: do not edit.
listeners.tcp.1 = {description.listen}:{ports.amqp}
listeners.ssl.1 = {description.listen}:{ports.amqps}
ssl_options.cacertfile = {tls}/ca.pem
ssl_options.certfile = {tls}/server.pem
ssl_options.keyfile = {tls}/server.key
{RABBITMQ_CONF}\
management.tcp.ip = {LOOPBACK}
management.tcp.port = {ports.management}
stream.listeners.tcp.1 = {LOOPBACK}:{ports.stream}
prometheus.tcp.ip = {LOOPBACK}
prometheus.tcp.port = {ports.prometheus}
# The first start creates this user instead of guest.
default_user = {description.username}
default_pass = {description.password}
default_user_tags.administrator = true
default_vhost = /
# Counts are one second old instead of five: people watch them.
collect_statistics_interval = 1000
max_message_size = {_MAX_MESSAGE}
raft.wal_max_size_bytes = 134217728
log.file = rabbitmq.log
log.file.level = info
log.console = false
"""

    def _check_server(self) -> None:
        if not os.access(self._server, os.X_OK) or shutil.which("epmd") is None:
            raise StackbusError(
                f"RabbitMQ is not installed ({self._server} is missing): apt-get install "
                "rabbitmq-server, or set STACKBUS_RABBITMQ_SERVER to its path"
            )


def _node_name(state: Path) -> str:
    return f"stackbus-{sha256(str(state.resolve()).encode()).hexdigest()[:10]}@localhost"


def _advertised_host(listen: str) -> str:
    return socket.getfqdn() if listen in ("0.0.0.0", "::") else listen  # noqa: S104


def _choose_ports(
    previous: Ports | None, options: NodeOptions, listen: str, within: range
) -> Ports:
    """Choose the given ports, else those of the last start, else free ones."""
    requested = {"amqp": options.port_amqp, "amqps": options.port_amqps}
    used: set[int] = set()
    ports = {}
    for name in Ports.__dataclass_fields__:
        host = listen if name in requested else LOOPBACK
        port = requested.get(name) or (getattr(previous, name) if previous else None)
        if port is None:
            port = free_port(host, used, within)
        elif port in used or not is_free(host, port):
            raise PortTaken(
                f"port {port} ({name}) on {host} is in use: stop the process that uses it, or "
                "choose another port with --port-amqp or --port-amqp-tls"
            )
        ports[name] = port
        used.add(port)
    return Ports(**ports)


def free_port(host: str, used: set[int], within: range = PORTS) -> int:
    """Return a random free port on ``host`` that is not in ``used``."""
    for _ in range(1000):
        port = secrets.choice(within)
        if port not in used and is_free(host, port):
            return port
    raise StackbusError(f"no free port between {within[0]} and {within[-1]} on {host}")


def is_free(host: str, port: int) -> bool:
    """Return whether no process listens on ``port``."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
        return True
