"""A private RabbitMQ node, from the system's package, in a folder of its own.

Called by ``wiring.py``: ``prepare`` writes the node's files once and the same again later,
``command`` says what to run, and ``broker/supervisor.py`` runs it. Everything the node has is in
its folder: configuration, cookie, data, logs. Its name, cookie, ports and port mapper are its own,
so that no other RabbitMQ on the machine notices it.
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

from stackbus.errors import StackbusError
from stackbus.files import write_private

ADMINISTRATOR = "stackbus-admin"
LOOPBACK = "127.0.0.1"

PORTS = range(20_000, 32_768)
"""Below the range from which Linux draws clients' ports, any of which may be taken at a start."""

_PLUGINS = (
    "rabbitmq_management",
    "rabbitmq_stream",
    "rabbitmq_auth_mechanism_ssl",
    "rabbitmq_prometheus",
)
_MAX_MESSAGE = 128 * 1024**2


@dataclass(frozen=True, slots=True)
class Ports:
    """Every port of the node; ``epmd`` is its own Erlang port mapper's."""

    amqp: int
    amqps: int
    management: int
    stream: int
    prometheus: int
    distribution: int
    epmd: int


@dataclass(frozen=True, slots=True)
class Description:
    """What the node is and how to reach it; kept in ``<state>/broker.json``, mode 0600."""

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
        """Give the management API's URL."""
        return f"http://{LOOPBACK}:{self.ports.management}"

    @property
    def amqp_host(self) -> str:
        """Tell where processes on this machine connect."""
        return LOOPBACK if self.listen in ("0.0.0.0", LOOPBACK, "localhost") else self.listen  # noqa: S104

    def to_json(self) -> dict[str, object]:
        """Give what ``broker.json`` and ``stackbus status -o json`` hold."""
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
class Wish:
    """What the administrator wants of the node at this start; None: as it was, or the default."""

    listen: str | None = None
    port_amqp: int | None = None
    port_amqps: int | None = None
    advertise: tuple[str, ...] | None = None


class Node:
    """The node whose files are in ``<state>/broker``."""

    def __init__(self, state: Path, server: Path, ports: range = PORTS) -> None:
        """Take the node of ``state``; ``server`` is the ``rabbitmq-server`` program to run.

        A new node draws its ports from ``ports``.
        """
        self._state = state
        self._home = state / "broker"
        self._server = server
        self._ports = ports
        self.log = self._home / "log" / "rabbitmq.log"

    @property
    def tls(self) -> Path:
        """Give the folder of the PEM files that the node reads: ca.pem, server.pem, server.key."""
        return self._state / "tls"

    def described(self) -> Description | None:
        """Read ``broker.json``; None if there never was a node here."""
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
                f"{path}: not as stackbus wrote it ({type(error).__name__}); restore it from a "
                "backup of the state folder"
            ) from error

    def prepare(self, wish: Wish, inner_vhost: str, outer_vhost: str) -> Description:
        """Decide on name, ports and password, once, and write the node's files.

        Raises StackbusError if RabbitMQ is missing, or a port that was asked for or used before
        is taken.
        """
        self._check_server()
        before = self.described()
        listen = wish.listen or (before.listen if before else LOOPBACK)
        ports = _chosen(before.ports if before else None, wish, listen, self._ports)
        kept_hosts = before.hosts if before and wish.listen in (None, before.listen) else None
        description = Description(
            node=before.node if before else _node_name(self._state),
            listen=listen,
            hosts=wish.advertise or kept_hosts or (_advertised(listen),),
            username=ADMINISTRATOR,
            password=before.password if before else secrets.token_urlsafe(32),
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
        """Give the command that is the node, in the foreground."""
        return [str(self._server)]

    def port_mapper_command(self, description: Description) -> list[str]:
        """Give the command of the node's own Erlang port mapper, in the foreground."""
        return ["epmd", "-port", str(description.ports.epmd), "-address", LOOPBACK]

    def environment(self, description: Description) -> Mapping[str, str]:
        """Give the whole environment of the node's processes.

        Every place from which RabbitMQ would read the machine's own configuration is named, so
        that what is in ``/etc/rabbitmq`` for another node does not apply here.
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
            # In the foreground, in place of the script: the process started is the node itself.
            "RABBITMQ_ALLOW_INPUT": "true",
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": (
                "-noinput -kernel inet_dist_use_interface {127,0,0,1}"
                # Quorum queues tell their counts each second instead of each fifth.
                " -rabbit quorum_tick_interval 1000"
            ),
        }

    def _configuration(self, description: Description) -> str:
        ports, tls = description.ports, self.tls
        return "\n".join(
            (
                "# Written by stackbus at each start: changes made here are lost.",
                f"listeners.tcp.1 = {description.listen}:{ports.amqp}",
                f"listeners.ssl.1 = {description.listen}:{ports.amqps}",
                f"ssl_options.cacertfile = {tls}/ca.pem",
                f"ssl_options.certfile = {tls}/server.pem",
                f"ssl_options.keyfile = {tls}/server.key",
                "ssl_options.verify = verify_peer",
                "ssl_options.fail_if_no_peer_cert = false",
                "ssl_options.versions.1 = tlsv1.3",
                "ssl_options.versions.2 = tlsv1.2",
                "ssl_cert_login_from = common_name",
                "auth_mechanisms.1 = PLAIN",
                "auth_mechanisms.2 = AMQPLAIN",
                "auth_mechanisms.3 = EXTERNAL",
                f"management.tcp.ip = {LOOPBACK}",
                f"management.tcp.port = {ports.management}",
                f"stream.listeners.tcp.1 = {LOOPBACK}:{ports.stream}",
                f"prometheus.tcp.ip = {LOOPBACK}",
                f"prometheus.tcp.port = {ports.prometheus}",
                # The first start makes this user instead of guest.
                f"default_user = {description.username}",
                f"default_pass = {description.password}",
                "default_user_tags.administrator = true",
                "default_vhost = /",
                # Counts that are a second old instead of five: people watch them.
                "collect_statistics_interval = 1000",
                f"max_message_size = {_MAX_MESSAGE}",
                "raft.wal_max_size_bytes = 134217728",
                "log.file = rabbitmq.log",
                "log.file.level = info",
                "log.console = false",
                "",
            )
        )

    def _check_server(self) -> None:
        if not os.access(self._server, os.X_OK) or shutil.which("epmd") is None:
            raise StackbusError(
                f"RabbitMQ is not installed ({self._server} is missing): apt-get install "
                "rabbitmq-server, or say where it is with STACKBUS_RABBITMQ_SERVER"
            )


def _node_name(state: Path) -> str:
    return f"stackbus-{sha256(str(state.resolve()).encode()).hexdigest()[:10]}@localhost"


def _advertised(listen: str) -> str:
    return socket.getfqdn() if listen in ("0.0.0.0", "::") else listen  # noqa: S104


def _chosen(before: Ports | None, wish: Wish, listen: str, within: range) -> Ports:
    """Take the ports asked for, else those of the last start, else free ones."""
    taken: set[int] = set()
    wanted = {"amqp": wish.port_amqp, "amqps": wish.port_amqps}
    ports = {}
    for name in Ports.__dataclass_fields__:
        host = listen if name in wanted else LOOPBACK
        known = wanted.get(name) or (getattr(before, name) if before else None)
        if known is not None:
            if not is_free(host, known) or known in taken:
                raise StackbusError(
                    f"port {known} ({name}) on {host} is taken by another process: stop that, or "
                    "choose another with --port-amqp or --port-amqp-tls"
                )
            ports[name] = known
        else:
            ports[name] = free_port(host, taken, within)
        taken.add(ports[name])
    return Ports(**ports)


def free_port(host: str, taken: set[int], within: range = PORTS) -> int:
    """Draw a free port on ``host``, not in ``taken``."""
    for _ in range(1000):
        port = secrets.choice(within)
        if port not in taken and is_free(host, port):
            return port
    raise StackbusError(f"no free port between {within[0]} and {within[-1]} on {host}")


def is_free(host: str, port: int) -> bool:
    """Tell whether nobody listens on ``port``."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
        return True
