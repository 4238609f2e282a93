"""Results on stdout as a table, JSON or YAML; progress, notes and errors on stderr."""

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
"""Width of the output to a file or a pipe, where nothing is cut."""
_NARROW = 20
"""Width up to which a column is not cut to fit a terminal."""

stdout = Console(highlight=False, width=None if sys.stdout.isatty() else _WIDE)
stderr = Console(stderr=True, highlight=False, soft_wrap=True)


class Format(StrEnum):
    """Formats of a result."""

    table = "table"
    json = "json"
    yaml = "yaml"


def show(value: object, output: Format) -> None:
    """Print ``value``, which an answer rendered by ``to_json``, as JSON or YAML."""
    if output is Format.json:
        print(json.dumps(value, indent=2, default=str))
    else:
        print(yaml.safe_dump(value, sort_keys=False), end="")


def escape(text: str) -> str:
    """Escape characters that are not printable: a name may hold orders to the terminal."""
    if text.isprintable():
        return text
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode()
        for character in text
    )


def show_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table that fits the terminal; a column named ``>NAME`` is aligned to the right."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for index, column in enumerate(columns):
        width = max((len(row[index]) for row in rows), default=0)
        table.add_column(
            column.lstrip(">"),
            justify="right" if column.startswith(">") else "left",
            no_wrap=width <= _NARROW,
        )
    for row in rows:
        # A Text, so that rich reads no markup in a name.
        table.add_row(*(Text(escape(cell), no_wrap=True, overflow="ellipsis") for cell in row))
    stdout.print(table)


def note(text: str) -> None:
    """Print a sentence for people, beside the result."""
    stderr.print(text, markup=False)


@contextmanager
def progress(text: str) -> Iterator[Callable[[str], None]]:
    """Show the current step: a spinner on a terminal, a line for each step elsewhere."""
    if stderr.is_terminal:
        with stderr.status(text) as status:
            yield status.update
    else:
        yield note


@contextmanager
def errors() -> Iterator[None]:
    """End the command with a sentence on stderr and the exit code of the error."""
    try:
        yield
    except StackbusError as error:
        stderr.print(f"stackbus: {error}", markup=False, style="red")
        raise SystemExit(error.exit_code) from None
    except OSError as error:
        # Such as a full disk under the output. Without this, the interpreter flushes once more.
        stderr.print(f"stackbus: {error}", markup=False, style="red")
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SystemExit(1) from None


@contextmanager
def end_with_pipe() -> Iterator[None]:
    """End without an error when the reader of the output, such as ``head``, has gone."""
    try:
        yield
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
