"""The ``stackbus`` command: the list of its commands, each imported when it is used.

A new command is one file in this folder, with a function of the command's name, and one line here.
Help and completion read the list alone; the first line of the function's docstring repeats it (a
test compares the two).
"""

from __future__ import annotations

import importlib
import sys
from typing import Annotated, Any, NamedTuple

import typer
from typer.core import TyperCommand, TyperGroup

from stackbus import __version__


class Entry(NamedTuple):
    """A command: its name, the module that has its function, and its line of help."""

    name: str
    module: str
    help: str


COMMANDS = (
    Entry("up", "up", "Start the private bus and the relay, until Ctrl-C."),
    Entry("down", "down", "Stop the private bus that `up --detach` started."),
    Entry("status", "status", "Show whether the bus is up and where it listens."),
    Entry("plan", "plan", "Show what `apply` would change; change nothing."),
    Entry("apply", "apply", "Apply an OpenStackDeployment to the bus and the Secrets."),
    Entry("topics", "topics", "List the topics with their backlog and consumers."),
    Entry("secret", "secret", "Print a topic's Secret, or one of its values."),
    Entry("rotate", "rotate", "Create new credentials for a topic."),
    Entry("config", "config", "Print a service's oslo.config drop-in for this bus."),
    Entry("tail", "tail", "Print notifications as they arrive, until Ctrl-C."),
    Entry("relay", "relay", "Run the relay alone, until SIGTERM or Ctrl-C."),
    Entry("record", "record", "Record notifications in the history, until Ctrl-C."),
    Entry("events", "events", "Print events of the history, oldest first."),
    Entry("audit", "audit", "Print who did what, from where, with which result."),
    Entry("coverage", "coverage", "Compare the channels: what each one missed."),
    Entry("quarantine", "quarantine", "List unreadable notifications with the reason."),
    Entry("sign", "sign", "Sign the events recorded since the last digest."),
    Entry("verify", "verify", "Verify the history against its signed digests."),
    Entry("operator", "operator", "Run the Kubernetes operator."),
    Entry("demo", "demo", "Show everything end to end, with real services."),
    Entry("history", "history_schema", "Show the history's own tables."),
)


class LazyCommand(TyperCommand):
    """A command of the list; its module is imported when the command is parsed."""

    def __init__(self, entry: Entry) -> None:
        """Name the command and its help, from its entry."""
        super().__init__(name=entry.name, help=entry.help, rich_markup_mode=None)
        self._module = f"stackbus.cli.{entry.module}"

    def load(self) -> Any:
        """Import the module and return the click command of its function, or of its group."""
        function = getattr(importlib.import_module(self._module), str(self.name))
        if isinstance(function, typer.Typer):
            return typer.main.get_command(function)
        single = typer.Typer(
            add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False
        )
        single.command(self.name)(function)
        return typer.main.get_command(single)

    def make_context(self, *arguments: Any, **options: Any) -> Any:
        """Parse the arguments by the command itself, which then stands in the context."""
        return self.load().make_context(*arguments, **options)


class Commands(TyperGroup):
    """The group of all commands."""

    def __init__(self, **attributes: Any) -> None:
        """Add each command of the list, without its module."""
        super().__init__(**attributes)
        for entry in COMMANDS:
            self.add_command(LazyCommand(entry))


app = typer.Typer(
    name="stackbus",
    cls=Commands,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    help="Expose the notifications of an OpenStack cloud to other systems, and record them.",
)


def _print_version(requested: bool) -> None:
    if requested:
        print(f"stackbus {__version__}")
        raise typer.Exit


@app.callback()
def _global_options(
    _: Annotated[
        bool,
        typer.Option(
            "--version", is_eager=True, callback=_print_version, help="Print the version and exit."
        ),
    ] = False,
) -> None:
    pass


def main() -> None:
    """Run the command; Ctrl-C ends it without a traceback."""
    try:
        app()
    except KeyboardInterrupt:
        sys.exit(130)
