"""The command ``stackbus events``.

Each text field of an event is an option: ``_add_field_options`` makes them from the list of fields.
"""

from __future__ import annotations

import csv
import functools
import inspect
import json
import shutil
import signal
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import UTC, datetime
from enum import StrEnum
from itertools import chain
from typing import Annotated

import msgspec
import typer

from stackbus import logs
from stackbus.cli import options
from stackbus.cli.output import end_with_pipe, errors, escape, show_table
from stackbus.errors import InputError
from stackbus.events.model import FIELD_INFO, FIELDS, TEXT_FIELDS, Event
from stackbus.query import events as asking
from stackbus.query.filter import EventFilter, parse_time
from stackbus.wiring.history import open_history


class EventFormat(StrEnum):
    """Formats of events."""

    table = "table"
    json = "json"
    jsonl = "jsonl"
    csv = "csv"


_JSON = (EventFormat.json, EventFormat.jsonl)


def _option_help(name: str) -> str:
    """Return the help of a field's option: the description of the field."""
    description = FIELD_INFO[name].description
    return f"{description[0].upper()}{description[1:]}."


def _add_field_options(command: Callable[..., None]) -> Callable[..., None]:
    """Add an option for each text field; ``command`` receives them all as ``fields``."""

    @functools.wraps(command)
    def with_field_options(**arguments: object) -> None:
        fields = {name: arguments.pop(name) for name in TEXT_FIELDS}
        command(fields={name: values for name, values in fields.items() if values}, **arguments)

    field_options = [
        inspect.Parameter(
            name,
            inspect.Parameter.KEYWORD_ONLY,
            default=None,
            annotation=Annotated[
                list[str] | None,
                typer.Option(
                    f"--{name.replace('_', '-')}",
                    metavar="VALUE",
                    help=_option_help(name),
                    show_default=False,
                ),
            ],
        )
        for name in TEXT_FIELDS
    ]
    signature = inspect.signature(command, eval_str=True)
    own_parameters = [
        parameter for name, parameter in signature.parameters.items() if name != "fields"
    ]
    with_field_options.__dict__["__signature__"] = signature.replace(
        parameters=[*field_options, *own_parameters]
    )
    with_field_options.__annotations__ = {
        parameter.name: parameter.annotation for parameter in (*field_options, *own_parameters)
    }
    return with_field_options


@_add_field_options
def events(
    *,
    fields: Mapping[str, list[str]],
    index: Annotated[
        list[int] | None,
        typer.Option(
            metavar="VALUE", help="Only with this index in its notification.", show_default=False
        ),
    ] = None,
    channel: Annotated[
        list[str] | None,
        typer.Option(
            metavar="VALUE",
            help="Only of this channel: bus, log, opensearch.",
            show_default=False,
        ),
    ] = None,
    attribute: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=VALUE", help="Only with this attribute: vcpus=4.", show_default=False
        ),
    ] = None,
    payload: Annotated[
        str | None,
        typer.Option(
            metavar="TEXT", help="Only with this text in the payload.", show_default=False
        ),
    ] = None,
    since: options.Since = None,
    until: options.Until = None,
    received_since: Annotated[
        str | None, typer.Option(help="Recorded from this time on.", show_default=False)
    ] = None,
    follow: Annotated[
        bool, typer.Option("--follow", help="Go on with events as they are recorded.")
    ] = False,
    count: Annotated[
        bool, typer.Option("--count", help="Print only the number of events.")
    ] = False,
    by: Annotated[
        list[str] | None,
        typer.Option(
            metavar="FIELD", help="With --count: for each value of this field.", show_default=False
        ),
    ] = None,
    limit: Annotated[
        int, typer.Option("--limit", "-n", min=0, help="The newest so many; 0 for all.")
    ] = 100,
    output: Annotated[
        EventFormat, typer.Option("-o", "--output", help="Format of the events.")
    ] = EventFormat.table,
    history: options.HistoryDsn = None,
    state: options.State = None,
) -> None:
    """Print events of the history, oldest first.

    Every field is a filter. An option given twice matches any of its values; * and ? are patterns.
    Example: stackbus events --type "instance.*" --outcome failure --since -2h
    """
    with errors():
        logs.configure()
        settings = options.settings(state, history=history)
        now = datetime.now(UTC)
        begin, end = options.parse_period(since, until, now)
        event_filter = EventFilter(
            values={name: tuple(values) for name, values in fields.items()},
            indices=tuple(index or ()),
            since=begin,
            until=end,
            received_since=parse_time(received_since, "--received-since", now)
            if received_since
            else None,
            channels=tuple(channel or ()),
            attributes=tuple(_parse_attribute(text) for text in attribute or ()),
            payload=payload or "",
        )
        if follow and count:
            raise InputError("--follow and --count cannot be used together")
        if by and not count:
            raise InputError("--by can only be used with --count")
        with open_history(settings) as store, end_with_pipe():
            if by:
                _print_counts(asking.count_by(store, event_filter, by), by, output)
                return
            if count:
                number = asking.count_events(store, event_filter)
                print(json.dumps({"count": number}) if output in _JSON else number)
                return
            has_payload = output is not EventFormat.table
            answer: Iterator[Event] = asking.list_events(
                store, event_filter, limit, with_payload=has_payload
            )
            if follow:
                is_stopped = _catch_signals()
                answer = chain(
                    answer,
                    asking.follow_events(
                        store, event_filter, now, is_stopped, with_payload=has_payload
                    ),
                )
            _print_events(answer, output)


def _catch_signals() -> Callable[[], bool]:
    """Return a function that tells whether SIGINT or SIGTERM has been received."""
    received: list[int] = []
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda number, _: received.append(number))
    return lambda: bool(received)


def _parse_attribute(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not name or not equals:
        raise InputError(f"--attribute: {text!r} is not NAME=VALUE")
    return name, value


def _print_events(events: Iterable[Event], output: EventFormat) -> None:
    match output:
        case EventFormat.jsonl:
            for event in events:
                print(event.encode_json(), flush=True)
        case EventFormat.json:
            before = "["
            for event in events:
                print(before + event.encode_json(), end="", flush=True)
                before = ",\n"
            print("]" if before != "[" else "[]")
        case EventFormat.csv:
            writer = csv.writer(sys.stdout, lineterminator="\n")
            writer.writerow(FIELDS)
            for event in events:
                writer.writerow(_csv_row(event))
                sys.stdout.flush()
        case _:
            _print_table(events)


_CSV_TEXT = tuple(name for name in FIELDS if name not in ("attributes", "payload", "channels"))


def _csv_row(event: Event) -> list[object]:
    value = msgspec.to_builtins({name: getattr(event, name) for name in _CSV_TEXT})
    value["attributes"] = msgspec.json.encode(event.attributes).decode()
    value["payload"] = bytes(event.payload).decode()
    value["channels"] = " ".join(event.channels)
    return [value[name] for name in FIELDS]


def _print_counts(groups: Iterable[asking.Group], by: list[str], output: EventFormat) -> None:
    rows = ({**dict(zip(by, group.values, strict=True)), "count": group.count} for group in groups)
    match output:
        case EventFormat.json:
            print(json.dumps(list(rows), indent=2))
        case EventFormat.jsonl:
            for row in rows:
                print(json.dumps(row))
        case EventFormat.csv:
            writer = csv.DictWriter(sys.stdout, [*by, "count"], lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)
        case _:
            titles = [name.upper() for name in by]
            show_table(
                [*titles, ">COUNT"],
                [
                    (*(value or "-" for value in group.values), f"{group.count:,}")
                    for group in groups
                ],
            )


_ROW = "{:<19}  {:<9}  {:<38}  {:<7}  {:<14}  {:<36}  {}"


def _print_table(events: Iterable[Event]) -> None:
    """Print each event as it comes, on one line, cut to the terminal's width."""
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
    print(
        _ROW.format("TIME", "SERVICE", "TYPE", "OUTCOME", "KIND", "RESOURCE", "WHO")[:width],
        flush=True,
    )
    for event in events:
        line = _ROW.format(
            f"{event.time:%Y-%m-%d %H:%M:%S}",
            event.service or "-",
            event.type,
            event.outcome,
            event.resource_type or "-",
            event.resource_name or event.resource_id or "-",
            event.user_name or event.user_id or "-",
        )
        print(escape(line)[:width], flush=True)
