"""How the doors speak: results to stdout as table, JSON or YAML; progress and errors to stderr."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from enum import StrEnum

import yaml
from rich.console import Console
from rich.table import Table
from rich.text import Text

from stackbus.errors import StackbusError

_WIDE = 100_000
"""Columns where nobody looks at a terminal: nothing is cut for a file or a pipe."""
_NARROW = 20
"""A column that is no wider is not cut where the others are, to fit a terminal."""

stdout = Console(highlight=False, width=None if sys.stdout.isatty() else _WIDE)
stderr = Console(stderr=True, highlight=False, soft_wrap=True)


class Format(StrEnum):
    """How a result is printed."""

    table = "table"
    json = "json"
    yaml = "yaml"


def show(value: object, chosen: Format) -> None:
    """Print ``value`` as JSON or YAML."""
    if chosen is Format.json:
        print(json.dumps(value, indent=2, default=str))
    else:
        print(yaml.safe_dump(value, sort_keys=False), end="")


def visible(text: str) -> str:
    """Write out what would steer the terminal instead of being seen: a name may hold anything."""
    if text.isprintable():
        return text
    return "".join(
        one if one.isprintable() else one.encode("unicode_escape").decode() for one in text
    )


def show_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table that fits the terminal; columns that begin with ``>`` are numbers."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for place, column in enumerate(columns):
        widest = max((len(row[place]) for row in rows), default=0)
        table.add_column(
            column.lstrip(">"),
            justify="right" if column.startswith(">") else "left",
            no_wrap=widest <= _NARROW,
        )
    for row in rows:
        # A Text, so that what looks like rich's markup in a name stays what it is.
        table.add_row(*(Text(visible(one), no_wrap=True, overflow="ellipsis") for one in row))
    stdout.print(table)


def note(text: str) -> None:
    """Say something to whoever watches, beside the result."""
    stderr.print(text, markup=False)


@contextmanager
def progress(text: str) -> Iterator[Callable[[str], None]]:
    """Show what is being done: a spinner on a terminal, a line each elsewhere."""
    if stderr.is_terminal:
        with stderr.status(text) as status:
            yield status.update
    else:
        yield note


@contextmanager
def errors() -> Iterator[None]:
    """Turn our errors into a sentence on stderr and the exit code of DESIGN."""
    try:
        yield
    except StackbusError as error:
        stderr.print(f"stackbus: {error}", markup=False, style="red")
        raise SystemExit(error.exit_code) from None
    except OSError as error:
        # The machine's, such as a full disk under our output; the interpreter would try again.
        stderr.print(f"stackbus: {error}", markup=False, style="red")
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SystemExit(1) from None


@contextmanager
def pipe_may_close() -> Iterator[None]:
    """Take it as the end, and no error, that whoever read our output has gone."""
    try:
        yield
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
