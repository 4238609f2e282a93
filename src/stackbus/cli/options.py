"""The options that commands share, and how a command reads its settings from them."""

from __future__ import annotations

import os
import re
from datetime import datetime, timedelta
from pathlib import Path
from typing import Annotated

import typer

from stackbus import units
from stackbus.cli.output import Format
from stackbus.errors import InputError, StackbusError
from stackbus.settings import Settings, read_settings

State = Annotated[
    Path | None,
    typer.Option(
        "--state",
        help="The state folder, which holds all that stackbus keeps. "
        "Default: $XDG_STATE_HOME/stackbus.",
        show_default=False,
    ),
]
ManagementUrl = Annotated[
    str | None,
    typer.Option(
        "--management-url",
        help="URL of the RabbitMQ management API of your own broker, such as "
        "https://rabbit.example:15671. The password comes from STACKBUS_MANAGEMENT_PASSWORD_FILE "
        "or STACKBUS_MANAGEMENT_PASSWORD.",
        show_default=False,
    ),
]
ManagementUser = Annotated[
    str | None,
    typer.Option("--management-user", help="Administrator of your own broker.", show_default=False),
]
Advertise = Annotated[
    str | None,
    typer.Option(
        "--advertise",
        metavar="HOST[,HOST]",
        help="Hosts that the topics' Secrets name, and the server's certificate.",
        show_default=False,
    ),
]
PortAmqp = Annotated[
    int | None,
    typer.Option(
        "--port-amqp", min=1, max=65535, show_default=False, help="AMQP port without TLS."
    ),
]
PortAmqpTls = Annotated[
    int | None,
    typer.Option(
        "--port-amqp-tls", min=1, max=65535, show_default=False, help="AMQP port with TLS."
    ),
]
DeploymentFile = Annotated[
    Path,
    typer.Option(
        "-f", "--filename", help="The OpenStackDeployment, a YAML file; - is standard input."
    ),
]
Metrics = Annotated[
    str | None,
    typer.Option(
        "--metrics",
        metavar="ADDRESS:PORT",
        help="Serve Prometheus metrics at this address.",
        show_default=False,
    ),
]
HistoryDsn = Annotated[
    str | None,
    typer.Option(
        "--history",
        metavar="DSN",
        envvar="STACKBUS_HISTORY",
        help="The history's database: chdb:///path or clickhouse[s]://host/database. Set one with "
        "a password in the environment. Default: <state>/history.",
        show_default=False,
    ),
]
Digests = Annotated[
    Path | None,
    typer.Option(help="Folder of the digests. Default: <state>/digests.", show_default=False),
]
Since = Annotated[
    str | None,
    typer.Option(help="From this time on: -2h, or ISO 8601 (UTC).", show_default=False),
]
Until = Annotated[
    str | None, typer.Option(help="Before this time: -2h, or ISO 8601 (UTC).", show_default=False)
]
UntilIdle = Annotated[
    str | None,
    typer.Option(help="End after this time without a notification: 5s.", show_default=False),
]
Output = Annotated[Format, typer.Option("-o", "--output", help="Format of the result.")]

_HOST = re.compile(r"[A-Za-z0-9]([A-Za-z0-9.:-]{0,251}[A-Za-z0-9])?")


def settings(
    state: Path | None = None,
    management_url: str | None = None,
    management_user: str | None = None,
    **overrides: object,
) -> Settings:
    """Read the settings from the environment, overridden by the options. Raises InputError."""
    options = {
        "state": state.expanduser().absolute() if state else None,
        "management_url": management_url,
        "management_user": management_user,
        **overrides,
    }
    return read_settings(
        os.environ, {name: value for name, value in options.items() if value is not None}
    )


def parse_hosts(advertise: str | None) -> tuple[str, ...] | None:
    """Read ``--advertise``. Raises InputError for a text that is not a host."""
    if advertise is None:
        return None
    hosts = tuple(host.strip() for host in advertise.split(","))
    for host in hosts:
        if not _HOST.fullmatch(host):
            raise InputError(f"--advertise: {host!r} is not a host name or an IP address")
    return hosts


def parse_duration(text: str, option: str) -> timedelta:
    """Read ``24h``. Raises InputError that names the option."""
    try:
        return units.parse_duration(text)
    except ValueError as error:
        raise InputError(f"{option}: {error}") from None


def parse_idle_seconds(until_idle: str | None) -> float | None:
    """Read ``--until-idle`` in seconds. Raises InputError."""
    return parse_duration(until_idle, "--until-idle").total_seconds() if until_idle else None


def parse_period(
    since: str | None, until: str | None, now: datetime
) -> tuple[datetime | None, datetime | None]:
    """Read ``--since`` and ``--until``; times such as -2h count from ``now``. Raises InputError."""
    from stackbus.query.filter import parse_time  # noqa: PLC0415 -- imports the history

    return (
        parse_time(since, "--since", now) if since else None,
        parse_time(until, "--until", now) if until else None,
    )


def parse_auth(auth: str) -> bool:
    """Read ``--auth``: return whether to log in by password. Raises InputError."""
    if auth not in ("certificate", "password"):
        raise InputError(f"--auth: {auth!r} is neither certificate nor password")
    return auth == "password"


def serve_metrics(metrics: str | None) -> None:
    """Serve Prometheus metrics at ``--metrics``, if it is given. Raises InputError."""
    if metrics is None:
        return
    from prometheus_client import start_http_server  # noqa: PLC0415 -- imports an HTTP server

    address, _, port = metrics.rpartition(":")
    if not port.isdecimal() or not address:
        raise InputError(f"--metrics: {metrics!r} is not ADDRESS:PORT")
    try:
        start_http_server(int(port), address)
    except (OSError, OverflowError) as error:
        raise StackbusError(f"--metrics {metrics}: metrics cannot be served: {error}") from error


def complete_topic(context: typer.Context, incomplete: str) -> list[str]:
    """Complete a topic's name in the shell, from the deployment of the last apply."""
    from stackbus.wiring.control import saved_deployment  # noqa: PLC0415 -- in completion only

    try:
        topics = saved_deployment(settings(context.params.get("state"))).topics
    except StackbusError:
        return []
    return [topic.name for topic in topics if topic.name.startswith(incomplete)]


Topic = Annotated[
    str,
    typer.Argument(help="Name of the topic.", autocompletion=complete_topic, show_default=False),
]
