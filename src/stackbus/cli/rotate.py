"""The command ``stackbus rotate``."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated

import typer

from stackbus.cli import options
from stackbus.cli.output import Format, errors, progress
from stackbus.cli.plan import show_plan
from stackbus.wiring.broker import open_broker, require_up
from stackbus.wiring.control import plan_and_apply, saved_deployment


def rotate(
    topic: options.Topic,
    grace: Annotated[
        str, typer.Option(help="Time during which the old credentials still work.")
    ] = "24h",
    revoke: Annotated[
        bool,
        typer.Option("--revoke", help="Revoke the old credentials, and close their connections."),
    ] = False,
    output: options.Output = Format.table,
    management_url: options.ManagementUrl = None,
    management_user: options.ManagementUser = None,
    state: options.State = None,
) -> None:
    """Create new credentials for a topic.

    They are a user with a new password, and a new client certificate.
    Example: stackbus rotate external-consumer-a --grace 24h
    """
    with errors():
        settings = options.settings(state, management_url, management_user)
        grace_time = timedelta() if revoke else options.parse_duration(grace, "--grace")
        require_up(settings)
        deployment = saved_deployment(settings)
        with open_broker(settings) as broker, progress(f"rotating {topic}") as report:
            plan = plan_and_apply(
                settings,
                broker,
                lambda exposure: exposure.plan_rotation(deployment, topic, grace=grace_time),
                progress=report,
            )
        show_plan(plan, output, is_applied=True)
