"""The doors to the history: events, audit, coverage, quarantine, sign, verify, history schema."""

from __future__ import annotations

import csv
import json
import shutil
import signal
import sys
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from datetime import UTC, datetime
from enum import StrEnum
from itertools import chain
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer

from stackbus import logs, wiring
from stackbus.cli import common
from stackbus.cli.output import (
    Format,
    errors,
    note,
    pipe_may_close,
    progress,
    show,
    show_table,
    visible,
)
from stackbus.errors import InputError, StackbusError
from stackbus.events.model import FIELDS, Event
from stackbus.history.history import Layout, migrations, statements
from stackbus.query import audit as telling
from stackbus.query import coverage as covering
from stackbus.query import digests as signing
from stackbus.query import events as asking
from stackbus.query import proof
from stackbus.query.filter import Filter, moment
from stackbus.sinks import quarantine as setting_aside

_MOST_LISTED = 1000


class EventFormat(StrEnum):
    """How events are printed."""

    table = "table"
    json = "json"
    jsonl = "jsonl"
    csv = "csv"


Values = list[str] | None


def _field(name: str, more: str = "") -> Any:
    return typer.Option(
        f"--{name}",
        metavar="VALUE",
        help=f"Only with this {name.replace('-', ' ')}{more}.",
        show_default=False,
    )


def events(
    type_: Annotated[Values, _field("type", ": a glob, such as 'instance.*'")] = None,
    service: Annotated[Values, _field("service")] = None,
    action: Annotated[Values, _field("action", ": create, delete, login, ...")] = None,
    phase: Annotated[Values, _field("phase", ": start, end, error, none")] = None,
    outcome: Annotated[Values, _field("outcome", ": success, failure, unknown")] = None,
    priority: Annotated[Values, _field("priority")] = None,
    resource_type: Annotated[Values, _field("resource-type", ": server, volume, ...")] = None,
    resource_id: Annotated[Values, _field("resource-id")] = None,
    resource_name: Annotated[Values, _field("resource-name")] = None,
    project_id: Annotated[Values, _field("project-id", ", the owner's")] = None,
    user_id: Annotated[Values, _field("user-id", ", the actor's")] = None,
    user_name: Annotated[Values, _field("user-name", ", the actor's")] = None,
    actor_project_id: Annotated[Values, _field("actor-project-id")] = None,
    request_id: Annotated[Values, _field("request-id")] = None,
    global_request_id: Annotated[Values, _field("global-request-id")] = None,
    address: Annotated[Values, _field("address", ", from which it was done")] = None,
    publisher: Annotated[Values, _field("publisher")] = None,
    host: Annotated[Values, _field("host")] = None,
    id_: Annotated[Values, _field("id", ": the notification's message_id")] = None,
    index: Annotated[list[int] | None, _field("index", " within its notification")] = None,
    channel: Annotated[Values, _field("channel", ": bus, log, opensearch")] = None,
    attribute: Annotated[
        Values,
        typer.Option(
            metavar="NAME=VALUE", help="Only with this attribute: vcpus=4.", show_default=False
        ),
    ] = None,
    payload: Annotated[
        str | None,
        typer.Option(metavar="TEXT", help="Only with this text in it.", show_default=False),
    ] = None,
    since: common.Since = None,
    until: common.Until = None,
    received_since: Annotated[
        str | None, typer.Option(help="Recorded from this time on.", show_default=False)
    ] = None,
    follow: Annotated[bool, typer.Option("--follow", help="Go on with what comes.")] = False,
    count: Annotated[bool, typer.Option("--count", help="Print only how many.")] = False,
    by: Annotated[
        Values,
        typer.Option(
            metavar="FIELD", help="With --count: for each value of this field.", show_default=False
        ),
    ] = None,
    limit: Annotated[
        int, typer.Option("--limit", "-n", min=0, help="The newest so many; 0 is all.")
    ] = 100,
    output: Annotated[
        EventFormat, typer.Option("-o", "--output", help="How to print them.")
    ] = EventFormat.table,
    history: common.HistoryDsn = None,
    state: common.State = None,
) -> None:
    """Print events of the history, oldest first. Every field is a filter.

    One option given twice: any of the values; * and ? are patterns in each.
    Example: stackbus events --type "instance.*" --outcome failure --since -2h
    """
    with errors():
        logs.configure()
        chosen = common.settings(state, history=history)
        now = datetime.now(UTC)
        given = {
            "id": id_,
            "service": service,
            "type": type_,
            "action": action,
            "phase": phase,
            "outcome": outcome,
            "priority": priority,
            "publisher": publisher,
            "host": host,
            "resource_type": resource_type,
            "resource_id": resource_id,
            "resource_name": resource_name,
            "project_id": project_id,
            "user_id": user_id,
            "user_name": user_name,
            "actor_project_id": actor_project_id,
            "request_id": request_id,
            "global_request_id": global_request_id,
            "address": address,
        }
        wanted = Filter(
            values={name: tuple(values) for name, values in given.items() if values},
            indices=tuple(index or ()),
            since=moment(since, "--since", now) if since else None,
            until=moment(until, "--until", now) if until else None,
            received_since=moment(received_since, "--received-since", now)
            if received_since
            else None,
            channels=tuple(channel or ()),
            attributes=tuple(_attribute(text) for text in attribute or ()),
            payload=payload or "",
        )
        if follow and count:
            raise InputError("--follow and --count do not go together")
        if by and not count:
            raise InputError("--by goes with --count")
        with wiring.history(chosen) as where, pipe_may_close():
            if by:
                _print_counts(asking.counts(where, wanted, by), by, output)
                return
            if count:
                number = asking.count(where, wanted)
                print(json.dumps({"count": number}) if output in _JSON else number)
                return
            whole = output is not EventFormat.table
            found: Iterator[Event] = asking.listed(where, wanted, limit, payload=whole)
            if follow:
                stopped = _Stopped()
                coming = asking.followed(where, wanted, now, stopped, payload=whole)
                found = chain(found, coming)
            _print_events(found, output)


_JSON = (EventFormat.json, EventFormat.jsonl)


def audit(
    resource: Annotated[
        str | None, typer.Argument(help="A resource's id, or its name.", show_default=False)
    ] = None,
    user: Annotated[
        str | None, typer.Option(help="What this user did: id or name.", show_default=False)
    ] = None,
    project: Annotated[
        str | None,
        typer.Option(
            help="What happened to this project's resources, and what was done from it: its id.",
            show_default=False,
        ),
    ] = None,
    request: Annotated[
        str | None,
        typer.Option(help="What this request did: its id, or its global id.", show_default=False),
    ] = None,
    since: common.Since = None,
    until: common.Until = None,
    periodic: Annotated[
        bool, typer.Option("--periodic", help="With periodic reports (exists) too.")
    ] = False,
    output: common.Output = Format.table,
    history: common.HistoryDsn = None,
    state: common.State = None,
) -> None:
    """Tell a story in order: who, from where, did what, with which result, and how long it took.

    Example: stackbus audit 5c1f6e0e-6a0c-4d5e-9a52-0a4a5c4e2f11
    / stackbus audit --user alice --since -1d
    """
    with errors():
        logs.configure()
        chosen = common.settings(state, history=history)
        given = [one for one in (resource, user, project, request) if one]
        if len(given) != 1:
            raise InputError("name one: a RESOURCE, --user, --project or --request")
        now = datetime.now(UTC)
        subject = telling.Subject(resource or "", user or "", project or "", request or "")
        with wiring.history(chosen) as where, progress("reading the history"):
            lines = telling.story(
                where,
                subject,
                moment(since, "--since", now) if since else None,
                moment(until, "--until", now) if until else None,
                periodic=periodic,
            )
        if output is not Format.table:
            show([_line_json(line) for line in lines], output)
            return
        rows = [
            (
                f"{line.time:%Y-%m-%d %H:%M:%S}",
                line.user_name or line.user_id or "-",
                line.address or "-",
                f"{line.action or '-'} {line.resource_type}".strip(),
                line.resource_name or line.resource_id or "-",
                line.state + (f": {line.reason}" if line.reason else ""),
                f"{line.duration:.1f} s" if line.duration is not None else "",
            )
            for line in lines
        ]
        show_table(("TIME", "WHO", "FROM", "WHAT", "RESOURCE", "RESULT", ">TOOK"), rows)
        if not lines:
            note(f"the history tells nothing of {given[0]!r}")


def coverage(
    since: common.Since = None,
    until: common.Until = None,
    missed: Annotated[
        bool, typer.Option("--missed", help="List the notifications that a channel missed.")
    ] = False,
    channel: Annotated[
        str | None, typer.Option(help="With --missed: by this channel alone.", show_default=False)
    ] = None,
    output: common.Output = Format.table,
    history: common.HistoryDsn = None,
    state: common.State = None,
) -> None:
    """Show what each channel told of each service, what only it told, and what it missed.

    A channel that told nothing of a service is not compared there.
    Example: stackbus coverage --since -1d --missed
    """
    with errors():
        logs.configure()
        chosen = common.settings(state, history=history)
        now = datetime.now(UTC)
        first = moment(since, "--since", now) if since else None
        last = moment(until, "--until", now) if until else None
        if channel is not None and not missed:
            raise InputError("--channel goes with --missed")
        with wiring.history(chosen) as where, progress("comparing the channels"):
            found = covering.coverage(where, first, last)
            lacking = list(covering.missed(where, found, first, last, channel))
        listed = [json.loads(msgspec.json.encode(one)) for one in lacking]
        if output is not Format.table:
            show({"coverage": [asdict(one) for one in found], "missed": listed}, output)
        elif missed:
            show_table(
                ("TIME", "SERVICE", "TYPE", "TOLD BY", "ID"),
                [
                    (
                        f"{one.time:%Y-%m-%d %H:%M:%S}",
                        one.service,
                        one.type,
                        ",".join(one.channels),
                        one.id,
                    )
                    for one in lacking
                ],
            )
        else:
            show_table(
                ("SERVICE", "CHANNEL", ">TOLD", ">ONLY IT", ">MISSED"),
                [
                    (one.service or "-", one.channel, f"{one.told:,}", f"{one.only:,}",
                     f"{one.missed:,}")
                    for one in found
                ],
            )  # fmt: skip


def quarantine(
    retry: Annotated[
        bool, typer.Option("--retry", help="Read them again: into the history, if that goes.")
    ] = False,
    body: Annotated[
        str | None,
        typer.Option(metavar="DIGEST", help="Print this one's body.", show_default=False),
    ] = None,
    output: common.Output = Format.table,
    history: common.HistoryDsn = None,
    state: common.State = None,
) -> None:
    """List what came and could not be read, with the reason.

    Example: stackbus quarantine --retry
    """
    with errors():
        logs.configure()
        chosen = common.settings(state, history=history)
        with wiring.history(chosen) as where:
            if retry:
                with progress("reading the quarantine again"):
                    done = setting_aside.retry(where, wiring.scrubber(chosen), wiring.EXTRACTS)
                note(f"{done.released} could be read and are events now, {done.left} are left")
                return
            held = sorted(where.quarantined(), key=lambda one: one.received)
        if body is not None:
            found = [one for one in held if one.digest.startswith(body)]
            if len(found) != 1:
                raise InputError(f"--body: {body!r}: {len(found)} in quarantine begin so")
            sys.stdout.buffer.write(found[0].body)
            return
        if output is not Format.table:
            show(
                [
                    {
                        "digest": one.digest,
                        "received": one.received.isoformat(),
                        "channel": one.channel,
                        "origin": one.origin,
                        "service": one.service,
                        "bytes": len(one.body),
                        "reason": one.reason,
                    }
                    for one in held
                ],
                output,
            )
            return
        rows = [
            (
                one.digest[:12],
                f"{one.received:%Y-%m-%d %H:%M:%S}",
                one.channel,
                one.origin,
                f"{len(one.body):,}",
                one.reason,
            )
            for one in held
        ]
        show_table(("DIGEST", "RECEIVED", "CHANNEL", "ORIGIN", ">BYTES", "REASON"), rows)


Digests = Annotated[
    Path | None,
    typer.Option(help="Folder of the digests. Default: <state>/digests.", show_default=False),
]


def sign(
    key: Annotated[
        Path | None,
        typer.Option(
            help="Private Ed25519 key (PEM), as openssl genpkey -algorithm ed25519 makes it. "
            "Default: STACKBUS_SIGNING_KEY.",
            show_default=False,
        ),
    ] = None,
    digests: Digests = None,
    history: common.HistoryDsn = None,
    state: common.State = None,
) -> None:
    """Sign what has been recorded since the last digest: a digest for each hour.

    Example: stackbus sign --key signing.pem
    """
    with errors():
        logs.configure()
        chosen = common.settings(state, history=history, signing_key=key, digests=digests)
        if chosen.signing_key is None:
            raise InputError("no key: --key FILE, or STACKBUS_SIGNING_KEY")
        secret = signing.private_key(chosen.signing_key)
        folder = wiring.digests(chosen)
        with wiring.history(chosen) as where, progress("looking for what is not signed") as say:
            made = signing.sign(where, folder, secret, datetime.now(UTC), say)
        for path in made:
            print(path)
        if not made:
            note("nothing has been recorded since the last digest")


def verify(
    key: Annotated[
        Path | None,
        typer.Option(
            help="Public Ed25519 key (PEM) of who signed. Default: STACKBUS_VERIFYING_KEY.",
            show_default=False,
        ),
    ] = None,
    digests: Digests = None,
    output: common.Output = Format.table,
    history: common.HistoryDsn = None,
    state: common.State = None,
) -> None:
    """Find events that were changed, removed, added or reordered since they were recorded.

    Needs the history and the digests alone. Ends with 1 if anything is found.
    Example: stackbus verify --key signing.pub
    """
    with errors():
        logs.configure()
        chosen = common.settings(state, history=history, verifying_key=key, digests=digests)
        folder = wiring.digests(chosen)
        trusted = signing.public_key(chosen.verifying_key) if chosen.verifying_key else None
        if trusted is None and signing.written(folder):
            raise InputError(
                f"{folder} holds digests: say whose they are, with --key FILE or "
                "STACKBUS_VERIFYING_KEY"
            )
        with wiring.history(chosen) as where, progress("verifying") as say:
            verdict = proof.verify(where, folder, trusted, wiring.expired_before(chosen), say)
        if output is not Format.table:
            show({**asdict(verdict), "verified": not verdict.findings}, output)
        else:
            _show_verdict(verdict)
        if verdict.findings:
            raise typer.Exit(StackbusError.exit_code)


history_app = typer.Typer(no_args_is_help=True, help="The history itself.")


@history_app.command("schema")
def schema(
    state: common.State = None,
) -> None:
    """Print the tables of the history, as one server and as a cluster have them.

    Example: stackbus history schema
    """
    with errors():
        chosen = common.settings(state)
        cluster = chosen.history_cluster or "cluster"
        for title, layout in (
            ("One server, or embedded", Layout()),
            (f"A cluster (STACKBUS_HISTORY_CLUSTER={cluster})", Layout(cluster)),
        ):
            print(f"-- {title}\n")
            for text in migrations().values():
                for statement in statements(text, layout):
                    print(f"{statement};\n")


class _Stopped:
    """Becomes true at SIGINT or SIGTERM."""

    def __init__(self) -> None:
        self._wanted = False
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._stop)

    def _stop(self, *_: object) -> None:
        self._wanted = True

    def __call__(self) -> bool:
        return self._wanted


def _attribute(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not name or not equals:
        raise InputError(f"--attribute: {text!r}: NAME=VALUE was expected")
    return name, value


def _print_events(found: Iterable[Event], output: EventFormat) -> None:
    match output:
        case EventFormat.jsonl:
            for event in found:
                print(msgspec.json.encode(event).decode(), flush=True)
        case EventFormat.json:
            before = "["
            for event in found:
                print(before + msgspec.json.encode(event).decode(), end="", flush=True)
                before = ",\n"
            print("]" if before != "[" else "[]")
        case EventFormat.csv:
            writer = csv.writer(sys.stdout, lineterminator="\n")
            writer.writerow(FIELDS)
            for event in found:
                value = msgspec.to_builtins({name: getattr(event, name) for name in _SIMPLE})
                value["attributes"] = msgspec.json.encode(event.attributes).decode()
                value["payload"] = bytes(event.payload).decode()
                value["channels"] = " ".join(event.channels)
                writer.writerow([value[name] for name in FIELDS])
                sys.stdout.flush()
        case _:
            _print_table(found)


def _print_counts(
    counted: Iterator[tuple[tuple[str, ...], int]], by: list[str], output: EventFormat
) -> None:
    rows = ({**dict(zip(by, values, strict=True)), "count": count} for values, count in counted)
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
                [(*(value or "-" for value in values), f"{count:,}") for values, count in counted],
            )


_SIMPLE = tuple(name for name in FIELDS if name not in ("attributes", "payload", "channels"))
_ROW = "{:<19}  {:<9}  {:<38}  {:<7}  {:<14}  {:<36}  {}"


def _print_table(found: Iterable[Event]) -> None:
    """Print a line an event, as they come, cut to the terminal's width."""
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
    print(
        _ROW.format("TIME", "SERVICE", "TYPE", "OUTCOME", "KIND", "RESOURCE", "WHO")[:width],
        flush=True,
    )
    for event in found:
        line = _ROW.format(
            f"{event.time:%Y-%m-%d %H:%M:%S}",
            event.service or "-",
            event.type,
            event.outcome,
            event.resource_type or "-",
            event.resource_name or event.resource_id or "-",
            event.user_name or event.user_id or "-",
        )
        print(visible(line)[:width], flush=True)


def _line_json(line: telling.Line) -> dict[str, object]:
    return {
        "time": line.time.isoformat(),
        "duration": line.duration,
        "service": line.service,
        "action": line.action,
        "resource_type": line.resource_type,
        "resource_id": line.resource_id,
        "resource_name": line.resource_name,
        "project_id": line.project_id,
        "outcome": line.outcome,
        "state": line.state,
        "reason": line.reason,
        "user_id": line.user_id,
        "user_name": line.user_name,
        "actor_project_id": line.actor_project_id,
        "address": line.address,
        "request_id": line.request_id,
        "global_request_id": line.global_request_id,
        "events": [
            {"id": one.id, "index": one.index, "type": one.type, "time": one.time.isoformat()}
            for one in line.events
        ],
    }


def _show_verdict(verdict: proof.Verdict) -> None:
    if verdict.findings:
        rows = [
            (one.kind, one.event or "-", one.place, one.message)
            for one in verdict.findings[:_MOST_LISTED]
        ]
        show_table(("FOUND", "EVENT", "PLACE", "WHAT"), rows)
    until = f", until {verdict.signed_until:%Y-%m-%d %H:%M:%S}" if verdict.signed_until else ""
    note(
        f"{verdict.signed:,} events are signed by {verdict.digests:,} digests{until}; "
        f"{verdict.unsigned:,} are chained and not signed yet"
        + (f"; {verdict.expired:,} have expired" if verdict.expired else "")
    )
    if verdict.findings:
        more = len(verdict.findings) - _MOST_LISTED
        hidden = f", {more:,} of them not listed (-o json)" if more > 0 else ""
        note(f"{len(verdict.findings):,} things are not as they were recorded{hidden}")
    else:
        note("everything is as it was recorded")
