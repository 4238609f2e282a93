"""The command ``stackbus quarantine``."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Annotated

import typer

from stackbus import logs
from stackbus.cli import options
from stackbus.cli.output import Format, errors, note, progress, show, show_table
from stackbus.errors import InputError
from stackbus.history.quarantine import QuarantinedBody
from stackbus.sinks.quarantine import retry as retry_all
from stackbus.wiring.history import open_history, scrubber
from stackbus.wiring.record import EXTRACTS


def quarantine(
    retry: Annotated[
        bool, typer.Option("--retry", help="Decode them again, and record those that succeed.")
    ] = False,
    body: Annotated[
        str | None,
        typer.Option(metavar="DIGEST", help="Print the body with this digest.", show_default=False),
    ] = None,
    output: options.Output = Format.table,
    history: options.HistoryDsn = None,
    state: options.State = None,
) -> None:
    """List unreadable notifications with the reason.

    Example: stackbus quarantine --retry
    """
    with errors():
        logs.configure()
        settings = options.settings(state, history=history)
        with open_history(settings) as store:
            if retry:
                with progress("decoding the quarantined notifications again"):
                    result = retry_all(store, scrubber(settings), EXTRACTS, settings.region)
                note(f"{result.released} recorded as events, {result.left} left in quarantine")
                return
            bodies = sorted(store.quarantine, key=lambda quarantined: quarantined.received)
        if body is not None:
            sys.stdout.buffer.write(_find(bodies, body).body)
        elif output is not Format.table:
            show([quarantined.to_json() for quarantined in bodies], output)
        else:
            columns = ("DIGEST", "RECEIVED", "CHANNEL", "ORIGIN", ">BYTES", "REASON")
            show_table(columns, [_row(quarantined) for quarantined in bodies])


def _find(bodies: Sequence[QuarantinedBody], prefix: str) -> QuarantinedBody:
    """Return the body whose digest begins with ``prefix``. Raises InputError."""
    matches = [quarantined for quarantined in bodies if quarantined.sha256.startswith(prefix)]
    if len(matches) != 1:
        raise InputError(
            f"--body: {len(matches)} bodies in quarantine have a digest that begins with {prefix!r}"
        )
    return matches[0]


def _row(quarantined: QuarantinedBody) -> tuple[str, ...]:
    return (
        quarantined.sha256[:12],
        f"{quarantined.received:%Y-%m-%d %H:%M:%S}",
        quarantined.channel,
        quarantined.origin,
        f"{len(quarantined.body):,}",
        quarantined.reason,
    )
