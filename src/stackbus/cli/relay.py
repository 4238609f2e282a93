"""The command ``stackbus relay``."""

from __future__ import annotations

import os
from typing import Annotated

import typer

from stackbus import logs
from stackbus.cli import options
from stackbus.cli.output import errors
from stackbus.wiring import relay as wiring


def relay(
    inner: Annotated[
        str | None,
        typer.Option(
            envvar="STACKBUS_INNER_URL",
            help="AMQP URL of the inner bus. Set it in the environment: an argument shows in the "
            "process list.",
            show_default=False,
        ),
    ] = None,
    outer: Annotated[
        str | None,
        typer.Option(
            envvar="STACKBUS_OUTER_URL", help="AMQP URL of the outer bus.", show_default=False
        ),
    ] = None,
    metrics: options.Metrics = None,
    management_url: options.ManagementUrl = None,
    management_user: options.ManagementUser = None,
    state: options.State = None,
) -> None:
    """Run the relay alone, until SIGTERM or Ctrl-C.

    A second relay stands by and takes over. Without URLs it uses the bus of the state folder.
    Example: STACKBUS_INNER_URL=amqp://... STACKBUS_OUTER_URL=amqp://... stackbus relay
    """
    with errors():
        logs.configure(json=not os.isatty(2))
        settings = options.settings(
            state, management_url, management_user, inner_url=inner, outer_url=outer
        )
        loop = wiring.relay(settings)
        loop.stop_on_signals()
        options.serve_metrics(metrics)
        loop.run()
