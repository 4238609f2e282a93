"""The command ``stackbus plan``, and how a plan is printed, by ``apply`` and ``rotate`` too."""

from __future__ import annotations

from stackbus.cli import options
from stackbus.cli.output import Format, errors, note, progress, show, stdout
from stackbus.expose.apply import Plan
from stackbus.expose.validation import load
from stackbus.wiring.broker import open_broker, require_up
from stackbus.wiring.control import exposure

_STYLES = {"+": "green", "~": "yellow", "-": "red"}


def plan(
    filename: options.DeploymentFile,
    output: options.Output = Format.table,
    advertise: options.Advertise = None,
    port_amqp: options.PortAmqp = None,
    port_amqp_tls: options.PortAmqpTls = None,
    management_url: options.ManagementUrl = None,
    management_user: options.ManagementUser = None,
    state: options.State = None,
) -> None:
    """Show what `apply` would change; change nothing.

    Example: stackbus plan -f deployment.yaml
    """
    with errors():
        deployment = load(filename)
        settings = options.settings(state, management_url, management_user)
        require_up(settings)
        with (
            open_broker(
                settings,
                advertise=options.parse_hosts(advertise),
                port_amqp=port_amqp,
                port_amqp_tls=port_amqp_tls,
            ) as broker,
            progress("reading the broker's state"),
        ):
            steps = exposure(settings, broker).plan(deployment)
        show_plan(steps, output)


def show_plan(plan: Plan, output: Format, *, is_applied: bool = False) -> None:
    """Print the steps of a plan, and how many there are of each kind."""
    if output is not Format.table:
        show(plan.to_json(), output)
        return
    for step in plan.steps:
        detail = f"  ({step.detail})" if step.detail else ""
        text = f"  {step.sign} {step.kind} {step.name}{detail}"
        stdout.print(text, style=_STYLES[step.sign], markup=False, soft_wrap=True)
    counts = {sign: sum(step.sign == sign for step in plan.steps) for sign in _STYLES}
    if not plan.steps:
        note("Nothing to do: the bus is as the deployment wants it.")
    elif is_applied:
        stdout.print(f"Applied: {counts['+']} added, {counts['~']} changed, {counts['-']} removed.")
    else:
        stdout.print(
            f"Plan: {counts['+']} to add, {counts['~']} to change, {counts['-']} to remove."
        )
