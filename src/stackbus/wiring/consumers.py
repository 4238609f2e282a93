"""The AMQP connections of a consumer: from a topic's Secret, or as the user of ``tail``.

``cli/tail.py`` and ``record.py`` hand the parameters to ``clients/amqp.py``, which connects.
"""

from __future__ import annotations

from pathlib import Path

from stackbus.bus.names import TAIL_USER
from stackbus.clients.amqp import HEARTBEAT, Parameters, consumer_parameters, url_parameters
from stackbus.errors import InputError
from stackbus.expose.credentials import topic_of_secret
from stackbus.expose.secrets import parse_manifest
from stackbus.settings import Settings
from stackbus.wiring.broker import Broker, amqp_url


def read_consumer(
    path: Path, name: str, *, by_password: bool, plain: bool, heartbeat: int = HEARTBEAT
) -> tuple[str, list[Parameters]]:
    """Read the manifest of a topic's Secret: return the topic, and parameters for each host.

    ``name`` is the connection's name in RabbitMQ. Raises InputError if ``path`` holds no such
    manifest.
    """
    try:
        text = path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read: {error}") from None
    secret = parse_manifest(text, str(path))
    topic = topic_of_secret(secret.name)
    if topic is None:
        raise InputError(
            f"{path}: the Secret's name is {secret.name!r}, not openstack-<topic>-notifications"
        )
    return topic, consumer_parameters(
        secret.data, name, by_password=by_password, plain=plain, heartbeat=heartbeat
    )


def tail_parameters(settings: Settings, broker: Broker) -> list[Parameters]:
    """Return the connection of ``tail``, whose user may only read copies."""
    url = amqp_url(settings, broker, TAIL_USER, settings.outer_vhost)
    return [url_parameters(url, "stackbus tail", settings.amqp_ca)]
