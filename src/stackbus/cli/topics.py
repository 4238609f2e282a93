"""The doors to the control plane: plan, apply, topics, secret, rotate, config."""

from __future__ import annotations

from datetime import timedelta
from enum import StrEnum
from typing import Annotated

import typer

from stackbus import wiring
from stackbus.cli import common
from stackbus.cli.output import Format, errors, note, progress, show, show_table, stdout
from stackbus.errors import InputError
from stackbus.expose import status as exposed
from stackbus.expose.apply import Plan
from stackbus.expose.credentials import secret_name
from stackbus.expose.deployment import load
from stackbus.expose.secrets import NAMESPACE, as_object, manifest
from stackbus.services import BY_NAME, SERVICES

_STYLES = {"+": "green", "~": "yellow", "-": "red"}


class NotificationFormat(StrEnum):
    """Nova's formats that a drop-in can ask for."""

    versioned = "versioned"
    both = "both"


def plan(
    filename: common.DeploymentFile,
    output: common.Output = Format.table,
    advertise: common.Advertise = None,
    port_amqp: common.PortAmqp = None,
    port_amqp_tls: common.PortAmqpTls = None,
    management_url: common.ManagementUrl = None,
    management_user: common.ManagementUser = None,
    state: common.State = None,
) -> None:
    """Show what `apply` would change. Changes nothing.

    Example: stackbus plan -f deployment.yaml
    """
    with errors():
        deployment = load(filename)
        chosen = common.settings(state, management_url, management_user)
        common.require_up(chosen)
        ports = (port_amqp, port_amqp_tls)
        with (
            wiring.bus(chosen, common.hosts(advertise), ports) as where,
            progress("looking at the broker"),
        ):
            found = wiring.exposure(chosen, where).plan(deployment)
        _show_plan(found, output)


def apply(
    filename: common.DeploymentFile,
    output: common.Output = Format.table,
    advertise: common.Advertise = None,
    port_amqp: common.PortAmqp = None,
    port_amqp_tls: common.PortAmqpTls = None,
    management_url: common.ManagementUrl = None,
    management_user: common.ManagementUser = None,
    state: common.State = None,
) -> None:
    """Make the bus and the Secrets as the deployment wants them.

    Example: stackbus apply -f deployment.yaml
    """
    with errors():
        deployment = load(filename)
        chosen = common.settings(state, management_url, management_user)
        common.require_up(chosen)
        ports = (port_amqp, port_amqp_tls)
        with (
            wiring.bus(chosen, common.hosts(advertise), ports) as where,
            progress("applying the deployment") as say,
        ):
            done = wiring.carry_out(
                chosen, where, lambda control: control.plan(deployment), deployment, say
            )
        _show_plan(done, output, done=True)


def rotate(
    topic: common.Topic,
    grace: Annotated[str, typer.Option(help="How long the old credentials still work.")] = "24h",
    revoke: Annotated[
        bool,
        typer.Option("--revoke", help="End the old credentials and their connections at once."),
    ] = False,
    output: common.Output = Format.table,
    management_url: common.ManagementUrl = None,
    management_user: common.ManagementUser = None,
    state: common.State = None,
) -> None:
    """Give a topic new credentials and a new certificate.

    Example: stackbus rotate external-consumer-a --grace 24h
    """
    with errors():
        chosen = common.settings(state, management_url, management_user)
        patience = timedelta() if revoke else common.duration(grace, "--grace")
        common.require_up(chosen)
        kept = wiring.saved_deployment(chosen)
        with wiring.bus(chosen) as where, progress(f"rotating {topic}") as say:
            done = wiring.carry_out(
                chosen,
                where,
                lambda control: control.plan_rotation(kept, topic, grace=patience),
                None,
                say,
            )
        _show_plan(done, output, done=True)


def topics(
    output: common.Output = Format.table,
    management_url: common.ManagementUrl = None,
    management_user: common.ManagementUser = None,
    state: common.State = None,
) -> None:
    """Show each topic: queues, backlog, consumers, dropped, certificate expiry.

    Example: stackbus topics -o json
    """
    with errors():
        chosen = common.settings(state, management_url, management_user)
        common.require_up(chosen)
        with wiring.bus(chosen) as where:
            found = exposed.topics(where.management, wiring.store(chosen), chosen.outer_vhost)
        if output is not Format.table:
            show([topic.to_json() for topic in found], output)
            return
        rows = [
            (
                topic.name,
                str(len(topic.queues)),
                str(topic.backlog),
                str(topic.consumers),
                str(topic.dropped),
                topic.certificate_expires.date().isoformat()
                if topic.certificate_expires
                else "no Secret",
            )
            for topic in found
        ]
        show_table(("TOPIC", ">QUEUES", ">BACKLOG", ">CONSUMERS", ">DROPPED", "EXPIRES"), rows)


def secret(
    topic: common.Topic,
    key: Annotated[
        str | None,
        typer.Option(help="Print this key's value alone, decoded.", show_default=False),
    ] = None,
    output: Annotated[
        Format, typer.Option("-o", "--output", help="How to print the manifest.")
    ] = Format.yaml,
    state: common.State = None,
) -> None:
    """Print a topic's Secret: a manifest, or one of its values.

    Example: stackbus secret external-consumer-a --key username
    """
    with errors():
        found = wiring.store(common.settings(state)).read(NAMESPACE, secret_name(topic))
        if found is None:
            raise InputError(f"no topic {topic!r} has a Secret here; `stackbus topics` lists them")
        if key is None:
            if output is Format.yaml:
                print(manifest(found), end="")
            elif output is Format.json:
                show(as_object(found), output)
            else:
                rows = [(name, str(len(value))) for name, value in found.data.items()]
                show_table(("KEY", ">BYTES"), rows)  # as `kubectl describe secret` has it
            return
        if key not in found.data:
            raise InputError(f"the Secret has no key {key!r}; it has {', '.join(found.data)}")
        print(found.data[key], end="" if found.data[key].endswith("\n") else "\n")


def config(
    service: Annotated[
        str,
        typer.Argument(
            help="The service's name or type.",
            autocompletion=lambda: [one.name for one in SERVICES],
            show_default=False,
        ),
    ],
    notification_format: Annotated[
        NotificationFormat, typer.Option(help="Nova only: both, for consumers of the legacy one.")
    ] = NotificationFormat.versioned,
    management_url: common.ManagementUrl = None,
    management_user: common.ManagementUser = None,
    state: common.State = None,
) -> None:
    """Print the oslo.config drop-in that makes a service emit to this bus.

    Example: stackbus config nova > /etc/nova/nova.conf.d/stackbus.conf
    """
    with errors():
        chosen = common.settings(state, management_url, management_user)
        known = BY_NAME.get(service)
        if known is None:
            names = ", ".join(one.name for one in SERVICES)
            raise InputError(f"no service {service!r}; the ten are {names}")
        if notification_format is NotificationFormat.both and known.name != "nova":
            raise InputError(f"--notification-format is Nova's; {known.name} has one format")
        with wiring.bus(chosen) as where:
            text = wiring.service_drop_in(chosen, where, known, notification_format.value)
        print(text, end="")


def _show_plan(found: Plan, output: Format, *, done: bool = False) -> None:
    if output is not Format.table:
        show(found.to_json(), output)
        return
    for step in found.steps:
        detail = f"  ({step.detail})" if step.detail else ""
        text = f"  {step.sign} {step.kind} {step.name}{detail}"
        stdout.print(text, style=_STYLES[step.sign], markup=False, soft_wrap=True)
    counts = {sign: sum(step.sign == sign for step in found.steps) for sign in _STYLES}
    if not found.steps:
        note("Nothing to do: the bus is as the deployment wants it.")
    elif done:
        stdout.print(f"Applied: {counts['+']} added, {counts['~']} changed, {counts['-']} removed.")
    else:
        stdout.print(
            f"Plan: {counts['+']} to add, {counts['~']} to change, {counts['-']} to remove."
        )
