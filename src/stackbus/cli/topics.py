"""The command ``stackbus topics``."""

from __future__ import annotations

from stackbus.cli import options
from stackbus.cli.output import Format, errors, show, show_table
from stackbus.expose import status as bus_status
from stackbus.wiring.broker import open_broker, require_up, secret_store


def topics(
    output: options.Output = Format.table,
    management_url: options.ManagementUrl = None,
    management_user: options.ManagementUser = None,
    state: options.State = None,
) -> None:
    """List the topics with their backlog and consumers.

    Also shown: queues, dropped notifications, and the expiry of the client certificate.
    Example: stackbus topics -o json
    """
    with errors():
        settings = options.settings(state, management_url, management_user)
        require_up(settings)
        with open_broker(settings) as broker:
            answer = bus_status.topics(
                broker.management, secret_store(settings), settings.outer_vhost
            )
        if output is not Format.table:
            show([topic.to_json() for topic in answer], output)
            return
        columns = ("TOPIC", ">QUEUES", ">BACKLOG", ">CONSUMERS", ">DROPPED", "EXPIRES")
        show_table(columns, [_row(topic) for topic in answer])


def _row(topic: bus_status.TopicStatus) -> tuple[str, ...]:
    expiry = topic.certificate_expires
    return (
        topic.name,
        str(len(topic.queues)),
        str(topic.backlog),
        str(topic.consumers),
        str(topic.dropped),
        expiry.date().isoformat() if expiry else "no Secret",
    )
