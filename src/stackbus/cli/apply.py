"""The command ``stackbus apply``."""

from __future__ import annotations

from stackbus.cli import options
from stackbus.cli.output import Format, errors, progress
from stackbus.cli.plan import show_plan
from stackbus.expose.validation import load
from stackbus.wiring.broker import open_broker, require_up
from stackbus.wiring.control import plan_and_apply


def apply(
    filename: options.DeploymentFile,
    output: options.Output = Format.table,
    advertise: options.Advertise = None,
    port_amqp: options.PortAmqp = None,
    port_amqp_tls: options.PortAmqpTls = None,
    management_url: options.ManagementUrl = None,
    management_user: options.ManagementUser = None,
    state: options.State = None,
) -> None:
    """Apply an OpenStackDeployment to the bus and the Secrets.

    Example: stackbus apply -f deployment.yaml
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
            progress("applying the deployment") as report,
        ):
            plan = plan_and_apply(
                settings,
                broker,
                lambda exposure: exposure.plan(deployment),
                deployment=deployment,
                progress=report,
            )
        show_plan(plan, output, is_applied=True)
