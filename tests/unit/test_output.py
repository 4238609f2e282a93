"""Tables: what a name holds is shown, whatever it is, and what matters is not cut first."""

from __future__ import annotations

import pytest
from rich.console import Console

from stackbus.cli import output


def test_a_name_is_neither_markup_nor_an_order_to_the_terminal(
    capsys: pytest.CaptureFixture[str],
) -> None:
    names = ["[red]a", "[/]", "\x1b[2J", "a\rb", "\u202egnp", "Zürich 日本"]
    output.show_table(("NAME", ">COUNT"), [(name, "1") for name in names])
    shown = [line.split("  ")[0] for line in capsys.readouterr().out.splitlines()[1:]]
    assert shown == ["[red]a", "[/]", r"\x1b[2J", r"a\rb", r"\u202egnp", "Zürich 日本"]


def test_nothing_is_cut_in_a_pipe(capsys: pytest.CaptureFixture[str]) -> None:
    output.show_table(("TIME", "REASON"), [("2026-11-24 10:00:00", "why " * 500)])
    assert ("why " * 500).strip() in capsys.readouterr().out


def test_in_a_terminal_what_is_long_is_cut_first(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(output, "stdout", Console(width=60))
    output.show_table(("TIME", "WHAT", ">TOOK"), [("2026-11-24 10:00:00", "x" * 200, "12.5 s")] * 2)
    lines = capsys.readouterr().out.splitlines()
    assert all(len(line) <= 60 for line in lines)
    assert lines[1].startswith("2026-11-24 10:00:00  xxx")
    assert lines[1].endswith("…  12.5 s")
