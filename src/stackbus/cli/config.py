"""The command ``stackbus config``."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from stackbus.cli import options
from stackbus.cli.output import errors
from stackbus.errors import InputError
from stackbus.services import BY_NAME, SERVICES
from stackbus.wiring.broker import open_broker
from stackbus.wiring.control import render_drop_in


class NotificationFormat(StrEnum):
    """The formats of Nova that a drop-in can enable."""

    versioned = "versioned"
    both = "both"


def config(
    service: Annotated[
        str,
        typer.Argument(
            help="Name or type of the service.",
            autocompletion=lambda: [service.name for service in SERVICES],
            show_default=False,
        ),
    ],
    notification_format: Annotated[
        NotificationFormat,
        typer.Option(help="Nova only: `both` if a consumer needs the legacy format too."),
    ] = NotificationFormat.versioned,
    management_url: options.ManagementUrl = None,
    management_user: options.ManagementUser = None,
    state: options.State = None,
) -> None:
    """Print a service's oslo.config drop-in for this bus.

    With the drop-in, the service publishes its notifications to this bus.
    Example: stackbus config nova > /etc/nova/nova.conf.d/stackbus.conf
    """
    with errors():
        settings = options.settings(state, management_url, management_user)
        emitter = BY_NAME.get(service)
        if emitter is None:
            names = ", ".join(emitter.name for emitter in SERVICES)
            raise InputError(f"{service!r} is not a service of stackbus: give one of {names}")
        if notification_format is NotificationFormat.both and emitter.name != "nova":
            raise InputError(
                f"--notification-format is an option of Nova; {emitter.name} has one format"
            )
        with open_broker(settings) as broker:
            text = render_drop_in(
                settings, broker, emitter, notification_format=notification_format.value
            )
        print(text, end="")
