"""How fast the command line starts: CPU time of ``stackbus`` beside its peers'.

CPU time (user and system, with children) says what a command costs however busy the machine is.
The peers answer without a server too: ``kubectl version --client`` is a compiled program,
``openstack --version`` a Python one.
"""

from __future__ import annotations

import os
import resource
import shutil
import statistics
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

_RUNS = 10
_CLIENT = Path(__file__).parent.parent / ".cache" / "openstackclient"


def start(environment: Mapping[str, str]) -> list[tuple[str, ...]]:
    """Return the rows of the table; ``environment`` names a broker that has topics."""
    stackbus = (sys.executable, "-m", "stackbus")
    commands = [
        ("stackbus --help", (*stackbus, "--help"), "wanted: under 150 ms"),
        ("stackbus topics", (*stackbus, "topics"), "wanted: under 350 ms"),
    ]
    peers = [
        ("kubectl version --client", ("kubectl", "version", "--client")),
        ("openstack --version", (str(_install_openstackclient()), "--version")),
    ]
    # Python writes bytecode at the first run, as an installed package has it.
    without_bytecode = {"PYTHONDONTWRITEBYTECODE", "PYTHONUNBUFFERED"}
    variables = {**os.environ, **environment}
    variables = {name: text for name, text in variables.items() if name not in without_bytecode}
    figures = {
        name: _cpu_milliseconds(command, variables)
        for name, command, *_ in (*commands, *peers)
        if shutil.which(command[0])
    }
    rows: list[tuple[str, ...]] = [
        (name, f"{figures[name]:.0f} ms of CPU ({goal})") for name, _, goal in commands
    ]
    for peer, _ in peers:
        if peer not in figures:
            rows.append((peer, "not installed: scripts/setup kubectl"))
            continue
        rows.append((peer, f"{figures[peer]:.0f} ms of CPU"))
        rows += [
            (f"ratio, {name}", f"{figures[name] / figures[peer]:.2f} of it")
            for name, _, _ in commands
        ]
    return rows


def _cpu_milliseconds(command: Sequence[str], environment: Mapping[str, str]) -> float:
    """Return the median of ten runs, after one that is not counted."""
    milliseconds = []
    for _ in range(_RUNS + 1):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run(command, env=dict(environment), check=True, stdout=subprocess.DEVNULL)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        milliseconds.append(seconds * 1000)
    return statistics.median(milliseconds[1:])


def _install_openstackclient() -> Path:
    """Install python-openstackclient into a virtual environment of its own, once."""
    program = _CLIENT / "bin" / "openstack"
    if not program.exists():
        uv = shutil.which("uv")
        assert uv is not None, "scripts/setup installs uv"
        subprocess.run([uv, "venv", "--quiet", str(_CLIENT)], check=True)
        subprocess.run(
            [
                *(uv, "pip", "install", "--quiet", "--compile-bytecode"),
                *("--python", str(_CLIENT / "bin" / "python"), "python-openstackclient"),
            ],
            check=True,
        )
    return program
