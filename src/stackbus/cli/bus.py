"""The doors to the private bus and the relay: up, down, status, relay."""

from __future__ import annotations

import os
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated

import typer

from stackbus import logs, private_bus, wiring
from stackbus.broker.node import Description, NodeOptions
from stackbus.cli import common
from stackbus.cli.output import Format, errors, note, progress, show, show_table
from stackbus.errors import InputError
from stackbus.expose import status as exposed
from stackbus.expose.deployment import load
from stackbus.settings import Settings


def up(
    filename: Annotated[
        Path | None,
        typer.Option(
            "-f",
            "--filename",
            help="The OpenStackDeployment to apply; without it, the last one holds.",
            show_default=False,
        ),
    ] = None,
    detach: Annotated[bool, typer.Option("--detach", "-d", help="Return when ready.")] = False,
    listen: Annotated[
        str | None,
        typer.Option(help="Address for AMQP. Default: 127.0.0.1.", show_default=False),
    ] = None,
    port_amqp: common.PortAmqp = None,
    port_amqp_tls: common.PortAmqpTls = None,
    advertise: common.Advertise = None,
    record: Annotated[
        bool | None,
        typer.Option(
            "--record/--no-record",
            help="Record every notification in <state>/history, from a topic of its own, "
            "stackbus.record. Without either, as the last time.",
            show_default=False,
        ),
    ] = None,
    state: common.State = None,
) -> None:
    """Start the private broker and the relay, and stay until Ctrl-C.

    Example: stackbus up -f deployment.yaml --detach
    """
    with errors():
        logs.configure()
        chosen = common.settings(state)
        _refuse_own_broker(chosen)
        wish = NodeOptions(listen, port_amqp, port_amqp_tls, common.hosts(advertise))
        deployment = load(filename) if filename else None
        if not detach:
            with ExitStack() as starting:
                say = starting.enter_context(progress("starting the private bus"))

                def ready(description: Description) -> None:
                    starting.close()
                    _tell_ready(description)

                private_bus.run(chosen, wish, deployment, say, ready, record=record)
            return
        with progress("starting the private bus") as say:
            if private_bus.is_up(chosen):
                if record not in (None, wiring.is_recorded(chosen)):
                    raise InputError(
                        "the bus is up already, and a recorder starts or ends with it: "
                        "run `stackbus down` first"
                    )
                private_bus.wait_until_answering(chosen, lambda: False)
                if deployment is not None:
                    with wiring.bus(chosen) as where:
                        wiring.carry_out(
                            chosen, where, lambda one: one.plan(deployment), deployment, say
                        )
            else:
                private_bus.start_detached(chosen, deployment, _arguments(wish, record), say)
        note(f"the bus is up in {chosen.state}; stop it with: stackbus down")


def down(state: common.State = None) -> None:
    """Stop what `up --detach` started.

    Example: stackbus down
    """
    with errors():
        chosen = common.settings(state)
        with progress("stopping the private bus"):
            stopped = private_bus.stop(chosen)
        note("stopped" if stopped else f"no bus is up in {chosen.state}")


def status(
    output: common.Output = Format.table,
    management_url: common.ManagementUrl = None,
    management_user: common.ManagementUser = None,
    state: common.State = None,
) -> None:
    """Show whether the bus is up, where it listens, and what is exposed.

    Example: stackbus status -o json
    """
    with errors():
        chosen = common.settings(state, management_url, management_user)
        common.require_up(chosen)
        with wiring.bus(chosen) as where:
            relay = exposed.relay(where.management, chosen.inner_vhost)
            topics = exposed.topics(where.management, wiring.store(chosen), chosen.outer_vhost)
            version = str(where.management.overview()["rabbitmq_version"])
        description = wiring.node(chosen).read_description() if not chosen.management_url else None
        value = {
            "state": "up",
            "rabbitmq_version": version,
            **(
                description.to_json()
                if description
                else {
                    "management_url": chosen.management_url,
                    "amqp_port": where.endpoint.port_amqp,
                    "amqps_port": where.endpoint.port_amqps,
                    "inner_vhost": chosen.inner_vhost,
                    "outer_vhost": chosen.outer_vhost,
                    "hosts": list(where.endpoint.hosts),
                }
            ),
            "relay": {
                "state": relay.state,
                "standby": relay.standby,
                "backlog": relay.backlog,
                "quarantined": relay.quarantined,
            },
            "recorded": wiring.is_recorded(chosen),
            "topics": [topic.name for topic in topics],
        }
        if output is not Format.table:
            show(value, output)
            return
        rows = [
            ("RabbitMQ", f"{version}, {value['management_url']}"),
            ("Hosts", ", ".join(where.endpoint.hosts)),
            ("AMQP", str(where.endpoint.port_amqp)),
            ("AMQP, TLS", str(where.endpoint.port_amqps)),
            ("Relay", f"{relay.state}, {relay.standby} standing by, {relay.backlog} behind"),
            ("Quarantined", str(relay.quarantined)),
            ("Recorded", "yes" if value["recorded"] else "no"),
            ("Topics", ", ".join(topic.name for topic in topics) or "none"),
        ]
        show_table(("", ""), rows)


def relay(
    inner: Annotated[
        str | None,
        typer.Option(
            envvar="STACKBUS_INNER_URL",
            help="AMQP URL of the inner bus. Give it in the environment: an argument shows in "
            "the process list.",
            show_default=False,
        ),
    ] = None,
    outer: Annotated[
        str | None,
        typer.Option(
            envvar="STACKBUS_OUTER_URL", help="AMQP URL of the outer bus.", show_default=False
        ),
    ] = None,
    metrics: common.Metrics = None,
    management_url: common.ManagementUrl = None,
    management_user: common.ManagementUser = None,
    state: common.State = None,
) -> None:
    """Run the relay alone; a second one stands by and takes over.

    Without URLs it relays on the bus of the state folder.
    Example: STACKBUS_INNER_URL=amqp://... STACKBUS_OUTER_URL=amqp://... stackbus relay
    """
    with errors():
        logs.configure(json=not os.isatty(2))
        chosen = common.settings(
            state, management_url, management_user, inner_url=inner, outer_url=outer
        )
        work = wiring.relay(chosen)
        work.stop_on_signals()
        common.serve_metrics(metrics)
        work.run()


def _arguments(wish: NodeOptions, record: bool | None) -> list[str]:
    given = {
        "--listen": wish.listen,
        "--port-amqp": wish.port_amqp,
        "--port-amqp-tls": wish.port_amqps,
        "--advertise": ",".join(wish.advertise) if wish.advertise else None,
    }
    flags = [] if record is None else ["--record" if record else "--no-record"]
    return [
        *flags,
        *(word for name, value in given.items() if value for word in (name, str(value))),
    ]


def _refuse_own_broker(chosen: Settings) -> None:
    if chosen.management_url is not None:
        raise InputError(
            "a management URL is set, so the broker is your own: use `stackbus apply` and "
            "`stackbus relay`"
        )


def _tell_ready(description: Description) -> None:
    note(
        f"ready: AMQP on {description.listen}:{description.ports.amqp}, TLS on "
        f"{description.listen}:{description.ports.amqps}; Ctrl-C ends it"
    )
