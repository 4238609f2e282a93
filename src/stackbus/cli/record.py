"""The command ``stackbus record``."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import structlog
import typer

from stackbus import logs as logging
from stackbus.cli import options
from stackbus.cli.output import errors, note, stderr
from stackbus.errors import InputError
from stackbus.events.model import BUS
from stackbus.flow import runner
from stackbus.flow.loop import Loop
from stackbus.history.history import History
from stackbus.query import signing
from stackbus.settings import Settings
from stackbus.wiring.history import digest_folder, open_history, retention_start
from stackbus.wiring.record import recorders

_MINUTE, _DAY = 60.0, 86_400.0
_REPORT_SECONDS = 10.0
"""Time between two log lines of progress, where there is no terminal."""

log = structlog.get_logger()


def record(
    secret: Annotated[
        Path | None,
        typer.Option(
            help="Record the topic of this Secret, given as a manifest.", show_default=False
        ),
    ] = None,
    auth: Annotated[
        str, typer.Option(help="Log in by `certificate` or by `password`.")
    ] = "certificate",
    plain: Annotated[bool, typer.Option("--plain", help="Without TLS, by password.")] = False,
    logs: Annotated[
        list[Path] | None,
        typer.Option(
            help="Record from this log file of a service, or from all in a folder. Repeatable.",
            show_default=False,
        ),
    ] = None,
    opensearch: Annotated[
        str | None,
        typer.Option(
            metavar="URL",
            help="Record from this OpenSearch server, in which the cloud's logging keeps "
            "notifications.",
            show_default=False,
        ),
    ] = None,
    index: Annotated[
        str | None,
        typer.Option(
            metavar="PATTERN", help="Index in OpenSearch, or a pattern.", show_default=False
        ),
    ] = None,
    history: options.HistoryDsn = None,
    sign: Annotated[
        Path | None,
        typer.Option(
            metavar="KEY",
            help="Private Ed25519 key (PEM) with which to sign a digest of each hour.",
            show_default=False,
        ),
    ] = None,
    until_idle: options.UntilIdle = None,
    metrics: options.Metrics = None,
    state: options.State = None,
) -> None:
    """Record notifications in the history, until Ctrl-C.

    They come from a topic, from log files and from OpenSearch. Several recorders share a topic.
    Example: stackbus record --secret secret.yaml --logs /var/log/nova
    """
    with errors():
        logging.configure(json=not os.isatty(2))
        settings = options.settings(state, history=history, signing_key=sign)
        by_password = options.parse_auth(auth)
        if (opensearch is None) != (index is None):
            raise InputError("--opensearch URL and --index PATTERN can only be used together")
        if secret is None and not logs and opensearch is None:
            raise InputError("nothing to record: give --secret FILE, --logs PATH or --opensearch")
        idle_seconds = options.parse_idle_seconds(until_idle)
        key = signing.read_private_key(settings.signing_key) if settings.signing_key else None
        folder = digest_folder(settings)
        with open_history(settings) as store:
            running = recorders(
                settings,
                store,
                secret=secret,
                logs=logs or [],
                opensearch=(opensearch, index) if opensearch and index else None,
                by_password=by_password,
                plain=plain,
            )
            runner.stop_on_signals(running)
            options.serve_metrics(metrics)
            chores = [runner.Chore("retention", _DAY, lambda: _expire(settings, store))]
            if key is not None:

                def sign_past_hours() -> None:
                    signing.sign_history(
                        store, folder, key, datetime.now(UTC), only_past_hours=True
                    )

                chores.append(runner.Chore("sign", _MINUTE, sign_past_hours))
            with _progress() as report:
                try:
                    runner.run(
                        running, leader=BUS, until_idle=idle_seconds, progress=report, chores=chores
                    )
                finally:
                    if key is not None:
                        signing.sign_history(store, folder, key, datetime.now(UTC))
        note(_summary(running))


def _expire(settings: Settings, history: History) -> None:
    start = retention_start(settings)
    if start is not None:
        for month in history.events.expire(start):
            log.info("record.expired", month=month)


@contextmanager
def _progress() -> Iterator[runner.Progress]:
    """Show the progress: one line that changes on a terminal, log lines elsewhere."""
    if stderr.is_terminal:
        with stderr.status("connecting") as status:
            yield lambda running: status.update(_summary(running))
        return
    reported_at, last_summary = 0.0, ""

    def report(running: Sequence[Loop]) -> None:
        nonlocal reported_at, last_summary
        summary = _summary(running)
        if time.monotonic() - reported_at > _REPORT_SECONDS and summary != last_summary:
            reported_at, last_summary = time.monotonic(), summary
            log.info("record.progress", summary=summary)

    yield report


def _summary(running: Sequence[Loop]) -> str:
    parts = []
    for recorder in running:
        tally = recorder.tally
        parts.append(
            f"{recorder.name}: {tally.received:,} received, {tally.written:,} stored, "
            f"{tally.duplicates:,} already stored, {tally.rejected:,} in quarantine"
        )
    return "; ".join(parts)
