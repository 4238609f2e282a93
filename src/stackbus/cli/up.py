"""The command ``stackbus up``."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import Annotated

import typer

from stackbus import logs, private_bus
from stackbus.broker.node import Description, NodeOptions
from stackbus.cli import options
from stackbus.cli.output import errors, note, progress
from stackbus.errors import InputError
from stackbus.expose.deployment import Deployment
from stackbus.expose.validation import load
from stackbus.settings import Settings
from stackbus.state import StateFolder
from stackbus.wiring.broker import open_broker
from stackbus.wiring.control import plan_and_apply


def up(
    filename: Annotated[
        Path | None,
        typer.Option(
            "-f",
            "--filename",
            help="The OpenStackDeployment to apply. Default: the deployment of the last apply.",
            show_default=False,
        ),
    ] = None,
    detach: Annotated[
        bool, typer.Option("--detach", "-d", help="Return as soon as the bus is ready.")
    ] = False,
    listen: Annotated[
        str | None,
        typer.Option(help="Address on which AMQP listens. Default: 127.0.0.1.", show_default=False),
    ] = None,
    port_amqp: options.PortAmqp = None,
    port_amqp_tls: options.PortAmqpTls = None,
    advertise: options.Advertise = None,
    record: Annotated[
        bool | None,
        typer.Option(
            "--record/--no-record",
            help="Record every notification in <state>/history, from the topic stackbus.record. "
            "Default: as at the last start.",
            show_default=False,
        ),
    ] = None,
    state: options.State = None,
) -> None:
    """Start the private bus and the relay, until Ctrl-C.

    Example: stackbus up -f deployment.yaml --detach
    """
    with errors():
        logs.configure()
        settings = options.settings(state)
        if settings.management_url is not None:
            raise InputError(
                "STACKBUS_MANAGEMENT_URL is set, so the broker is your own: use `stackbus apply` "
                "and `stackbus relay`"
            )
        wish = NodeOptions(
            listen=listen,
            port_amqp=port_amqp,
            port_amqps=port_amqp_tls,
            advertise=options.parse_hosts(advertise),
        )
        deployment = load(filename) if filename else None
        if not detach:
            _run(settings, wish, deployment, record=record)
            return
        with progress("starting the private bus") as report:
            if StateFolder(settings.state).is_up:
                _apply_to_running(settings, deployment, report, record=record)
            else:
                arguments = _arguments(wish, record)
                private_bus.start_detached(settings, deployment, arguments, report)
        note(f"the bus is up in {settings.state}; stop it with: stackbus down")


def _run(
    settings: Settings, wish: NodeOptions, deployment: Deployment | None, *, record: bool | None
) -> None:
    with ExitStack() as starting:
        report = starting.enter_context(progress("starting the private bus"))

        def ready(description: Description) -> None:
            starting.close()
            note(
                f"ready: AMQP on {description.listen}:{description.ports.amqp}, TLS on "
                f"{description.listen}:{description.ports.amqps}; Ctrl-C ends it"
            )

        private_bus.run(settings, wish, deployment, report, ready, record=record)


def _apply_to_running(
    settings: Settings,
    deployment: Deployment | None,
    report: private_bus.Progress,
    *,
    record: bool | None,
) -> None:
    if record not in (None, StateFolder(settings.state).is_recorded):
        raise InputError(
            "the bus is up already, and a recorder starts and ends with it: run `stackbus down` "
            "first"
        )
    private_bus.wait_until_answering(settings, lambda: False)
    if deployment is not None:
        with open_broker(settings) as broker:
            plan_and_apply(
                settings,
                broker,
                lambda exposure: exposure.plan(deployment),
                deployment=deployment,
                progress=report,
            )


def _arguments(wish: NodeOptions, record: bool | None) -> list[str]:
    """Return the options that make ``stackbus up`` the same in a process of its own."""
    values = {
        "--listen": wish.listen,
        "--port-amqp": wish.port_amqp,
        "--port-amqp-tls": wish.port_amqps,
        "--advertise": ",".join(wish.advertise) if wish.advertise else None,
    }
    flags = [] if record is None else ["--record" if record else "--no-record"]
    return [
        *flags,
        *(word for option, value in values.items() if value for word in (option, str(value))),
    ]
