"""Settings become real clients here, and nowhere else.

Called by the doors, one function a command: each gives the room's object, wired. ``Bus`` is the
broker that a command means: the private one of the state folder, or one of the administrator's
own when a management URL is set.
"""

from __future__ import annotations

import json
import re
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote, urlsplit
from uuid import uuid4

import yaml
from pydantic import SecretStr

from stackbus.broker.node import Description, Node
from stackbus.bus.names import (
    PRIORITIES,
    RECORD_TOPIC,
    RELAY_USER,
    TAIL_USER,
    queue_name,
    service_user,
)
from stackbus.bus.url import amqp_url
from stackbus.clients.amqp import Parameters, consumer_parameters, url_parameters
from stackbus.clients.management import Management
from stackbus.clients.opensearch import OpenSearch
from stackbus.errors import InputError, StackbusError
from stackbus.events.scrub import Scrubber
from stackbus.expose import credentials as creds
from stackbus.expose.apply import Exposure, Plan
from stackbus.expose.cluster.endpoint import Access
from stackbus.expose.cluster.reconcile import Cluster
from stackbus.expose.cluster.store import MANAGER, Objects
from stackbus.expose.credentials import Credentials, Endpoint
from stackbus.expose.deployment import NOTHING, Deployment, Topic, load
from stackbus.expose.dropin import render_drop_in
from stackbus.expose.secrets import NAMESPACE, FolderStore, parse_manifest
from stackbus.files import locked, write_private
from stackbus.history.engine import opened
from stackbus.history.history import History, Layout
from stackbus.record.channel import Channel
from stackbus.record.channels.bus import BusChannel
from stackbus.record.channels.log import LogChannel
from stackbus.record.channels.opensearch import OpenSearchChannel
from stackbus.record.recorder import Recorder, RecordSettings
from stackbus.record.storing import Storer, Storing
from stackbus.relay.relay import ParametersFactory, Relay, RelaySettings
from stackbus.services.service import Service
from stackbus.settings import Settings, password_of

if TYPE_CHECKING:
    from stackbus.clients.kubernetes import Kubernetes

_PORT_AMQP, _PORT_AMQPS = 5672, 5671
_MOST_PREFETCH = 65_535  # AMQP 0-9-1's basic.qos has 16 bits for it
_PATIENCE = 60.0  # seconds that one apply waits for another


@dataclass(frozen=True, slots=True)
class Bus:
    """One broker: its management API, where AMQP listens, and what consumers are told."""

    management: Management = field(repr=False)
    amqp_scheme: str
    amqp_host: str
    amqp_port: int
    endpoint: Endpoint


def consumer(
    path: Path, name: str, *, by_password: bool, plain: bool
) -> tuple[str, list[Parameters]]:
    """Read a topic's Secret manifest: the topic, and how its consumer gets in, host by host.

    Raises InputError for what is no such manifest.
    """
    try:
        text = path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read: {error}") from None
    secret = parse_manifest(text, str(path))
    topic = creds.topic_of_secret(secret.name)
    if topic is None:
        raise InputError(f"{path}: {secret.name!r} is not openstack-<topic>-notifications")
    return topic, consumer_parameters(secret.data, name, by_password=by_password, plain=plain)


@contextmanager
def history(settings: Settings) -> Iterator[History]:
    """Open the history that the settings mean, its tables up to date."""
    made = _opened_history(settings)
    try:
        made.migrate()
        yield made
    finally:
        made.close()


def _opened_history(settings: Settings) -> History:
    """Open the history. Its chain of batches is this process' own: host, moment, a random part."""
    dsn = settings.history.get_secret_value() if settings.history else None
    engine = opened(dsn or f"chdb://{quote(str(settings.state / 'history'))}")
    host = re.sub(r"[^A-Za-z0-9.-]", "-", socket.gethostname())
    recorder = f"{host}-{datetime.now(UTC):%Y%m%dT%H%M%S}-{uuid4().hex[:8]}"
    return History(engine, Layout(settings.history_cluster), recorder)


def recorders(
    settings: Settings,
    where: History,
    secret: Path | None,
    logs: Sequence[Path],
    opensearch: tuple[str, str] | None,
    *,
    by_password: bool,
    plain: bool,
) -> list[Recorder]:
    """Give a recorder for each channel: a topic's Secret, log files, (URL, index) of OpenSearch."""
    channels: list[Channel] = []
    if secret is not None:
        read = partial(consumer, secret, "stackbus record", by_password=by_password, plain=plain)
        queues = [queue_name(read()[0], priority) for priority in PRIORITIES]
        # A batch with each process that stores, and one that fills meanwhile.
        prefetch = (settings.record_processes + 1) * settings.record_batch
        channels.append(BusChannel(lambda: read()[1], queues, min(prefetch, _MOST_PREFETCH)))
    if logs:
        channels.append(LogChannel(logs, where))
    if opensearch is not None:
        url, index = opensearch
        password = _first_line(settings.opensearch_password_file, "password")
        server = OpenSearch(url, settings.opensearch_user, password, ca=settings.opensearch_ca)
        channels.append(OpenSearchChannel(server, index, where))
    knobs = RecordSettings(
        settings.record_batch,
        settings.record_batch_bytes,
        settings.record_batch_seconds,
        settings.record_retry_max,
    )
    make = partial(_storer, settings)
    return [
        Recorder(channel, Storing(make, settings.record_processes), knobs) for channel in channels
    ]


def _storer(settings: Settings) -> Storer:
    """Give what stores, in the process that does so."""
    where = _opened_history(settings)
    where.migrate()
    return Storer(where, scrubber(settings), settings.quarantine_max_bytes)


def expired_before(settings: Settings) -> datetime | None:
    """Say from when on events are kept; None: for ever."""
    if settings.history_keep_days is None:
        return None
    return datetime.now(UTC) - timedelta(days=settings.history_keep_days)


def digests(settings: Settings) -> Path:
    """Say where the digests are."""
    return settings.digests or settings.state / "digests"


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
    description = node(settings).read_description()
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
        where.management,
        store(settings),
        where.endpoint,
        settings,
        lambda: datetime.now(UTC),
        own_topics=(Topic(RECORD_TOPIC),) if is_recorded(settings) else (),
    )


def is_recorded(settings: Settings) -> bool:
    """Tell whether a recorder runs beside the private broker, and so has a topic of its own."""
    return settings.management_url is None and _record_mark(settings).exists()


def set_recorded(settings: Settings, *, wanted: bool) -> None:
    """Say whether one is to run there, from the next apply on."""
    if wanted:
        write_private(_record_mark(settings), "")
    else:
        _record_mark(settings).unlink(missing_ok=True)


def record_secret(settings: Settings) -> Path:
    """Say where the Secret of that recorder is."""
    return store(settings).path(NAMESPACE, creds.secret_name(RECORD_TOPIC))


def _record_mark(settings: Settings) -> Path:
    return settings.state / "recorded"


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
        if plan.credentials is not None:
            install_certificates(settings, plan.credentials)
        return plan


def first_credentials(settings: Settings, endpoint: Endpoint) -> None:
    """Make the CA and the server's certificate, which a node needs before its first start."""
    kept = store(settings)
    credentials = creds.prepare_credentials(
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
    url = _url(settings, where, service_user(service.name), settings.inner_vhost)
    return render_drop_in(
        service, url.replace("amqp", "rabbit", 1), notification_format=notification_format
    )


def tail_parameters(settings: Settings, where: Bus) -> list[Parameters]:
    """Say how ``tail`` gets in: as a user that may only look."""
    url = _url(settings, where, TAIL_USER, settings.outer_vhost)
    return [url_parameters(url, "stackbus tail", settings.amqp_ca)]


def relay(settings: Settings) -> Relay:
    """Give the relay, between the URLs of the settings or on the bus that they mean.

    Raises InputError for a URL or a file that is no good at the start; one that goes bad later
    is waited for.
    """
    inner = _relay_end(
        settings, settings.inner_url, settings.inner_url_file, "inner bus", settings.inner_vhost
    )
    outer = _relay_end(
        settings, settings.outer_url, settings.outer_url_file, "outer bus", settings.outer_vhost
    )
    knobs = RelaySettings(settings.relay_prefetch, settings.relay_retry_max, settings.relay_rebind)
    return Relay(inner, outer, scrubber(settings), knobs)


def _relay_end(
    settings: Settings, given: SecretStr | None, file: Path | None, side: str, vhost: str
) -> ParametersFactory:
    if given is None and file is None:
        with bus(settings) as where:
            given = SecretStr(_url(settings, where, RELAY_USER, vhost))

    def parameters() -> Parameters:
        url = given.get_secret_value() if given else _first_line(file, "URL")
        return url_parameters(url, f"stackbus relay, {side}", settings.amqp_ca)

    parameters()
    return parameters


def _first_line(path: Path | None, what: str) -> str:
    if path is None:
        return ""
    try:
        lines = path.read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: no {what} can be read there: {error}") from error
    return lines[0].strip() if lines else ""


def scrubber(settings: Settings) -> Scrubber:
    """Give the scrubber with the settings' own lists."""
    return Scrubber(settings.scrub_names, settings.scrub_shapes)


def kubernetes() -> Kubernetes:
    """Give the cluster that the pod or the kubeconfig means."""
    from stackbus.clients.kubernetes import Kubernetes  # noqa: PLC0415 -- takes half a second

    return Kubernetes(MANAGER)


def cluster(settings: Settings, objects: Objects, namespaces: tuple[str, ...]) -> Cluster:
    """Give the work of the operator."""
    if settings.broker_secret is None:
        raise InputError(
            "no broker's Secret: say --broker-secret NAMESPACE/NAME, or set STACKBUS_BROKER_SECRET"
        )

    def connect(access: Access) -> Management:
        return Management(
            access.management_url, access.username, access.password, ca=access.ca or None
        )

    return Cluster(objects, connect, settings, lambda: datetime.now(UTC), namespaces)


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
    kept = creds.read_own_password(store(settings), user)
    if kept is None:
        raise InputError(
            f"{user} has no password in {settings.state} yet: run `stackbus apply` first"
        )
    base = f"{where.amqp_scheme}://{where.amqp_host}:{where.amqp_port}"
    return amqp_url(base, user, kept, vhost)
