"""The command ``stackbus sign``."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from stackbus import logs
from stackbus.cli import options
from stackbus.cli.output import errors, note, progress
from stackbus.errors import InputError
from stackbus.query import signing
from stackbus.wiring.history import digest_folder, open_history


def sign(
    key: Annotated[
        Path | None,
        typer.Option(
            help="Private Ed25519 key (PEM), as `openssl genpkey -algorithm ed25519` creates it. "
            "Default: STACKBUS_SIGNING_KEY.",
            show_default=False,
        ),
    ] = None,
    digests: options.Digests = None,
    history: options.HistoryDsn = None,
    state: options.State = None,
) -> None:
    """Sign the events recorded since the last digest.

    Writes a signed digest for each hour, and prints the files' names.
    Example: stackbus sign --key signing.pem
    """
    with errors():
        logs.configure()
        settings = options.settings(state, history=history, signing_key=key, digests=digests)
        if settings.signing_key is None:
            raise InputError("no key: give --key FILE, or set STACKBUS_SIGNING_KEY")
        private_key = signing.read_private_key(settings.signing_key)
        folder = digest_folder(settings)
        with open_history(settings) as store, progress("looking for unsigned events") as report:
            paths = signing.sign_history(store, folder, private_key, datetime.now(UTC), report)
        for path in paths:
            print(path)
        if not paths:
            note("nothing has been recorded since the last digest")
