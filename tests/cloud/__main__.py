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
from tests.cloud.members import MEMBERS
from tests.cloud.place import Place
from tests.cloud.report import report
from tests.cloud.scenario import run as run_scenario
from tests.cloud.scenario import with_used
from tests.cloud.telling import clear, drain, ever_sent

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)

Folder = Annotated[Path, typer.Option(help="Where the cloud lives.", envvar="CLOUD")]
Names = Annotated[
    list[str] | None,
    typer.Argument(help="Only these services, and what they need; default: all ten."),
]
KeepGoing = Annotated[
    bool, typer.Option(help="If a service does not come up, go on with the others.")
]
_FOLDER = Path(".cache/cloud")


def _say(sentence: str) -> None:
    typer.echo(sentence, err=True)


def _interruptible() -> None:
    """Take SIGTERM as Ctrl-C: what was started is ended."""

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, interrupt)


def _chosen(names: list[str] | None) -> list[str]:
    for name in names or []:
        if name not in MEMBERS:
            raise typer.BadParameter(f"{name!r}: one of {', '.join(MEMBERS)}")
    return names or list(MEMBERS)


@app.command()
def up(names: Names = None, folder: Folder = _FOLDER, *, keep_going: KeepGoing = False) -> None:
    """Bring the services up against a private bus, and leave them running."""
    _interruptible()
    cloud = Cloud(Place(folder), _say, keep_going=keep_going)
    try:
        cloud.up(_chosen(names))
    except StackbusError as error:
        _say(f"error: {error}")
        raise typer.Exit(1) from None
    except KeyboardInterrupt:
        _say("interrupted; nothing is left running")
        raise typer.Exit(130) from None
    for name, why in cloud.failed.items():
        _say(f"\n{name} is down: {why}")
    if cloud.failed:
        raise typer.Exit(1)


@app.command()
def scenario(names: Names = None, folder: Folder = _FOLDER) -> None:
    """Do what people do in a cloud that is up, and hold what was told against it."""
    if not _scenario(Place(folder), with_used(_chosen(names))):
        raise typer.Exit(1)


@app.command("test")
def whole_test(names: Names = None, folder: Folder = _FOLDER) -> None:
    """Bring the cloud up, walk the scenario, check, take it down."""
    _interruptible()
    place = Place(folder)
    chosen = with_used(_chosen(names))
    good = False
    try:
        Cloud(place, _say).up(chosen)
        good = _scenario(place, chosen)
    except StackbusError as error:
        _say(f"error: {error}")
    finally:
        down(place)
    if not good:
        raise typer.Exit(1)


def _scenario(place: Place, names: list[str]) -> bool:
    """Tell whether everything that was done was told, and nothing else."""
    clear(place)
    walk = run_scenario(place, names, _say)
    walk.save(place.folder / "calls.jsonl")
    write_private(place.folder / "tokens.json", json.dumps(sorted(walk.tokens)))
    _say("scenario: asking both consumers")
    drain(place)
    good = report(place, names, _say)
    return good and not walk.problems


@app.command()
def capture(folder: Folder = _FOLDER) -> None:
    """Write tests/golden/ anew from everything that the services have sent here."""
    place = Place(folder)
    tokens = json.loads((place.folder / "tokens.json").read_text("utf-8"))
    for service, count in write_golden(ever_sent(place), tokens, place.folder).items():
        _say(f"{service}: {count} files")


@app.command("down")
def take_down(folder: Folder = _FOLDER) -> None:
    """End everything that `up` started, by process id."""
    for name in down(Place(folder)):
        _say(f"{name}: ended")


if __name__ == "__main__":
    app()
