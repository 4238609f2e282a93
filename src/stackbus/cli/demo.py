"""The command ``stackbus demo``."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Annotated

import typer
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from stackbus import logs
from stackbus.cli.output import errors, note, show_table, stderr
from stackbus.demo import demo as demonstration
from stackbus.expose.validation import load


def demo(
    filename: Annotated[
        Path | None,
        typer.Option(
            "-f",
            "--filename",
            help="An OpenStackDeployment with two topics. Default: one that comes with stackbus.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Show everything end to end, with real services.

    The demo installs Keystone and Glance for itself, on this machine, and removes them at its end.
    Example: stackbus demo
    """
    with errors():
        logs.configure(level=logging.WARNING)
        deployment = load(filename) if filename else demonstration.DEPLOYMENT
        columns = (BarColumn(20), TimeElapsedColumn(), TextColumn("{task.description}"))
        with Progress(*columns, console=stderr, transient=True) as bar:
            task = bar.add_task("", total=demonstration.STEPS)

            def advance(step: str) -> None:
                bar.update(task, advance=1, description=step)
                if not stderr.is_terminal:
                    note(step)

            consumers, rows = demonstration.run(deployment, advance)
        names = [f"{consumer.topic}\nby {consumer.login}" for consumer in consumers]
        show_table(
            ("SERVICE", "TYPE", "OUTCOME", *names),
            [
                (row.service, row.event_type, row.outcome, *("received" for _ in row.received))
                for row in rows
            ],
        )
        note(
            f"{len(rows)} notifications of two real services; each consumer received every one "
            "once. Everything that the demo started has been stopped."
        )
