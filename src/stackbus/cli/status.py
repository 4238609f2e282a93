"""The command ``stackbus status``."""

from __future__ import annotations

from stackbus.cli import options
from stackbus.cli.output import Format, errors, show, show_table
from stackbus.expose import status as bus_status
from stackbus.settings import Settings
from stackbus.state import StateFolder
from stackbus.wiring.broker import Broker, open_broker, private_node, require_up, secret_store


def status(
    output: options.Output = Format.table,
    management_url: options.ManagementUrl = None,
    management_user: options.ManagementUser = None,
    state: options.State = None,
) -> None:
    """Show whether the bus is up and where it listens.

    Example: stackbus status -o json
    """
    with errors():
        settings = options.settings(state, management_url, management_user)
        require_up(settings)
        with open_broker(settings) as broker:
            bus = _read(settings, broker)
        if output is not Format.table:
            show(bus.to_json(), output)
            return
        relay = bus.relay
        endpoint = broker.endpoint
        rows = [
            ("RabbitMQ", f"{bus.rabbitmq_version}, {broker.management.url}"),
            ("Hosts", ", ".join(endpoint.hosts)),
            ("AMQP", str(endpoint.port_amqp)),
            ("AMQP, TLS", str(endpoint.port_amqps)),
            ("Relay", f"{relay.state}, {relay.standby} standing by, backlog {relay.backlog}"),
            ("Quarantined", str(relay.quarantined)),
            ("Recorded", "yes" if bus.is_recorded else "no"),
            ("Topics", ", ".join(bus.topics) or "none"),
        ]
        show_table(("", ""), rows)


def _read(settings: Settings, broker: Broker) -> bus_status.BusStatus:
    """Ask the broker for the status of the whole bus."""
    management, store = broker.management, secret_store(settings)
    is_private = settings.management_url is None
    description = private_node(settings).read_description() if is_private else None
    location = (
        description.to_json()
        if description
        else {
            "management_url": settings.management_url,
            "amqp_port": broker.endpoint.port_amqp,
            "amqps_port": broker.endpoint.port_amqps,
            "inner_vhost": settings.inner_vhost,
            "outer_vhost": settings.outer_vhost,
            "hosts": list(broker.endpoint.hosts),
        }
    )
    topics = bus_status.topics(management, store, settings.outer_vhost)
    return bus_status.BusStatus(
        rabbitmq_version=str(management.overview()["rabbitmq_version"]),
        location=location,
        relay=bus_status.relay(management, settings.inner_vhost),
        is_recorded=is_private and StateFolder(settings.state).is_recorded,
        topics=tuple(topic.name for topic in topics),
    )
