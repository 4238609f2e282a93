"""Settings become real clients here, and nowhere else.

Called by the doors, one function a command: each gives the room's object, wired. ``Bus`` is the
broker that a command means: the private one of the state folder, or one of the administrator's
own when a management URL is set.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from urllib.parse import quote, urlsplit

import yaml
from pika.connection import Parameters

from stackbus.broker.node import Description, Node
from stackbus.clients.amqp import url_parameters
from stackbus.clients.management import Management
from stackbus.errors import InputError, StackbusError
from stackbus.expose import credentials as creds
from stackbus.expose.apply import Exposure, Plan
from stackbus.expose.credentials import Credentials, Endpoint
from stackbus.expose.deployment import NOTHING, Deployment, load
from stackbus.expose.dropin import drop_in
from stackbus.expose.secrets import FolderStore
from stackbus.files import locked, write_private
from stackbus.relay.relay import Relay, RelaySettings
from stackbus.relay.scrub import Scrubber
from stackbus.services.service import Service
from stackbus.settings import Settings, password_of

_PORT_AMQP, _PORT_AMQPS = 5672, 5671
_PATIENCE = 60.0  # seconds that one apply waits for another


@dataclass(frozen=True, slots=True)
class Bus:
    """One broker: its management API, where AMQP listens, and what consumers are told."""

    management: Management = field(repr=False)
    amqp_scheme: str
    amqp_host: str
    amqp_port: int
    endpoint: Endpoint


def store(settings: Settings) -> FolderStore:
    """Give the Secrets of the state folder."""
    return FolderStore(settings.state / "secrets")


def node(settings: Settings) -> Node:
    """Give the private node of the state folder."""
    return Node(settings.state, settings.rabbitmq_server)


@contextmanager
def bus(
    settings: Settings,
    advertise: tuple[str, ...] | None = None,
    ports: tuple[int | None, int | None] = (None, None),
) -> Iterator[Bus]:
    """Give the bus that the settings mean.

    ``advertise`` and ``ports`` (plain, TLS) are what consumers of a broker of one's own are told.
    Raises InputError if there is none.
    """
    if settings.management_url is not None:
        with _own_broker(settings) as management:
            yield _own_bus(settings, management, advertise, ports)
        return
    description = node(settings).described()
    if description is None:
        raise InputError(
            f"no bus in {settings.state}: start one with `stackbus up`, or name your own with "
            "--management-url"
        )
    endpoint = endpoint_of(description)
    if advertise is not None:
        endpoint = replace(endpoint, hosts=advertise)
    with Management(
        description.management_url, description.username, description.password
    ) as management:
        yield Bus(management, "amqp", description.amqp_host, description.ports.amqp, endpoint)


def endpoint_of(description: Description) -> Endpoint:
    """Say what consumers of the private node are told."""
    ports = description.ports
    return Endpoint(description.hosts, ports.amqp, ports.amqps, description.outer_vhost)


def exposure(settings: Settings, where: Bus) -> Exposure:
    """Give the control plane of a bus."""
    return Exposure(
        where.management, store(settings), where.endpoint, settings, lambda: datetime.now(UTC)
    )


def saved_deployment(settings: Settings) -> Deployment:
    """Give the deployment that was applied last; NOTHING if none was."""
    path = settings.state / "deployment.yaml"
    return load(path) if path.exists() else NOTHING


def save_deployment(settings: Settings, deployment: Deployment) -> None:
    """Keep the deployment that is about to be applied: it holds until the next one."""
    text = yaml.safe_dump(deployment.to_document(), sort_keys=False)
    write_private(settings.state / "deployment.yaml", text)


@contextmanager
def one_at_a_time(settings: Settings) -> Iterator[None]:
    """Hold the state folder: two applies never mix, the second waits."""
    busy = f"another stackbus changes {settings.state} since a minute: wait for it, and try again"
    with locked(settings.state / "apply.lock", _PATIENCE, busy):
        yield


def carry_out(
    settings: Settings,
    where: Bus,
    make_plan: Callable[[Exposure], Plan],
    deployment: Deployment | None,
    progress: Callable[[str], None] = lambda _: None,
) -> Plan:
    """Plan and apply in one hold of the state folder; ``deployment`` is kept if it is given."""
    with one_at_a_time(settings):
        control = exposure(settings, where)
        plan = make_plan(control)
        if deployment is not None:
            save_deployment(settings, deployment)
        if settings.management_url is not None:
            endpoint = json.dumps(asdict(where.endpoint))
            write_private(settings.state / "endpoint.json", endpoint)
        control.apply(plan, progress)
        install_certificates(settings, plan.credentials)
        return plan


def first_credentials(settings: Settings, endpoint: Endpoint) -> None:
    """Make the CA and the server's certificate, which a node needs before its first start."""
    kept = store(settings)
    credentials = creds.renewed(
        kept,
        NOTHING,
        {},
        endpoint,
        datetime.now(UTC),
        certificate_days=settings.certificate_days,
        renew_days=settings.renew_days,
    )
    for secret in credentials.secrets():
        if kept.read(secret.namespace, secret.name) != secret:
            kept.write(secret)
    install_certificates(settings, credentials)


def install_certificates(settings: Settings, credentials: Credentials) -> None:
    """Put the server's PEM files where the broker reads them; the CA's key is not among them."""
    for name, text in (
        ("ca.pem", credentials.ca.certificate),
        ("server.pem", credentials.server.certificate),
        ("server.key", credentials.server.key),
    ):
        path = settings.state / "tls" / name
        if not path.exists() or path.read_text("ascii") != text:
            write_private(path, text)


def service_drop_in(
    settings: Settings, where: Bus, service: Service, notification_format: str
) -> str:
    """Print the drop-in of a service, for its own user on this bus."""
    url = _url(settings, where, f"stackbus.service.{service.name}", settings.inner_vhost)
    return drop_in(
        service, url.replace("amqp", "rabbit", 1), notification_format=notification_format
    )


def tail_parameters(settings: Settings, where: Bus) -> list[Parameters]:
    """Say how ``tail`` gets in: as a user that may only look."""
    url = _url(settings, where, creds.TAIL, settings.outer_vhost)
    return [url_parameters(url, "stackbus tail", settings.amqp_ca)]


def relay(settings: Settings) -> Relay:
    """Give the relay, between the URLs of the settings or on the bus that they mean."""
    urls = [
        url.get_secret_value() if url else None for url in (settings.inner_url, settings.outer_url)
    ]
    if None in urls:
        with bus(settings) as where:
            urls = [
                given or _url(settings, where, creds.RELAY, vhost)
                for given, vhost in zip(
                    urls, (settings.inner_vhost, settings.outer_vhost), strict=True
                )
            ]
    inner, outer = (
        url_parameters(str(url), f"stackbus relay, {side}", settings.amqp_ca)
        for url, side in zip(urls, ("inner bus", "outer bus"), strict=True)
    )
    knobs = RelaySettings(settings.relay_prefetch, settings.relay_retry_max, settings.relay_rebind)
    return Relay(inner, outer, scrubber(settings), knobs)


def scrubber(settings: Settings) -> Scrubber:
    """Give the scrubber with the settings' own lists."""
    return Scrubber(settings.scrub_names, settings.scrub_shapes)


def _own_broker(settings: Settings) -> Management:
    try:
        password = password_of(settings)
    except OSError as error:
        raise InputError(
            f"{settings.management_password_file}: cannot be read: {error.strerror}"
        ) from error
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


def _own_bus(
    settings: Settings,
    management: Management,
    advertise: tuple[str, ...] | None,
    ports: tuple[int | None, int | None],
) -> Bus:
    host = urlsplit(str(settings.management_url)).hostname or "localhost"
    plain, encrypted = management.listener("amqp"), management.listener("amqp/ssl")
    kept = _kept_endpoint(settings)
    endpoint = Endpoint(
        advertise or (kept.hosts if kept else (host,)),
        ports[0] or (kept.port_amqp if kept else plain or _PORT_AMQP),
        ports[1] or (kept.port_amqps if kept else encrypted or _PORT_AMQPS),
        settings.outer_vhost,
    )
    if plain is None:
        return Bus(management, "amqps", host, encrypted or _PORT_AMQPS, endpoint)
    return Bus(management, "amqp", host, plain, endpoint)


def _kept_endpoint(settings: Settings) -> Endpoint | None:
    """Give what was advertised at the last apply to a broker of one's own."""
    path = settings.state / "endpoint.json"
    try:
        value = json.loads(path.read_text("utf-8"))
        return Endpoint(
            tuple(value["hosts"]), value["port_amqp"], value["port_amqps"], settings.outer_vhost
        )
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise StackbusError(
            f"{path}: not as stackbus wrote it: remove it, and say --advertise again"
        ) from error


def _url(settings: Settings, where: Bus, user: str, vhost: str) -> str:
    kept = creds.kept_password(store(settings), user)
    if kept is None:
        raise InputError(
            f"{user} has no password in {settings.state} yet: run `stackbus apply` first"
        )
    return (
        f"{where.amqp_scheme}://{quote(user, safe='')}:{quote(kept, safe='')}@{where.amqp_host}"
        f":{where.amqp_port}/{quote(vhost, safe='')}"
    )
