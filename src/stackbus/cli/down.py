"""The command ``stackbus down``."""

from __future__ import annotations

from stackbus import private_bus
from stackbus.cli import options
from stackbus.cli.output import errors, note, progress


def down(state: options.State = None) -> None:
    """Stop the private bus that `up --detach` started.

    Example: stackbus down
    """
    with errors():
        settings = options.settings(state)
        with progress("stopping the private bus"):
            was_up = private_bus.stop(settings)
        note("stopped" if was_up else f"no bus is up in {settings.state}")
