"""deploy/systemd: the units are valid, hardened alike, and start commands that exist."""

from __future__ import annotations

import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
FOLDER = ROOT / "deploy" / "systemd"
PAGE = ROOT / "docs" / "how-to" / "systemd.md"
UNITS = sorted(FOLDER.glob("*.service"))
INSTALLED = "/opt/stackbus/bin/stackbus"
PROGRAM = Path(sys.executable).parent / "stackbus"
COMMON = "# The rest is the same in every unit of this folder.\n"


def values(unit: Path, key: str) -> list[str]:
    lines = unit.read_text("utf-8").splitlines()
    return [line.partition("=")[2] for line in lines if line.startswith(f"{key}=")]


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.name)
def test_the_command_of_a_unit_has_only_known_options(unit: Path) -> None:
    (start,) = values(unit, "ExecStart")
    program, *arguments = shlex.split(start)
    assert program == INSTALLED
    subprocess.run([PROGRAM, *arguments, "--help"], check=True, capture_output=True)


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.name)
@pytest.mark.skipif(
    shutil.which("systemd-analyze") is None, reason="needs Debian's package systemd"
)
def test_systemd_accepts_a_unit(unit: Path, tmp_path: Path) -> None:
    copy = tmp_path / unit.name
    copy.write_text(unit.read_text("utf-8").replace(INSTALLED, str(PROGRAM)))
    process = subprocess.run(
        ["systemd-analyze", "--man=no", "verify", str(copy)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert process.returncode == 0, process.stderr
    assert unit.name not in process.stderr, process.stderr


def test_the_units_are_hardened_alike() -> None:
    tails = {unit.read_text("utf-8").partition(COMMON)[2] for unit in UNITS}
    (tail,) = tails
    for line in ("NoNewPrivileges=yes", "ProtectSystem=strict", "CapabilityBoundingSet="):
        assert f"{line}\n" in tail


def test_no_unit_runs_as_root_or_contains_a_password() -> None:
    for unit in UNITS:
        assert values(unit, "User") or values(unit, "DynamicUser") == ["yes"]
        (settings,) = values(unit, "EnvironmentFile")
        assert f"chmod 0600 {settings}" in PAGE.read_text("utf-8")
        assert not values(unit, "Environment")


def test_the_page_installs_every_file_of_the_folder() -> None:
    page = PAGE.read_text("utf-8")
    for file in FOLDER.iterdir():
        assert f"cp deploy/systemd/{file.name} " in page
