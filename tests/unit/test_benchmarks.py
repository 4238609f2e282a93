"""scripts/benchmarks.py: a printed table replaces its section of the page, and no other."""

from __future__ import annotations

from datetime import date

from scripts.benchmarks import Table, parse_tables, render_section, replace_section

OUTPUT = """relay: 40000 captured notifications, one core
 the relay, scrubbing and labelling  4931 a second
 ratio                               0.46 of the shovel's

asking a history of 500,000 events
asking a history of 5,000,000 events
questions
             500,000 events  5,000,000 events
 the counts  98 ms           209 ms
"""
PAGE = "# Benchmarks\n\nText.\n\n## relay\n\nold\n\n## search\n\nunchanged\n"


def test_tables_are_read_with_their_part_and_without_progress() -> None:
    relay, questions = parse_tables(OUTPUT)
    assert relay.part == "relay"
    assert relay.lines[1:] == tuple(OUTPUT.splitlines()[1:3])
    assert questions == Table("questions", tuple(OUTPUT.splitlines()[6:]))


def test_output_without_a_table_gives_none() -> None:
    assert list(parse_tables("starting\n\nAssertionError: it broke\n")) == []


def test_a_section_is_replaced_in_place_and_a_new_one_is_added() -> None:
    relay, questions = parse_tables(OUTPUT)
    page = PAGE
    for table in (relay, questions):
        page = replace_section(
            page, table.part, render_section(table, date(2026, 11, 26), "2 cores (x)")
        )
    assert "old" not in page
    assert "Printed by `python bench/run.py relay` on 2026-11-26, 2 cores (x)." in page
    assert page.index("0.46 of the shovel's") < page.index("## search\n\nunchanged\n")
    assert page.endswith("209 ms\n```\n")
