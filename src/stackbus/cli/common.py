"""Options that many commands share, and how they become Settings."""

from __future__ import annotations

import re
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any

import prometheus_client
import typer
from pydantic import ValidationError

from stackbus import private_bus, wiring
from stackbus.cli.output import Format
from stackbus.errors import InputError, StackbusError
from stackbus.settings import Settings
from stackbus.units import parse_duration

State = Annotated[
    Path | None,
    typer.Option(
        "--state",
        help="Folder of all that stackbus keeps. Default: $XDG_STATE_HOME/stackbus.",
        show_default=False,
    ),
]
ManagementUrl = Annotated[
    str | None,
    typer.Option(
        "--management-url",
        help="RabbitMQ management API of a broker of your own, such as "
        "https://rabbit.example:15671. The password comes from STACKBUS_MANAGEMENT_PASSWORD_FILE "
        "or STACKBUS_MANAGEMENT_PASSWORD.",
        show_default=False,
    ),
]
ManagementUser = Annotated[
    str | None,
    typer.Option("--management-user", help="Its administrator.", show_default=False),
]
Advertise = Annotated[
    str | None,
    typer.Option(
        "--advertise",
        metavar="HOST[,HOST]",
        help="What consumers are told to connect to, and the server's certificate names.",
        show_default=False,
    ),
]
PortAmqp = Annotated[
    int | None,
    typer.Option("--port-amqp", min=1, max=65535, show_default=False, help="Plain port."),
]
PortAmqpTls = Annotated[
    int | None,
    typer.Option("--port-amqp-tls", min=1, max=65535, show_default=False, help="TLS port."),
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
        help="Serve Prometheus metrics there.",
        show_default=False,
    ),
]
HistoryDsn = Annotated[
    str | None,
    typer.Option(
        "--history",
        metavar="DSN",
        envvar="STACKBUS_HISTORY",
        help="Where events are kept: chdb:///path or clickhouse[s]://host/database; one with a "
        "password goes into the environment. Default: <state>/history.",
        show_default=False,
    ),
]
Since = Annotated[
    str | None,
    typer.Option(help="From this time on: -2h, or ISO 8601 (UTC).", show_default=False),
]
Until = Annotated[
    str | None, typer.Option(help="Before this time: -2h, or ISO 8601.", show_default=False)
]
Output = Annotated[Format, typer.Option("-o", "--output", help="How to print the result.")]

_HOST = re.compile(r"[A-Za-z0-9]([A-Za-z0-9.:-]{0,251}[A-Za-z0-9])?")


def settings(
    state: Path | None = None,
    management_url: str | None = None,
    management_user: str | None = None,
    **others: object,
) -> Settings:
    """Read the settings from the environment; options override. Raises InputError."""
    given: dict[str, Any] = {
        "state": state.expanduser().absolute() if state else None,
        "management_url": management_url,
        "management_user": management_user,
        **others,
    }
    try:
        return Settings(**{name: value for name, value in given.items() if value is not None})
    except ValidationError as error:
        first = error.errors()[0]
        name = str(first["loc"][0])
        secret = "SecretStr" in str(Settings.model_fields[name].annotation)
        shown = "" if secret else f"{first['input']!r}: "
        raise InputError(f"setting STACKBUS_{name.upper()}: {shown}{first['msg']}") from None
    except ValueError as error:  # a list that is no JSON
        raise InputError(f"settings: {error}") from None


def hosts(advertise: str | None) -> tuple[str, ...] | None:
    """Read ``--advertise``. Raises InputError for what is no host."""
    if advertise is None:
        return None
    listed = tuple(host.strip() for host in advertise.split(","))
    for host in listed:
        if not _HOST.fullmatch(host):
            raise InputError(f"--advertise: {host!r}: no host name or address")
    return listed


def duration(text: str, option: str) -> timedelta:
    """Read ``24h``. Raises InputError."""
    try:
        return parse_duration(text)
    except ValueError as error:
        raise InputError(f"{option}: {error}") from None


def check_auth(auth: str) -> None:
    """Refuse what is no way to log in. Raises InputError."""
    if auth not in ("certificate", "password"):
        raise InputError(f"--auth: {auth!r}: certificate or password")


def serve_metrics(metrics: str | None) -> None:
    """Serve Prometheus metrics at ADDRESS:PORT, if that is given."""
    if metrics is None:
        return
    address, _, port = metrics.rpartition(":")
    if not port.isdecimal() or not address:
        raise InputError(f"--metrics: {metrics!r}: ADDRESS:PORT was expected")
    try:
        prometheus_client.start_http_server(int(port), address)
    except (OSError, OverflowError) as error:
        raise StackbusError(f"--metrics {metrics}: {error}") from error


def require_up(chosen: Settings) -> None:
    """Raise StackbusError with the mend if the private bus is meant and is not up."""
    if chosen.management_url is None and not private_bus.is_up(chosen):
        raise StackbusError(
            f"no bus is up in {chosen.state}: start one with `stackbus up`, or name your own "
            "with --management-url"
        )


def complete_topic(context: typer.Context, incomplete: str) -> list[str]:
    """Complete a topic's name in the shell, from the Secrets of the state folder."""
    try:
        chosen = settings(context.params.get("state"))
        topics = [topic.name for topic in wiring.saved_deployment(chosen).topics]
    except StackbusError:
        return []
    return [name for name in topics if name.startswith(incomplete)]


Topic = Annotated[
    str, typer.Argument(help="The topic's name.", autocompletion=complete_topic, show_default=False)
]
