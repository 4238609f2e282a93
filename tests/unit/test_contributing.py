"""CONTRIBUTING.md: its files exist, each change needs at most two, and one line is enough."""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
SOURCE = ROOT / "src"
TEXT = (ROOT / "CONTRIBUTING.md").read_text("utf-8")
NEW = " (new)"
SHARED = {
    "stackbus.services.service",
    "stackbus.services.neutron",  # Masakari has segments too: events/normalise.py separates them
}
FUTURE_ROOMS = {"web/", "reconcile/", "src/stackbus/reconcile/"}
CHANGES = (
    "a service",
    "a field of an event",
    "a question",
    "a setting",
    "a channel",
    "a destination",
    "replay",
    "usage",
    "a web page",
    "support for RabbitMQ 4.4",
)


@dataclass(frozen=True)
class Change:
    """One row of the table: what to add, and the files to write and to change for it."""

    name: str
    written: tuple[str, ...]
    changed: tuple[str, ...]

    @property
    def files(self) -> tuple[str, ...]:
        return self.written + self.changed


def table(section: str, header: str) -> list[list[str]]:
    """Read the cells of the table with this header in a section of the page."""
    (text,) = re.findall(
        rf"^## {re.escape(section)}\n(.*?)(?=^## |\Z)", TEXT, re.MULTILINE | re.DOTALL
    )
    lines = text[text.index(header) :].splitlines()
    rows = []
    for line in lines[2:]:
        if not line.startswith("|"):
            break
        rows.append([cell.strip() for cell in line.strip("|").split("|")])
    return rows


def paths(text: str) -> tuple[str, ...]:
    """Read the paths in backticks; a file that is still to be made keeps its mark."""
    return tuple(path + mark for path, mark in re.findall(r"`([A-Za-z]+/[^` ]*)`( \(new\))?", text))


def changes() -> list[Change]:
    return [
        Change(name, paths(written), paths(changed))
        for name, written, changed in table("Which file do I change?", "| to add |")
    ]


def guides() -> dict[str, list[str]]:
    """Read the reading guides: the files of each, in order."""
    (section,) = re.findall(r"^## Reading guides\n(.*?)(?=^## )", TEXT, re.MULTILINE | re.DOTALL)
    parts = re.split(r"^\*\*(.+?)\*\*", section, flags=re.MULTILINE)[1:]
    return {
        name: re.findall(r"`(src/[^`]+)`", text)
        for name, text in zip(parts[::2], parts[1::2], strict=True)
    }


def members(pattern: str) -> list[Path]:
    """List the files that a path with a placeholder stands for."""
    return sorted(ROOT.glob(re.sub(r"<[a-z]+>", "[!_]*", pattern)))


def module(path: Path) -> str:
    return ".".join(path.relative_to(SOURCE).with_suffix("").parts)


def imported_by(path: Path) -> set[str]:
    """Return the modules that a file imports, at its top or later."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return names


def test_the_table_has_the_ten_changes_with_one_or_two_files_each() -> None:
    assert tuple(change.name for change in changes()) == CHANGES
    for change in changes():
        assert 1 <= len(change.files) <= 2, change


@pytest.mark.parametrize("change", changes(), ids=lambda change: change.name)
def test_the_files_of_a_change_exist_unless_they_are_still_to_be_made(change: Change) -> None:
    for file in change.files:
        name = file.removesuffix(NEW)
        existing = members(name)
        if file.endswith(NEW):
            assert not existing, f"{name} exists: remove its mark, and describe how to add one"
        else:
            assert existing, f"{name} does not exist"


def test_every_other_path_of_the_page_exists() -> None:
    for path in paths(TEXT):
        if not path.endswith(NEW) and path not in FUTURE_ROOMS:
            assert members(path) or members(f"src/stackbus/{path}"), f"{path} does not exist"


@pytest.mark.parametrize(
    ("pattern", "registry"),
    [
        (written, change.changed[0])
        for change in changes()
        for written in change.written
        if "<" in written and change.changed and change.changed[0].endswith(".py")
    ],
)
def test_only_one_file_knows_the_members_of_a_room(pattern: str, registry: str) -> None:
    """Another member is one new file, and a line in the registry; the doors may name one."""
    files = members(pattern)
    room, doors = files[0].parent, SOURCE / "stackbus" / "cli"
    modules = {module(file) for file in files} - SHARED
    for file in (SOURCE / "stackbus").rglob("*.py"):
        if file.parent not in {room, doors} and file != ROOT / registry:
            names = imported_by(file) & modules
            assert not names, f"{file} imports {names}: only {registry} may"


def test_a_field_of_an_event_needs_no_third_file() -> None:
    """The fields that a version of the hash covers are beside the fields themselves."""
    from stackbus.events import model

    assert hasattr(model, "HASHED_FIELDS")


def test_a_command_is_one_file_and_one_line() -> None:
    from stackbus.cli.app import COMMANDS

    lines = (ROOT / "src/stackbus/cli/app.py").read_text("utf-8").splitlines()
    for entry in COMMANDS:
        assert (ROOT / f"src/stackbus/cli/{entry.module}.py").exists()
        assert sum(f'"{entry.module}"' in line for line in lines) == 1, entry


@pytest.mark.parametrize("name", guides())
def test_each_file_of_a_reading_guide_is_named_by_one_before_it(name: str) -> None:
    """So that it can be followed in the text, without a search."""
    files = [ROOT / file for file in guides()[name]]
    assert len(files) > 5
    for number, file in enumerate(files[1:], 1):
        assert any(names(earlier, file) or names(file, earlier) for earlier in files[:number]), file


def names(text: Path, file: Path) -> bool:
    """Return whether a text imports a file, or has its path within the package."""
    path = str(file.relative_to(SOURCE / "stackbus"))
    return path in text.read_text("utf-8") or (
        text.suffix == file.suffix == ".py" and module(file) in imported_by(text)
    )
