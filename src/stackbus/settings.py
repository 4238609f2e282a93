"""Every setting of stackbus in one list: meaning, unit, default, and when to change it.

A command calls ``read_settings`` once, with the environment (``STACKBUS_<NAME>``) and the options
that it was given; ``wiring/`` turns the result into clients. Nothing else reads the environment.
``docs/reference/settings.md`` is generated from the class ``Settings``.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin

import msgspec
from msgspec import Meta

from stackbus.errors import InputError

PREFIX = "STACKBUS_"
_MIN_PORT, _MAX_PORT = 1024, 65_535


class SecretStr:
    """A text that no log line and no traceback shows."""

    __slots__ = ("value",)

    def __init__(self, value: str) -> None:
        self.value = value

    def __repr__(self) -> str:
        return "SecretStr(***)"


def default_state() -> Path:
    """Return stackbus' folder below the XDG state folder (XDG Base Directory Specification)."""
    base = os.environ.get("XDG_STATE_HOME") or str(Path.home() / ".local" / "state")
    return Path(base) / "stackbus"


_Positive = Annotated[int, Meta(ge=1)]
_SecretName = Annotated[
    str,
    Meta(
        pattern=r"^[a-z0-9.-]+/[a-z0-9.-]+\Z",
        extra={"expected": "NAMESPACE/NAME of a Secret, such as openstack/stackbus-broker"},
    ),
]


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """The settings. ``read_settings`` checks every value; the constructor does not."""

    state: Annotated[
        Path,
        Meta(
            description="The state folder: all that stackbus keeps, such as the CA's key, the "
            "Secrets and the private broker. Back it up. Its mode is 0700. "
            "Default: `$XDG_STATE_HOME/stackbus`."
        ),
    ] = msgspec.field(default_factory=default_state)
    rabbitmq_server: Annotated[
        Path,
        Meta(
            description="The `rabbitmq-server` program that the private broker runs. Change it to "
            "run another release than the system's package (3.10 to 4.3 are supported)."
        ),
    ] = Path("/usr/lib/rabbitmq/bin/rabbitmq-server")
    broker_ports: Annotated[
        str,
        Meta(
            pattern=r"^[0-9]{4,5}-[0-9]{4,5}\Z",
            description="Range from which the private broker draws its ports at its first start. "
            "The default ends below the ports that Linux gives to clients.",
            extra={"expected": "a range of ports from 1024 to 65535, such as 20000-32767"},
        ),
    ] = "20000-32767"
    inner_vhost: Annotated[
        str,
        Meta(
            min_length=1,
            description="Vhost in which the OpenStack services publish. On your own broker, the "
            "vhost at the end of their `transport_url`.",
        ),
    ] = "openstack"
    outer_vhost: Annotated[
        str,
        Meta(
            min_length=1,
            description="Vhost of the topics. Consumers can log in to this vhost only.",
        ),
    ] = "openstack-external"
    management_url: Annotated[
        str | None,
        Meta(
            description="URL of the RabbitMQ management API of your own broker, such as "
            "`https://rabbit.example:15671`. Unset: the private broker of `stackbus up`."
        ),
    ] = None
    management_user: Annotated[str, Meta(description="Administrator of your own broker.")] = (
        "stackbus-admin"
    )
    management_password: Annotated[
        SecretStr | None,
        Meta(
            description="Password of that administrator. Prefer "
            "`STACKBUS_MANAGEMENT_PASSWORD_FILE`."
        ),
    ] = None
    management_password_file: Annotated[
        Path | None, Meta(description="File whose first line is that password.")
    ] = None
    management_ca: Annotated[
        Path | None,
        Meta(
            description="CA certificate (PEM) of the management API, if no public CA signed its "
            "certificate."
        ),
    ] = None
    inner_url: Annotated[
        SecretStr | None,
        Meta(description="`stackbus relay`: AMQP URL of the inner bus, with the password."),
    ] = None
    outer_url: Annotated[
        SecretStr | None,
        Meta(description="`stackbus relay`: AMQP URL of the outer bus, with the password."),
    ] = None
    inner_url_file: Annotated[
        Path | None,
        Meta(
            description="`stackbus relay`: file whose first line is the AMQP URL of the inner bus. "
            "The relay reads it before each connection, so a new password needs no restart."
        ),
    ] = None
    outer_url_file: Annotated[
        Path | None, Meta(description="The same for the AMQP URL of the outer bus.")
    ] = None
    amqp_ca: Annotated[
        Path | None,
        Meta(
            description="CA certificate (PEM) of the brokers behind `amqps://` URLs, if no public "
            "CA signed their certificates."
        ),
    ] = None
    amqp_heartbeat: Annotated[
        int,
        Meta(
            ge=5,
            le=600,
            description="Seconds of silence after which the relay and the recorder take a "
            "connection to RabbitMQ for lost, and RabbitMQ takes theirs. Lower: a lost route is "
            "noticed sooner. Higher: for a network with long pauses.",
        ),
    ] = 30
    scrub_names: Annotated[
        list[str],
        Meta(
            description="More names of secrets, as a JSON list: the value of a field whose name "
            'contains one of them is scrubbed. Example: `["licence_key"]`.'
        ),
    ] = []
    scrub_shapes: Annotated[
        list[str],
        Meta(
            description="More shapes of secrets, as a JSON list of regular expressions: a match, "
            "anywhere in a value, is scrubbed. Each one slows the relay, which searches every body."
        ),
    ] = []
    relay_prefetch: Annotated[
        int,
        Meta(
            ge=1,
            le=10_000,
            description="Notifications that the relay has in flight. Higher: faster when the "
            "broker confirms slowly; memory grows by this number of notifications.",
        ),
    ] = 500
    relay_retry_max: Annotated[
        float,
        Meta(
            gt=0,
            description="Seconds: the longest pause between two attempts of the relay to connect.",
        ),
    ] = 15.0
    relay_rebind: Annotated[
        float,
        Meta(
            gt=0,
            description="Seconds between two checks of the relay for new control exchanges (a "
            "service declares its exchange when it first publishes).",
        ),
    ] = 5.0
    journal_max_age: Annotated[
        str,
        Meta(
            pattern=r"^[0-9]+[YMDhms]\Z",
            description="Age at which the journal drops notifications (in RabbitMQ's units for "
            "streams: Y, M, D, h, m, s).",
            extra={"expected": "a number with one of the units Y, M, D, h, m, s, such as 7D"},
        ),
    ] = "7D"
    journal_max_bytes: Annotated[
        int,
        Meta(
            ge=1024**2,
            description="Size of the journal in bytes at which its oldest segments are dropped.",
        ),
    ] = 20 * 1024**3
    queue_max_age: Annotated[
        int,
        Meta(
            ge=1,
            description="Seconds that a queue of a topic keeps a notification, unless the "
            "deployment sets `maxAge`.",
        ),
    ] = 3 * 24 * 3600
    queue_max_bytes: Annotated[
        int,
        Meta(
            ge=1,
            description="Bytes that a queue of a topic holds at most, unless the deployment sets "
            "`maxBytes`.",
        ),
    ] = 1024**3
    dropped_max_bytes: Annotated[
        int,
        Meta(
            ge=1,
            description="Bytes of dropped notifications that `stackbus.dropped` keeps for "
            "inspection.",
        ),
    ] = 256 * 1024**2
    default_queue_max_age: Annotated[
        int,
        Meta(
            ge=1,
            description="Seconds that a notification stays in a queue that oslo.messaging declares "
            "itself (`notifications.info` and the like), which may have no consumer.",
        ),
    ] = 24 * 3600
    default_queue_max_bytes: Annotated[
        int, Meta(ge=1, description="Bytes that such a queue holds at most.")
    ] = 64 * 1024**2
    max_connections: Annotated[
        int, Meta(ge=1, description="Connections that a consumer may hold at once.")
    ] = 100
    max_channels: Annotated[
        int, Meta(ge=1, description="Channels that a consumer may hold at once.")
    ] = 1000
    certificate_days: Annotated[
        float, Meta(gt=0, description="Days that a server or client certificate is valid.")
    ] = 397.0
    renew_days: Annotated[
        float,
        Meta(gt=0, description="Days before its expiry from which an apply renews a certificate."),
    ] = 60.0
    history: Annotated[
        SecretStr | None,
        Meta(
            description="The history's database: `chdb:///an/absolute/path`, embedded, or "
            "`clickhouse://user:password@host:8123/database` (`clickhouses://` for TLS). "
            "Default: `chdb://<state>/history`."
        ),
    ] = None
    history_cluster: Annotated[
        Annotated[
            str,
            Meta(
                pattern=r"^[A-Za-z0-9_{}.-]+\Z",
                extra={"expected": "a name of letters, digits and _ { } . -"},
            ),
        ]
        | None,
        Meta(
            description="Name of the ClickHouse cluster over which the history's tables are "
            "replicated and distributed. Unset: one server holds them."
        ),
    ] = None
    region: Annotated[
        str,
        Meta(
            description="Name of the region of the cloud whose notifications `stackbus record` "
            "receives. It becomes the field `region` of the events. Empty: unknown."
        ),
    ] = ""
    history_keep_days: Annotated[
        _Positive | None,
        Meta(
            description="Days that events are kept at least. Once a day, `stackbus record` drops "
            "whole months that ended before. Unset: nothing is ever dropped."
        ),
    ] = None
    record_batch: Annotated[
        int,
        Meta(
            ge=1,
            le=100_000,
            description="Notifications that the recorder inserts at once, at most. Higher: faster "
            "through a backlog; memory grows with it.",
        ),
    ] = 5_000
    record_processes: Annotated[
        int,
        Meta(
            ge=1,
            le=64,
            description="Processes that decode and insert the batches of a channel. Higher: faster "
            "through a backlog if there are more cores; memory grows with it.",
        ),
    ] = 2
    record_batch_bytes: Annotated[
        int,
        Meta(
            ge=1024,
            description="Bytes of such a batch, at most (a single notification may be larger).",
        ),
    ] = 32 * 1024**2
    record_batch_seconds: Annotated[
        float,
        Meta(gt=0, description="Seconds that a notification waits for others of its batch."),
    ] = 0.2
    record_retry_max: Annotated[
        float,
        Meta(
            gt=0,
            description="Seconds: the longest pause between two attempts of the recorder to "
            "connect to the bus, to OpenSearch or to the history.",
        ),
    ] = 15.0
    quarantine_max_bytes: Annotated[
        int,
        Meta(
            ge=1024,
            description="Bytes of unreadable bodies that the history keeps. Beyond them the "
            "recorder stops with an error, and new notifications stay in the topic's queues.",
        ),
    ] = 256 * 1024**2
    signing_key: Annotated[
        Path | None,
        Meta(
            description="Private Ed25519 key (PEM) with which `stackbus record` signs a digest of "
            "each hour, and `stackbus sign` on demand. Unset: nothing is signed."
        ),
    ] = None
    verifying_key: Annotated[
        Path | None, Meta(description="Public key (PEM) that `stackbus verify` trusts.")
    ] = None
    digests: Annotated[
        Path | None,
        Meta(
            description="Folder of the digests. Copy it to another machine. "
            "Default: `<state>/digests`."
        ),
    ] = None
    opensearch_user: Annotated[
        str | None,
        Meta(description="User of the OpenSearch server of `stackbus record --opensearch`."),
    ] = None
    opensearch_password_file: Annotated[
        Path | None, Meta(description="File whose first line is the password of that user.")
    ] = None
    opensearch_ca: Annotated[
        Path | None,
        Meta(
            description="CA certificate (PEM) of the OpenSearch server, if no public CA signed its "
            "certificate."
        ),
    ] = None
    broker_secret: Annotated[
        _SecretName | None,
        Meta(
            description="`stackbus operator`: `NAMESPACE/NAME` of the broker's Secret, with the "
            "keys `management_url`, `amqp_url`, `username`, `password` and, for a private CA, "
            "`ca_cert`."
        ),
    ] = None
    outer_broker_secret: Annotated[
        _SecretName | None,
        Meta(
            description="`stackbus operator`: such a Secret of a second broker for the outer bus. "
            "Unset: one broker has both buses."
        ),
    ] = None
    service_type: Annotated[
        Literal["LoadBalancer", "NodePort", "ClusterIP"],
        Meta(
            description="Type of the Service `rabbitmq-external`, to which consumers connect.",
            extra={"expected": "LoadBalancer, NodePort or ClusterIP"},
        ),
    ] = "LoadBalancer"
    service_selector: Annotated[
        dict[str, str],
        Meta(description="Labels of the broker's pods, as JSON: the selector of that Service."),
    ] = msgspec.field(default_factory=lambda: {"app.kubernetes.io/name": "rabbitmq"})
    service_annotations: Annotated[
        dict[str, str],
        Meta(description="Annotations of that Service, as JSON, for your load balancer."),
    ] = {}
    advertise: Annotated[
        list[str],
        Meta(
            description="Hosts, as a JSON list, that the topics' Secrets name instead of the "
            "Service's addresses, such as the DNS names of a load balancer."
        ),
    ] = []
    resync: Annotated[
        float,
        Meta(
            ge=1,
            description="Seconds between two complete checks of the operator. Each corrects what "
            "was changed by hand in RabbitMQ.",
        ),
    ] = 60.0


@dataclass(frozen=True, slots=True)
class Setting:
    """One row of the reference: name, default (None: unset or computed) and meaning."""

    name: str
    default: object
    description: str


def reference() -> tuple[Setting, ...]:
    """Return the settings in the order of the class, for the generated page."""
    rows = []
    for setting in msgspec.structs.fields(Settings):
        is_computed = setting.name == "state"
        default = None if is_computed else getattr(Settings(state=Path()), setting.name)
        rows.append(Setting(setting.name, default, _meta(setting.type).description or ""))
    return tuple(rows)


def read_settings(environment: Mapping[str, str], options: Mapping[str, object]) -> Settings:
    """Read the settings from ``environment``; ``options``, by field name, override it.

    A list or a map is JSON in the environment. Raises InputError with the variable, its value
    (unless it is a secret) and the values that would be right.
    """
    values = {}
    for setting in msgspec.structs.fields(Settings):
        variable = PREFIX + setting.name.upper()
        if setting.name in options:
            values[setting.name] = _convert(options[setting.name], setting.type, variable)
        elif variable in environment:
            values[setting.name] = _convert(environment[variable], setting.type, variable)
    return Settings(**values)


def port_range(settings: Settings) -> range:
    """Return the ports from which the private broker draws its own. Raises InputError."""
    first, last = map(int, settings.broker_ports.split("-"))
    if not _MIN_PORT <= first < last <= _MAX_PORT:
        raise InputError(
            f"setting {PREFIX}BROKER_PORTS: {settings.broker_ports!r}: expected a range of ports "
            f"from {_MIN_PORT} to {_MAX_PORT}, such as 20000-32767"
        )
    return range(first, last + 1)


def password_of(settings: Settings) -> str:
    """Return the management password from the environment or from its file; '' when unset."""
    if settings.management_password is not None:
        return settings.management_password.value
    if settings.management_password_file is not None:
        lines = settings.management_password_file.read_text("utf-8").splitlines()
        return lines[0] if lines else ""
    return ""


def _convert(value: object, annotation: Any, variable: str) -> Any:
    shown = "" if SecretStr in get_args(get_args(annotation)[0]) else f"{value!r}: "
    is_json = get_origin(get_args(annotation)[0]) in (list, dict)
    try:
        if is_json and isinstance(value, str):
            value = msgspec.json.decode(value)
        return msgspec.convert(value, annotation, strict=False, dec_hook=_convert_own)
    except msgspec.ValidationError as error:
        expected = _expected(annotation) or str(error).removeprefix("Expected ").replace("`", "")
        raise InputError(f"setting {variable}: {shown}expected {expected}") from None
    except msgspec.DecodeError as error:
        raise InputError(f"setting {variable}: {shown}not valid JSON: {error}") from None


def _convert_own(kind: type, value: Any) -> Any:
    """Convert to the types that msgspec does not know, as ``msgspec.convert`` asks for it."""
    return value if isinstance(value, kind) else kind(value)


def _meta(annotation: Any) -> Meta:
    meta = get_args(annotation)[1]
    assert isinstance(meta, Meta)
    return meta


def _expected(annotation: Any) -> str | None:
    """Return the ``expected`` of the annotation's Meta, or of the one inside it."""
    for candidate in (annotation, *get_args(get_args(annotation)[0])):
        for meta in get_args(candidate)[1:]:
            if isinstance(meta, Meta) and meta.extra and "expected" in meta.extra:
                return str(meta.extra["expected"])
    return None
