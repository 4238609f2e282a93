#!/usr/bin/env python3
"""Paste the tables that the bench prints into docs/benchmarks.md: one section for each part.

Usage: ``python bench/run.py relay latency | scripts/benchmarks.py``. A part that the input contains
replaces its section, with today's date and the machine; all other sections stay as they are.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path

PAGE = Path(__file__).parent.parent / "docs" / "benchmarks.md"
TITLE = re.compile(r"(?P<part>[a-z]+)(: .+)?")


@dataclass(frozen=True)
class Table:
    """One part's figures, as the bench printed them."""

    part: str
    lines: tuple[str, ...]


def parse_tables(output: str) -> Iterator[Table]:
    """Yield the tables in the bench's output; lines about its progress are dropped."""
    for block in re.split(r"\n\s*\n", output):
        lines = [line.rstrip() for line in block.splitlines() if line.strip()]
        for number, line in enumerate(lines):
            title = TITLE.fullmatch(line)
            if title and lines[number + 1 :]:
                yield Table(title["part"], tuple(lines[number:]))
                break


def render_section(table: Table, day: date, machine: str) -> str:
    """Return the Markdown section of one part."""
    figures = "\n".join(table.lines)
    origin = f"Printed by `python bench/run.py {table.part}` on {day:%Y-%m-%d}, {machine}."
    return f"## {table.part}\n\n{origin}\n\n```\n{figures}\n```\n"


def replace_section(page: str, part: str, section: str) -> str:
    """Return the page with the section of this part replaced, or added at the end."""
    existing = re.compile(rf"^## {part}\n.*?(?=^## |\Z)", re.MULTILINE | re.DOTALL)
    if existing.search(page):
        return existing.sub(lambda _: f"{section}\n", page).rstrip() + "\n"
    return f"{page.rstrip()}\n\n{section}"


def describe_machine() -> str:
    """Return the number of cores and their model."""
    model = re.search(r"^model name\s*: (.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    return f"{os.cpu_count()} cores ({model[1] if model else 'unknown model'})"


def main() -> int:
    """Update the page from standard input; return 1 if the input contains no table."""
    tables = list(parse_tables(sys.stdin.read()))
    if not tables:
        print("no table of the bench on standard input; the page is unchanged", file=sys.stderr)
        return 1
    page = PAGE.read_text("utf-8")
    today, machine = datetime.now(UTC).date(), describe_machine()
    for table in tables:
        page = replace_section(page, table.part, render_section(table, today, machine))
    PAGE.write_text(page, "utf-8")
    print(f"updated in {PAGE}: {', '.join(table.part for table in tables)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
