"""The ``stackbus`` command: every door, in one list."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from stackbus import __version__
from stackbus.cli import bus, demo, history, operator, record, tail, topics

app = typer.Typer(
    name="stackbus",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    help="The notifications of an OpenStack cloud for the systems outside it.",
)
for command in (
    bus.up,
    bus.down,
    bus.status,
    topics.plan,
    topics.apply,
    topics.topics,
    topics.secret,
    topics.rotate,
    topics.config,
    tail.tail,
    bus.relay,
    record.record,
    history.events,
    history.audit,
    history.coverage,
    history.quarantine,
    history.sign,
    history.verify,
    operator.operator,
    demo.demo,
):
    app.command()(command)
app.add_typer(history.history_app, name="history")


def _version(wanted: bool) -> None:
    if wanted:
        print(f"stackbus {__version__}")
        raise typer.Exit


@app.callback()
def _global(
    _: Annotated[bool, typer.Option("--version", is_eager=True, callback=_version)] = False,
) -> None:
    pass


def main() -> None:
    """Run the command; Ctrl-C ends it without a traceback."""
    try:
        app()
    except KeyboardInterrupt:
        sys.exit(130)
