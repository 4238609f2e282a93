"""The commands of the test cloud: ``make cloud``, ``make test-cloud``, ``make cloud-down``."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Annotated

import typer

from stackbus.errors import StackbusError
from stackbus.files import write_private
from tests.cloud.capture import write as write_golden
from tests.cloud.cloud import Cloud, down
from tests.cloud.home import CloudHome
from tests.cloud.members import MEMBERS
from tests.cloud.report import report
from tests.cloud.scenario import run_scenario, with_used
from tests.cloud.traffic import clear, drain, read_ever_sent

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)

Folder = Annotated[Path, typer.Option(help="Where the cloud lives.", envvar="CLOUD")]
Names = Annotated[
    list[str] | None,
    typer.Argument(help="Only these services and the ones they need. Default: all ten."),
]
KeepGoing = Annotated[
    bool, typer.Option(help="If a service does not start, go on with the others.")
]
_FOLDER = Path(".cache/cloud")


def _say(sentence: str) -> None:
    typer.echo(sentence, err=True)


def _handle_sigterm() -> None:
    """Handle SIGTERM like Ctrl-C, so that every process is ended."""

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, interrupt)


def _check_names(names: list[str] | None) -> list[str]:
    for name in names or []:
        if name not in MEMBERS:
            raise typer.BadParameter(f"{name!r}: one of {', '.join(MEMBERS)}")
    return names or list(MEMBERS)


@app.command()
def up(names: Names = None, folder: Folder = _FOLDER, *, keep_going: KeepGoing = False) -> None:
    """Bring the services up against a private bus, and leave them running."""
    _handle_sigterm()
    cloud = Cloud(CloudHome(folder), _say, keep_going=keep_going)
    try:
        cloud.up(_check_names(names))
    except StackbusError as error:
        _say(f"error: {error}")
        raise typer.Exit(1) from None
    except KeyboardInterrupt:
        _say("interrupted; nothing is left running")
        raise typer.Exit(130) from None
    for name, reason in cloud.failed.items():
        _say(f"\n{name} is down: {reason}")
    if cloud.failed:
        raise typer.Exit(1)


@app.command()
def scenario(names: Names = None, folder: Folder = _FOLDER) -> None:
    """Run the scenario in a cloud that is up, and compare the notifications with its calls."""
    if not _run_scenario(CloudHome(folder), with_used(_check_names(names))):
        raise typer.Exit(1)


@app.command("test")
def whole_test(names: Names = None, folder: Folder = _FOLDER) -> None:
    """Bring the cloud up, run the scenario, check the notifications, take the cloud down."""
    _handle_sigterm()
    home = CloudHome(folder)
    selected = with_used(_check_names(names))
    is_good = False
    try:
        Cloud(home, _say).up(selected)
        is_good = _run_scenario(home, selected)
    except StackbusError as error:
        _say(f"error: {error}")
    finally:
        down(home)
    if not is_good:
        raise typer.Exit(1)


def _run_scenario(home: CloudHome, names: list[str]) -> bool:
    """Run the scenario; return whether every call was notified as expected, and nothing else."""
    clear(home)
    run = run_scenario(home, names, _say)
    run.save(home.folder / "calls.jsonl")
    write_private(home.folder / "tokens.json", json.dumps(sorted(run.tokens)))
    _say("scenario: reading the topics of both consumers")
    drain(home)
    is_good = report(home, names, _say)
    return is_good and not run.problems


@app.command()
def capture(folder: Folder = _FOLDER) -> None:
    """Rewrite tests/golden/ from every notification that the services have sent here."""
    home = CloudHome(folder)
    tokens = json.loads((home.folder / "tokens.json").read_text("utf-8"))
    for service, count in write_golden(read_ever_sent(home), tokens, home.folder).items():
        _say(f"{service}: {count} files")


@app.command("down")
def take_down(folder: Folder = _FOLDER) -> None:
    """End everything that `up` started, by process id."""
    for name in down(CloudHome(folder)):
        _say(f"{name}: ended")


if __name__ == "__main__":
    app()
