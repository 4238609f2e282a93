"""The command ``stackbus verify``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from stackbus import logs
from stackbus.cli import options
from stackbus.cli.output import Format, errors, note, progress, show, show_table
from stackbus.errors import InputError, StackbusError
from stackbus.query import signing
from stackbus.query.verification import Verdict, verify_history
from stackbus.wiring.history import digest_folder, open_history, retention_start

_MAX_ROWS = 1000


def verify(
    key: Annotated[
        Path | None,
        typer.Option(
            help="Public Ed25519 key (PEM) of the signer. Default: STACKBUS_VERIFYING_KEY.",
            show_default=False,
        ),
    ] = None,
    digests: options.Digests = None,
    output: options.Output = Format.table,
    history: options.HistoryDsn = None,
    state: options.State = None,
) -> None:
    """Verify the history against its signed digests.

    Finds events that were changed, removed, added or reordered since they were recorded. Needs only
    the history and the digests. Exits with 1 if anything is found.
    Example: stackbus verify --key signing.pub
    """
    with errors():
        logs.configure()
        settings = options.settings(state, history=history, verifying_key=key, digests=digests)
        folder = digest_folder(settings)
        public_key = (
            signing.read_public_key(settings.verifying_key) if settings.verifying_key else None
        )
        if public_key is None and signing.read_digests(folder):
            raise InputError(
                f"{folder} has signed digests: give the signer's public key with --key FILE, or "
                "set STACKBUS_VERIFYING_KEY"
            )
        with open_history(settings) as store, progress("verifying") as report:
            verdict = verify_history(store, folder, public_key, retention_start(settings), report)
        if output is not Format.table:
            show(verdict.to_json(), output)
        else:
            _show_verdict(verdict)
        if verdict.discrepancies:
            raise typer.Exit(StackbusError.exit_code)


def _show_verdict(verdict: Verdict) -> None:
    if verdict.discrepancies:
        rows = [
            (entry.kind, entry.event or "-", entry.place, entry.message)
            for entry in verdict.discrepancies[:_MAX_ROWS]
        ]
        show_table(("FOUND", "EVENT", "PLACE", "WHAT"), rows)
    until = f", until {verdict.signed_until:%Y-%m-%d %H:%M:%S}" if verdict.signed_until else ""
    expired = f"; {verdict.expired:,} have expired" if verdict.expired else ""
    note(
        f"{verdict.signed:,} events are signed by {verdict.digests:,} digests{until}; "
        f"{verdict.unsigned:,} are chained but not signed yet{expired}"
    )
    if verdict.discrepancies:
        hidden_count = len(verdict.discrepancies) - _MAX_ROWS
        hidden = f", {hidden_count:,} of them not listed (-o json)" if hidden_count > 0 else ""
        note(f"{len(verdict.discrepancies):,} differences from what was recorded{hidden}")
    else:
        note("everything is as it was recorded")
