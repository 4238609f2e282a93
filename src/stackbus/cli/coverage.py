"""The command ``stackbus coverage``."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated

import typer

from stackbus import logs
from stackbus.cli import options
from stackbus.cli.output import Format, errors, progress, show, show_table
from stackbus.errors import InputError
from stackbus.query import coverage as covering
from stackbus.wiring.history import open_history


def coverage(
    since: options.Since = None,
    until: options.Until = None,
    missed: Annotated[
        bool, typer.Option("--missed", help="List the notifications that a channel missed.")
    ] = False,
    channel: Annotated[
        str | None, typer.Option(help="With --missed: of this channel only.", show_default=False)
    ] = None,
    output: options.Output = Format.table,
    history: options.HistoryDsn = None,
    state: options.State = None,
) -> None:
    """Compare the channels: what each one missed.

    For each service: the notifications that a channel received, that it alone received, and that it
    missed. A channel that received none of a service is not compared for that service.
    Example: stackbus coverage --since -1d --missed
    """
    with errors():
        logs.configure()
        settings = options.settings(state, history=history)
        begin, end = options.parse_period(since, until, datetime.now(UTC))
        if channel is not None and not missed:
            raise InputError("--channel can only be used with --missed")
        with open_history(settings) as store, progress("comparing the channels"):
            channels = covering.compare_channels(store, begin, end)
            answer = covering.Coverage(
                channels, list(covering.list_missed(store, channels, begin, end, channel))
            )
        if output is not Format.table:
            show(answer.to_json(), output)
        elif missed:
            show_table(
                ("TIME", "SERVICE", "TYPE", "RECEIVED BY", "ID"),
                [
                    (
                        f"{notification.time:%Y-%m-%d %H:%M:%S}",
                        notification.service,
                        notification.type,
                        ",".join(notification.channels),
                        notification.id,
                    )
                    for notification in answer.missed
                ],
            )
        else:
            show_table(
                ("SERVICE", "CHANNEL", ">RECEIVED", ">ONLY IT", ">MISSED"),
                [
                    (
                        covered.service or "-",
                        covered.channel,
                        f"{covered.told:,}",
                        f"{covered.only:,}",
                        f"{covered.missed:,}",
                    )
                    for covered in answer.channels
                ],
            )
