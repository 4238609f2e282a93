"""The command ``stackbus audit``."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated

import typer

from stackbus import logs
from stackbus.cli import options
from stackbus.cli.output import Format, errors, note, progress, show, show_table
from stackbus.errors import InputError
from stackbus.query.audit import Line, Subject, audit_trail
from stackbus.wiring.history import open_history


def audit(
    resource: Annotated[
        str | None, typer.Argument(help="Id or name of a resource.", show_default=False)
    ] = None,
    user: Annotated[
        str | None, typer.Option(help="Actions of this user: id or name.", show_default=False)
    ] = None,
    project: Annotated[
        str | None,
        typer.Option(
            help="Actions on the resources of this project id, and actions from it.",
            show_default=False,
        ),
    ] = None,
    request: Annotated[
        str | None,
        typer.Option(help="Actions of this request: id or global id.", show_default=False),
    ] = None,
    since: options.Since = None,
    until: options.Until = None,
    periodic: Annotated[
        bool, typer.Option("--periodic", help="Include periodic reports (exists).")
    ] = False,
    output: options.Output = Format.table,
    history: options.HistoryDsn = None,
    state: options.State = None,
) -> None:
    """Print who did what, from where, with which result.

    One line for each action, in the order of their start, with the time that it took.
    Example: stackbus audit 5c1f6e0e-6a0c-4d5e-9a52-0a4a5c4e2f11
    / stackbus audit --user alice --since -1d
    """
    with errors():
        logs.configure()
        settings = options.settings(state, history=history)
        subjects = [text for text in (resource, user, project, request) if text]
        if len(subjects) != 1:
            raise InputError("give exactly one of RESOURCE, --user, --project and --request")
        subject = Subject(
            resource=resource or "", user=user or "", project=project or "", request=request or ""
        )
        begin, end = options.parse_period(since, until, datetime.now(UTC))
        with open_history(settings) as store, progress("reading the history"):
            lines = audit_trail(store, subject, begin, end, with_periodic=periodic)
        if output is not Format.table:
            show([line.to_json() for line in lines], output)
            return
        columns = ("TIME", "WHO", "FROM", "WHAT", "RESOURCE", "RESULT", ">TOOK")
        show_table(columns, [_row(line) for line in lines])
        if any(line.is_from_logs_alone for line in lines):
            note("*: from logs alone; no notification of the bus confirms it")
        if not lines:
            note(f"the history has no events of {subjects[0]!r}")


def _row(line: Line) -> tuple[str, ...]:
    return (
        f"{line.time:%Y-%m-%d %H:%M:%S}",
        line.user_name or line.user_id or "-",
        line.address or "-",
        f"{line.action or '-'} {line.resource_type}".strip(),
        line.resource_name or line.resource_id or "-",
        line.state
        + ("*" if line.is_from_logs_alone else "")
        + (f": {line.reason}" if line.reason else ""),
        f"{line.duration:.1f} s" if line.duration is not None else "",
    )
