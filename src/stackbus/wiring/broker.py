"""The broker that a command works on: the private one of the state folder, or the user's own.

``open_broker`` connects to its management API. ``control.py`` plans and applies on the Broker;
``amqp_url`` gives the relay, ``tail`` and the services a URL for one of stackbus' own users.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from urllib.parse import urlsplit

from stackbus.broker.node import Description, Node
from stackbus.bus import url
from stackbus.clients.management import Management
from stackbus.errors import InputError, StackbusError
from stackbus.expose.credentials import Endpoint, read_own_password
from stackbus.expose.secrets import FolderStore
from stackbus.settings import Settings, password_of, port_range
from stackbus.state import StateFolder

_PORT_AMQP, _PORT_AMQPS = 5672, 5671


@dataclass(frozen=True, slots=True)
class Broker:
    """A broker: its management API, its AMQP listener, and the endpoint in the topics' Secrets."""

    management: Management = field(repr=False)
    amqp_scheme: str
    amqp_host: str
    amqp_port: int
    endpoint: Endpoint


@contextmanager
def open_broker(
    settings: Settings,
    *,
    advertise: tuple[str, ...] | None = None,
    port_amqp: int | None = None,
    port_amqp_tls: int | None = None,
) -> Iterator[Broker]:
    """Connect to the user's own broker if ``management_url`` is set, else to the private one.

    ``advertise`` and the ports replace those of the endpoint (the ports on one's own broker only).
    Raises InputError if there is no broker.
    """
    if settings.management_url is not None:
        with _own_management(settings) as management:
            yield _own_broker(settings, management, advertise, port_amqp, port_amqp_tls)
        return
    description = private_node(settings).read_description()
    if description is None:
        raise InputError(
            f"no private bus in {settings.state}: start one with `stackbus up`, or name your own "
            "broker with --management-url"
        )
    endpoint = private_endpoint(description)
    if advertise is not None:
        endpoint = replace(endpoint, hosts=advertise)
    with Management(
        description.management_url, description.username, description.password
    ) as management:
        yield Broker(
            management=management,
            amqp_scheme="amqp",
            amqp_host=description.amqp_host,
            amqp_port=description.ports.amqp,
            endpoint=endpoint,
        )


def require_up(settings: Settings) -> None:
    """Raise StackbusError if the settings mean the private bus and it is not up."""
    if settings.management_url is None and not StateFolder(settings.state).is_up:
        raise StackbusError(
            f"no bus is up in {settings.state}: start one with `stackbus up`, or name your own "
            "broker with --management-url"
        )


def private_node(settings: Settings) -> Node:
    """Return the private RabbitMQ node of the state folder."""
    return Node(settings.state, settings.rabbitmq_server, port_range(settings))


def private_endpoint(description: Description) -> Endpoint:
    """Return the endpoint of the private broker."""
    return Endpoint(
        hosts=description.hosts,
        port_amqp=description.ports.amqp,
        port_amqps=description.ports.amqps,
        vhost=description.outer_vhost,
    )


def secret_store(settings: Settings) -> FolderStore:
    """Return the Secrets of the state folder."""
    return FolderStore(StateFolder(settings.state).secrets)


def amqp_url(settings: Settings, broker: Broker, user: str, vhost: str) -> str:
    """Return the AMQP URL by which ``user``, one of stackbus' own, logs in to ``vhost``.

    Raises InputError before the first apply, which creates the user.
    """
    password = read_own_password(secret_store(settings), user)
    if password is None:
        raise InputError(
            f"{settings.state} has no password of the user {user} yet: run `stackbus apply` first"
        )
    base = f"{broker.amqp_scheme}://{broker.amqp_host}:{broker.amqp_port}"
    return url.amqp_url(base, user, password, vhost)


def _own_management(settings: Settings) -> Management:
    try:
        password = password_of(settings)
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{settings.management_password_file}: cannot be read: {error}") from error
    if not password:
        raise InputError(
            "no password for the management API: set STACKBUS_MANAGEMENT_PASSWORD_FILE or "
            "STACKBUS_MANAGEMENT_PASSWORD (an argument would show in the process list)"
        )
    return Management(
        str(settings.management_url),
        settings.management_user,
        password,
        ca=settings.management_ca,
    )


def _own_broker(
    settings: Settings,
    management: Management,
    advertise: tuple[str, ...] | None,
    port_amqp: int | None,
    port_amqp_tls: int | None,
) -> Broker:
    """Read the broker's listeners; what is not given stays as at the last apply."""
    host = urlsplit(str(settings.management_url)).hostname or "localhost"
    plain, tls = management.listener("amqp"), management.listener("amqp/ssl")
    previous = StateFolder(settings.state).read_endpoint() or Endpoint(
        hosts=(host,),
        port_amqp=plain or _PORT_AMQP,
        port_amqps=tls or _PORT_AMQPS,
        vhost=settings.outer_vhost,
    )
    endpoint = Endpoint(
        hosts=advertise or previous.hosts,
        port_amqp=port_amqp or previous.port_amqp,
        port_amqps=port_amqp_tls or previous.port_amqps,
        vhost=settings.outer_vhost,
    )
    return Broker(
        management=management,
        amqp_scheme="amqp" if plain is not None else "amqps",
        amqp_host=host,
        amqp_port=plain or tls or _PORT_AMQPS,
        endpoint=endpoint,
    )
