"""The command ``stackbus tail``: notifications as they arrive, one line each."""

from __future__ import annotations

import json
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from itertools import islice
from pathlib import Path
from typing import Annotated

import typer
import yaml

from stackbus import logs
from stackbus.bus.names import PRIORITIES
from stackbus.bus.routing import RoutingFilter
from stackbus.cli import options
from stackbus.cli.output import Format, end_with_pipe, errors, note
from stackbus.errors import InputError
from stackbus.expose import tail as tailing
from stackbus.expose.deployment import service_name
from stackbus.expose.tail import Acknowledge, End, Message
from stackbus.wiring.broker import open_broker, require_up
from stackbus.wiring.consumers import read_consumer, tail_parameters

_LINE = "{:<19}  {:<8}  {:<9}  {:<32}  {:<44}  {}"


def tail(
    topic: Annotated[
        str | None,
        typer.Argument(
            help="Watch this topic, without taking notifications from its consumer.",
            autocompletion=options.complete_topic,
            show_default=False,
        ),
    ] = None,
    secret: Annotated[
        Path | None,
        typer.Option(
            help="Consume as the consumer of the topic, with this manifest of its Secret. Each "
            "notification is acknowledged once it is printed.",
            show_default=False,
        ),
    ] = None,
    auth: Annotated[
        str, typer.Option(help="With --secret: log in by `certificate` or by `password`.")
    ] = "certificate",
    plain: Annotated[
        bool, typer.Option("--plain", help="With --secret: without TLS, by password.")
    ] = False,
    service: Annotated[
        list[str] | None,
        typer.Option(
            help="Only notifications of this service, by name or type. Repeatable.",
            show_default=False,
        ),
    ] = None,
    event_type: Annotated[
        list[str] | None,
        typer.Option(
            "--type",
            help="Only event types of this pattern: * is one word, # any number. Repeatable.",
            show_default=False,
        ),
    ] = None,
    project: Annotated[
        list[str] | None,
        typer.Option(help="Only notifications of this project id. Repeatable.", show_default=False),
    ] = None,
    priority: Annotated[
        list[str] | None,
        typer.Option(help="Only notifications of this priority. Repeatable.", show_default=False),
    ] = None,
    limit: Annotated[
        int | None,
        typer.Option(
            "--limit", "-n", min=1, help="End after this many notifications.", show_default=False
        ),
    ] = None,
    until_idle: options.UntilIdle = None,
    output: options.Output = Format.table,
    management_url: options.ManagementUrl = None,
    management_user: options.ManagementUser = None,
    state: options.State = None,
) -> None:
    """Print notifications as they arrive, until Ctrl-C.

    Examples: stackbus tail external-consumer-a --service nova --type "instance.#"
    / stackbus tail --secret secret.yaml -o json
    """
    end = End()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: setattr(end, "is_requested", True))
    with errors():
        logs.configure()
        routing_filter = _filter(service, event_type, project, priority)
        end.idle = options.parse_idle_seconds(until_idle)
        settings = options.settings(state, management_url, management_user)
        if (topic is None) == (secret is None):
            raise InputError("name a topic to watch, or a Secret to consume with: --secret FILE")
        by_password = options.parse_auth(auth)
        if secret is not None:
            name, parameters = read_consumer(
                secret, "stackbus tail", by_password=by_password, plain=plain
            )
            messages = tailing.consume(parameters, name, routing_filter, end)
        else:
            if plain or by_password:
                raise InputError("--auth and --plain can only be used with --secret")
            require_up(settings)
            with open_broker(settings) as broker:
                parameters = tail_parameters(settings, broker)
            messages = tailing.watch(parameters, str(topic), routing_filter, end)
        with closing(messages):
            _print_all(messages, limit, _printer(output))


def _filter(
    services: list[str] | None,
    types: list[str] | None,
    projects: list[str] | None,
    priorities: list[str] | None,
) -> RoutingFilter:
    names = []
    for service in services or []:
        name = service_name(service)
        if name is None:
            raise InputError(f"--service: {service!r} is not a service that emits notifications")
        names.append(name)
    for priority in priorities or []:
        if priority not in PRIORITIES:
            raise InputError(f"--priority: {priority!r} is not one of {', '.join(PRIORITIES)}")
    return RoutingFilter(
        services=tuple(names),
        event_types=tuple(types or ()),
        projects=tuple(projects or ()),
        priorities=tuple(priorities or ()),
    )


def _print_all(
    messages: Iterator[tuple[Message, Acknowledge]],
    limit: int | None,
    show: Callable[[Message], None],
) -> None:
    """Print and acknowledge each message, until the end or until the reader has gone."""
    with end_with_pipe():
        for message, acknowledge in islice(messages, limit):
            show(message)
            sys.stdout.flush()
            acknowledge()


def _printer(output: Format) -> Callable[[Message], None]:
    if output is Format.json:
        return lambda message: print(json.dumps(message.to_json()))
    if output is Format.yaml:
        return lambda message: print(
            "---\n" + yaml.safe_dump(message.to_json(), sort_keys=False), end=""
        )
    print(_LINE.format("TIME", "PRIORITY", "SERVICE", "PROJECT", "TYPE", "SCRUBBED"))
    note("waiting for notifications; Ctrl-C ends")
    return lambda message: print(_line(message))


def _line(message: Message) -> str:
    time = message.time.strftime("%Y-%m-%d %H:%M:%S") if message.time else "-"
    return _LINE.format(
        time,
        message.priority,
        message.service,
        message.project,
        message.event_type,
        ", ".join(message.scrubbed),
    ).rstrip()
