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
from stackbus.cli import common
from stackbus.cli.output import Format, errors, note, pipe_may_close
from stackbus.errors import InputError
from stackbus.expose import tail as tailing
from stackbus.expose.deployment import service_named
from stackbus.expose.tail import Acknowledge, End, Filter, Told
from stackbus.services.service import PRIORITIES

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
        signal.signal(number, lambda *_: setattr(end, "wanted", True))
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
            told = tailing.consume(parameters, name, chosen, end)
        else:
            if plain or auth != "certificate":
                raise InputError("--auth and --plain go with --secret")
            common.require_up(settings)
            with wiring.bus(settings) as where:
                parameters = wiring.tail_parameters(settings, where)
            told = tailing.watch(parameters, str(topic), chosen, end)
        with closing(told):
            _print_all(told, limit, _printer(output))


def _filter(
    services: list[str] | None,
    types: list[str] | None,
    projects: list[str] | None,
    priorities: list[str] | None,
) -> Filter:
    names = []
    for given in services or []:
        name = service_named(given)
        if name is None:
            raise InputError(f"--service: {given!r}: no service that emits notifications")
        names.append(name)
    for given in priorities or []:
        if given not in PRIORITIES:
            raise InputError(f"--priority: {given!r}: one of {', '.join(PRIORITIES)}")
    return Filter(tuple(names), tuple(types or ()), tuple(projects or ()), tuple(priorities or ()))


def _print_all(
    told: Iterator[tuple[Told, Acknowledge]], limit: int | None, show: Callable[[Told], None]
) -> None:
    """Print until the end; a closed pipe is one."""
    with pipe_may_close():
        for one, acknowledge in islice(told, limit):
            show(one)
            sys.stdout.flush()
            acknowledge()


def _printer(output: Format) -> Callable[[Told], None]:
    if output is Format.json:
        return lambda told: print(json.dumps(told.to_json()))
    if output is Format.yaml:
        return lambda told: print("---\n" + yaml.safe_dump(told.to_json(), sort_keys=False), end="")
    print(_LINE.format("TIME", "PRIORITY", "SERVICE", "PROJECT", "TYPE", "SCRUBBED"))
    note("waiting for notifications; Ctrl-C ends")
    return lambda told: print(_line(told))


def _line(told: Told) -> str:
    when = told.time.strftime("%Y-%m-%d %H:%M:%S") if told.time else "-"
    scrubbed = ", ".join(told.scrubbed)
    return _LINE.format(
        when, told.priority, told.service, told.project, told.event_type, scrubbed
    ).rstrip()
