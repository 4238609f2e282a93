"""The door to ``stackbus tail``: notifications as they arrive, one line each."""

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

from stackbus import logs, wiring
from stackbus.bus.names import PRIORITIES
from stackbus.bus.routing import RoutingFilter
from stackbus.cli import common
from stackbus.cli.output import Format, errors, note, pipe_may_close
from stackbus.errors import InputError
from stackbus.expose import tail as tailing
from stackbus.expose.deployment import service_name
from stackbus.expose.tail import Acknowledge, End, Message

_LINE = "{:<19}  {:<8}  {:<9}  {:<32}  {:<44}  {}"


def tail(
    topic: Annotated[
        str | None,
        typer.Argument(
            help="Watch this topic; takes nothing from its consumer.",
            autocompletion=common.complete_topic,
            show_default=False,
        ),
    ] = None,
    secret: Annotated[
        Path | None,
        typer.Option(
            help="Consume as the consumer would, with this Secret's manifest; acknowledges what "
            "it has printed.",
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
        typer.Option(help="Only this service, by name or type. Repeatable.", show_default=False),
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
        typer.Option(help="Only this project's, by id. Repeatable.", show_default=False),
    ] = None,
    priority: Annotated[
        list[str] | None,
        typer.Option(help="Only this priority. Repeatable.", show_default=False),
    ] = None,
    limit: Annotated[
        int | None,
        typer.Option("--limit", "-n", min=1, help="End after so many.", show_default=False),
    ] = None,
    until_idle: Annotated[
        str | None,
        typer.Option(help="End when nothing has come for so long: 5s.", show_default=False),
    ] = None,
    output: common.Output = Format.table,
    management_url: common.ManagementUrl = None,
    management_user: common.ManagementUser = None,
    state: common.State = None,
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
        chosen = _filter(service, event_type, project, priority)
        end.idle = (
            common.duration(until_idle, "--until-idle").total_seconds() if until_idle else None
        )
        settings = common.settings(state, management_url, management_user)
        if (topic is None) == (secret is None):
            raise InputError("name a topic to watch, or a Secret to consume with: --secret FILE")
        common.check_auth(auth)
        if secret is not None:
            name, parameters = wiring.consumer(
                secret, "stackbus tail", by_password=auth == "password", plain=plain
            )
            messages = tailing.consume(parameters, name, chosen, end)
        else:
            if plain or auth != "certificate":
                raise InputError("--auth and --plain go with --secret")
            common.require_up(settings)
            with wiring.bus(settings) as where:
                parameters = wiring.tail_parameters(settings, where)
            messages = tailing.watch(parameters, str(topic), chosen, end)
        with closing(messages):
            _print_all(messages, limit, _printer(output))


def _filter(
    services: list[str] | None,
    types: list[str] | None,
    projects: list[str] | None,
    priorities: list[str] | None,
) -> RoutingFilter:
    names = []
    for given in services or []:
        name = service_name(given)
        if name is None:
            raise InputError(f"--service: {given!r}: no service that emits notifications")
        names.append(name)
    for given in priorities or []:
        if given not in PRIORITIES:
            raise InputError(f"--priority: {given!r}: one of {', '.join(PRIORITIES)}")
    return RoutingFilter(
        tuple(names), tuple(types or ()), tuple(projects or ()), tuple(priorities or ())
    )


def _print_all(
    messages: Iterator[tuple[Message, Acknowledge]],
    limit: int | None,
    show: Callable[[Message], None],
) -> None:
    """Print until the end; a closed pipe is one."""
    with pipe_may_close():
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
    when = message.time.strftime("%Y-%m-%d %H:%M:%S") if message.time else "-"
    scrubbed = ", ".join(message.scrubbed)
    return _LINE.format(
        when, message.priority, message.service, message.project, message.event_type, scrubbed
    ).rstrip()
