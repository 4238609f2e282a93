"""The door to the recorder: record."""

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
from stackbus import wiring
from stackbus.cli import common
from stackbus.cli.output import errors, note, stderr
from stackbus.errors import InputError
from stackbus.flow import runner
from stackbus.flow.loop import Loop
from stackbus.history.history import History
from stackbus.query import digests as signing
from stackbus.settings import Settings
from stackbus.sources.bus import BUS

_MINUTE, _DAY = 60.0, 86_400.0
_SAY = 10.0  # seconds between two lines about how it goes, where nobody looks at a terminal

log = structlog.get_logger()


def record(
    secret: Annotated[
        Path | None,
        typer.Option(help="Manifest of the Secret of the topic to record.", show_default=False),
    ] = None,
    auth: Annotated[
        str, typer.Option(help="Log in by `certificate` or by `password`.")
    ] = "certificate",
    plain: Annotated[bool, typer.Option("--plain", help="Without TLS, by password.")] = False,
    logs: Annotated[
        list[Path] | None,
        typer.Option(
            help="Log file of a service, or a folder of them, to read notifications from. "
            "Repeatable.",
            show_default=False,
        ),
    ] = None,
    opensearch: Annotated[
        str | None,
        typer.Option(
            metavar="URL",
            help="OpenSearch server in which the cloud's logging keeps notifications.",
            show_default=False,
        ),
    ] = None,
    index: Annotated[
        str | None,
        typer.Option(metavar="PATTERN", help="Its index, or a pattern.", show_default=False),
    ] = None,
    history: common.HistoryDsn = None,
    sign: Annotated[
        Path | None,
        typer.Option(
            metavar="KEY",
            help="Private Ed25519 key (PEM): sign a digest of each hour.",
            show_default=False,
        ),
    ] = None,
    until_idle: Annotated[
        str | None,
        typer.Option(help="End when nothing has come for so long: 5s.", show_default=False),
    ] = None,
    metrics: common.Metrics = None,
    state: common.State = None,
) -> None:
    """Record notifications in the history, until Ctrl-C: of a topic, of logs, of OpenSearch.

    Several recorders of one topic share the work.
    Example: stackbus record --secret secret.yaml --logs /var/log/nova
    """
    with errors():
        logging.configure(json=not os.isatty(2))
        chosen = common.settings(state, history=history, signing_key=sign)
        common.check_auth(auth)
        if (opensearch is None) != (index is None):
            raise InputError("--opensearch URL and --index PATTERN go together")
        if secret is None and not logs and opensearch is None:
            raise InputError("nothing to record: give --secret FILE, --logs PATH or --opensearch")
        idle = common.duration(until_idle, "--until-idle").total_seconds() if until_idle else None
        key = signing.private_key(chosen.signing_key) if chosen.signing_key else None
        with wiring.history(chosen) as where:
            recorders = wiring.recorders(
                chosen,
                where,
                secret,
                logs or [],
                (opensearch, index) if opensearch and index else None,
                by_password=auth == "password",
                plain=plain,
            )
            runner.stop_on_signals(recorders)
            common.serve_metrics(metrics)
            chores = [runner.Chore("retention", _DAY, lambda: _expire(chosen, where))]
            folder = wiring.digests(chosen)
            if key is not None:
                chores.append(
                    runner.Chore(
                        "sign",
                        _MINUTE,
                        lambda: signing.sign(
                            where, folder, key, datetime.now(UTC), only_past_hours=True
                        ),
                    )
                )
            with _shown() as say:
                try:
                    runner.run(recorders, leader=BUS, until_idle=idle, progress=say, chores=chores)
                finally:
                    if key is not None:
                        signing.sign(where, folder, key, datetime.now(UTC))
        note(_summary(recorders))


def _expire(chosen: Settings, where: History) -> None:
    before = wiring.expired_before(chosen)
    if before is not None:
        for month in where.expire(before):
            log.info("record.expired", month=month)


@contextmanager
def _shown() -> Iterator[runner.Progress]:
    """Show how it goes: a line that changes on a terminal, a line in the log elsewhere."""
    if stderr.is_terminal:
        with stderr.status("connecting") as status:
            yield lambda recorders: status.update(_summary(recorders))
        return
    when, last = 0.0, ""

    def say(recorders: Sequence[Loop]) -> None:
        nonlocal when, last
        summary = _summary(recorders)
        if time.monotonic() - when > _SAY and summary != last:
            when, last = time.monotonic(), summary
            log.info("record.progress", summary=summary)

    yield say


def _summary(recorders: Sequence[Loop]) -> str:
    """Say what has been done so far."""
    parts = []
    for one in recorders:
        tally = one.tally
        parts.append(
            f"{one.name}: {tally.received:,} told, {tally.written:,} stored, "
            f"{tally.duplicates:,} known before, {tally.rejected:,} in quarantine"
        )
    return "; ".join(parts)
