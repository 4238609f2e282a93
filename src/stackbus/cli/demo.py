"""The door to the demonstration: ``stackbus demo``."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Annotated

import typer
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from stackbus import logs
from stackbus.cli.output import errors, note, show_table, stderr
from stackbus.demo import demo as demonstration
from stackbus.expose.deployment import load


def demo(
    filename: Annotated[
        Path | None,
        typer.Option(
            "-f",
            "--filename",
            help="An OpenStackDeployment with two topics. Default: one of our own.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Show the main job end to end on this machine, with a real Keystone and Glance.

    Example: stackbus demo
    """
    with errors():
        logs.configure(least=logging.WARNING)
        deployment = load(filename) if filename else demonstration.DEPLOYMENT
        columns = (BarColumn(20), TimeElapsedColumn(), TextColumn("{task.description}"))
        with Progress(*columns, console=stderr, transient=True) as bar:
            task = bar.add_task("", total=demonstration.STEPS)

            def advance(text: str) -> None:
                bar.update(task, advance=1, description=text)
                if not stderr.is_terminal:
                    note(text)

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
            "once. All that was started is stopped."
        )
