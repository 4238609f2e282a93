"""Every knob of stackbus, in one list: meaning, unit, default, and when to turn it.

Read once by ``wiring.py`` from the environment (``STACKBUS_<NAME>``); command-line options
override single fields. Nothing else in stackbus reads the environment.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict


def default_state() -> Path:
    """Give the XDG state folder of stackbus, as the XDG Base Directory Specification has it."""
    base = os.environ.get("XDG_STATE_HOME") or str(Path.home() / ".local" / "state")
    return Path(base) / "stackbus"


def _place(value: str) -> str:
    if not re.fullmatch(r"[a-z0-9.-]+/[a-z0-9.-]+", value):
        raise ValueError("NAMESPACE/NAME of a Secret was expected, as openstack/stackbus-broker")
    return value


class Settings(BaseSettings):
    """The settings; ``docs/reference/settings.md`` is generated from this class."""

    model_config = SettingsConfigDict(env_prefix="STACKBUS_", frozen=True, extra="ignore")

    state: Path = Field(
        default_factory=default_state,
        description="Folder of everything stackbus keeps: the CA's key, the Secrets, the private "
        "broker. Back it up; mode 0700. Default: `$XDG_STATE_HOME/stackbus`.",
    )
    rabbitmq_server: Path = Field(
        default=Path("/usr/lib/rabbitmq/bin/rabbitmq-server"),
        description="The `rabbitmq-server` program that the private broker runs. Change it to run "
        "another release than the system's package (3.10 to 4.3 are supported).",
    )
    inner_vhost: str = Field(
        default="openstack",
        min_length=1,
        description="Vhost in which the OpenStack services publish. On a bus of your own: the one "
        "their `transport_url` ends with.",
    )
    outer_vhost: str = Field(
        default="openstack-external",
        min_length=1,
        description="Vhost of the topics; consumers log in here and nowhere else.",
    )
    management_url: str | None = Field(
        default=None,
        description="RabbitMQ management API of a broker of your own, such as "
        "`https://rabbit.example:15671`. Unset: the private broker of `stackbus up`.",
    )
    management_user: str = Field(
        default="stackbus-admin",
        description="Administrator of a broker of your own.",
    )
    management_password: SecretStr | None = Field(
        default=None,
        description="That administrator's password. Prefer `STACKBUS_MANAGEMENT_PASSWORD_FILE`.",
    )
    management_password_file: Path | None = Field(
        default=None,
        description="File whose first line is that administrator's password.",
    )
    management_ca: Path | None = Field(
        default=None,
        description="CA certificate (PEM) of the management API, when a public CA did not sign it.",
    )
    inner_url: SecretStr | None = Field(
        default=None,
        description="`stackbus relay` alone: AMQP URL of the inner bus, password included.",
    )
    outer_url: SecretStr | None = Field(
        default=None,
        description="`stackbus relay` alone: AMQP URL of the outer bus, password included.",
    )
    inner_url_file: Path | None = Field(
        default=None,
        description="`stackbus relay` alone: file whose first line is that URL, in place of it; "
        "read again at each connection, so a new password needs no restart.",
    )
    outer_url_file: Path | None = Field(
        default=None,
        description="The same for the outer bus.",
    )
    amqp_ca: Path | None = Field(
        default=None,
        description="CA certificate (PEM) of the brokers behind `amqps://` URLs, when a public CA "
        "did not sign them.",
    )
    scrub_names: list[str] = Field(
        default=[],
        description="More sensitive names, as a JSON list: a value under a name that contains one "
        'is scrubbed. Example: `["licence_key"]`.',
    )
    scrub_shapes: list[str] = Field(
        default=[],
        description="More secret patterns, as a JSON list of regular expressions: what matches, "
        "anywhere in a value, is scrubbed. Costs the relay speed: each one is run on each body.",
    )
    relay_prefetch: int = Field(
        default=500,
        ge=1,
        le=10_000,
        description="Notifications the relay has in flight. Higher: faster when confirms are slow; "
        "memory grows with it, times the size of a notification.",
    )
    relay_retry_max: float = Field(
        default=15.0,
        gt=0,
        description="Seconds: the longest pause between two attempts of the relay to reconnect.",
    )
    relay_rebind: float = Field(
        default=5.0,
        gt=0,
        description="Seconds between two looks of the relay for control exchanges that have come "
        "since (a service declares its exchange when it first sends).",
    )
    journal_max_age: str = Field(
        default="7D",
        pattern=r"^[0-9]+[YMDhms]$",
        description="How far back the journal reaches (RabbitMQ's stream unit: Y, M, D, h, m, s).",
    )
    journal_max_bytes: int = Field(
        default=20 * 1024**3,
        ge=1024**2,
        description="Bytes of the journal at most; the oldest segments go first.",
    )
    queue_max_age: int = Field(
        default=3 * 24 * 3600,
        ge=1,
        description="Seconds a topic's queue keeps a notification, where the deployment is silent.",
    )
    queue_max_bytes: int = Field(
        default=1024**3,
        ge=1,
        description="Bytes a topic's queue holds at most, where the deployment is silent.",
    )
    dropped_max_bytes: int = Field(
        default=256 * 1024**2,
        ge=1,
        description="Bytes of dropped notifications kept in `stackbus.dropped` for a look at them.",
    )
    default_queue_max_age: int = Field(
        default=24 * 3600,
        ge=1,
        description="Seconds a notification stays in a queue that oslo.messaging declares itself "
        "(`notifications.info` and its kin), which nobody may ever drain.",
    )
    default_queue_max_bytes: int = Field(
        default=64 * 1024**2,
        ge=1,
        description="Bytes such a queue holds at most.",
    )
    max_connections: int = Field(
        default=100,
        ge=1,
        description="Connections a consumer may hold at once.",
    )
    max_channels: int = Field(
        default=1000,
        ge=1,
        description="Channels a consumer may hold at once.",
    )
    certificate_days: float = Field(
        default=397,
        gt=0,
        description="Days a server or client certificate is valid.",
    )
    renew_days: float = Field(
        default=60,
        gt=0,
        description="A certificate with fewer days left is renewed at the next apply.",
    )
    history: SecretStr | None = Field(
        default=None,
        description="Where events are kept: `chdb:///an/absolute/path`, embedded, or "
        "`clickhouse://user:password@host:8123/database` (`clickhouses://` for TLS). "
        "Default: `chdb://<state>/history`.",
    )
    history_cluster: str | None = Field(
        default=None,
        pattern=r"^[A-Za-z0-9_{}.-]+$",
        description="Name of the ClickHouse cluster over which the history's tables are replicated "
        "and distributed. Unset: they are on one server.",
    )
    history_keep_days: int | None = Field(
        default=None,
        ge=1,
        description="Days that events are kept at least: whole months that ended before are "
        "dropped, once a day, by `stackbus record`. Unset: nothing is ever dropped.",
    )
    record_batch: int = Field(
        default=5_000,
        ge=1,
        le=100_000,
        description="Notifications that the recorder inserts at once, at most. Higher: faster "
        "through a backlog; memory grows with it.",
    )
    record_processes: int = Field(
        default=2,
        ge=1,
        le=64,
        description="Processes that read and store the batches of a channel. Higher: faster "
        "through a backlog, where there are more cores; memory grows with it.",
    )
    record_batch_bytes: int = Field(
        default=32 * 1024**2,
        ge=1024,
        description="Bytes of such a batch, at most (one notification may be larger).",
    )
    record_batch_seconds: float = Field(
        default=0.2,
        gt=0,
        description="Seconds that a notification waits for others to be inserted with.",
    )
    record_retry_max: float = Field(
        default=15.0,
        gt=0,
        description="Seconds: the longest pause between two attempts of the recorder to reach the "
        "bus, OpenSearch or the history.",
    )
    quarantine_max_bytes: int = Field(
        default=256 * 1024**2,
        ge=1024,
        description="Bytes of unreadable bodies that the history keeps; at more the recorder stops "
        "with an error, and what comes stays in the topic's queues.",
    )
    signing_key: Path | None = Field(
        default=None,
        description="Private Ed25519 key (PEM) with which `stackbus record` signs a digest of each "
        "hour, and `stackbus sign` on demand. Unset: nothing is signed.",
    )
    verifying_key: Path | None = Field(
        default=None,
        description="The public key (PEM) that `stackbus verify` trusts.",
    )
    digests: Path | None = Field(
        default=None,
        description="Folder of the digests. Copy it off the machine. Default: `<state>/digests`.",
    )
    opensearch_user: str | None = Field(
        default=None,
        description="User of the OpenSearch server that `stackbus record --opensearch` reads.",
    )
    opensearch_password_file: Path | None = Field(
        default=None,
        description="File whose first line is that user's password.",
    )
    opensearch_ca: Path | None = Field(
        default=None,
        description="CA certificate (PEM) of that server, when a public CA did not sign it.",
    )
    broker_secret: Annotated[str, AfterValidator(_place)] | None = Field(
        default=None,
        description="`stackbus operator`: the broker's Secret, `NAMESPACE/NAME`, with the keys "
        "`management_url`, `amqp_url`, `username`, `password` and, for a private CA, `ca_cert`.",
    )
    outer_broker_secret: Annotated[str, AfterValidator(_place)] | None = Field(
        default=None,
        description="`stackbus operator`: such a Secret for a broker that has the outer bus alone. "
        "Unset: both buses are on the same one.",
    )
    service_type: Literal["LoadBalancer", "NodePort", "ClusterIP"] = Field(
        default="LoadBalancer",
        description="Type of the Service `rabbitmq-external`, by which consumers come in.",
    )
    service_selector: dict[str, str] = Field(
        default={"app.kubernetes.io/name": "rabbitmq"},
        description="Labels of the broker's pods, as JSON: what that Service selects.",
    )
    service_annotations: dict[str, str] = Field(
        default={},
        description="Annotations of that Service, as JSON: what your load balancer wants to know.",
    )
    advertise: list[str] = Field(
        default=[],
        description="Hosts, as a JSON list, that consumers are told instead of the Service's "
        "addresses: names that stand before a load balancer.",
    )
    resync: float = Field(
        default=60.0,
        ge=1,
        description="Seconds between two looks of the operator at everything, whatever happens: "
        "what was changed in RabbitMQ by hand is mended then.",
    )


def password_of(settings: Settings) -> str:
    """Give the management password from the environment or from its file; '' when unset."""
    if settings.management_password is not None:
        return settings.management_password.get_secret_value()
    if settings.management_password_file is not None:
        lines = settings.management_password_file.read_text("utf-8").splitlines()
        return lines[0] if lines else ""
    return ""
