"""Every knob of stackbus, in one list: meaning, unit, default, and when to turn it.

Read once by ``wiring.py`` from the environment (``STACKBUS_<NAME>``); command-line options
override single fields. Nothing else in stackbus reads the environment.
"""

from __future__ import annotations

import os
from pathlib import Path

from pydantic import Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict


def default_state() -> Path:
    """Give the XDG state folder of stackbus, as the XDG Base Directory Specification has it."""
    base = os.environ.get("XDG_STATE_HOME") or str(Path.home() / ".local" / "state")
    return Path(base) / "stackbus"


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
    amqp_ca: Path | None = Field(
        default=None,
        description="CA certificate (PEM) of the brokers behind `amqps://` URLs, when a public CA "
        "did not sign them.",
    )
    scrub_names: list[str] = Field(
        default=[],
        description="More telling names, as a JSON list: a value under a name that contains one "
        'is scrubbed. Example: `["licence_key"]`.',
    )
    scrub_shapes: list[str] = Field(
        default=[],
        description="More telling shapes, as a JSON list of regular expressions: what matches, "
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


def password_of(settings: Settings) -> str:
    """Give the management password from the environment or from its file; '' when unset."""
    if settings.management_password is not None:
        return settings.management_password.get_secret_value()
    if settings.management_password_file is not None:
        lines = settings.management_password_file.read_text("utf-8").splitlines()
        return lines[0] if lines else ""
    return ""
