"""A message on the bus: its label, its AMQP properties and stackbus' headers. Pure.

The relay writes them (``properties_of``, ``quarantine_properties``); ``stackbus tail`` and the
recorder read them back (``scrubbed_paths``, ``is_relayed``). The body is the notification as the
service sent it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

SCRUBBED = "x-stackbus-scrubbed"
"""Header: the paths of the values that the relay removed from the body."""

REASON = "x-stackbus-reason"
"""Header of a quarantined body: why the relay could not read it."""

EXCHANGE = "x-stackbus-exchange"
ROUTING_KEY = "x-stackbus-routing-key"
"""Headers of a quarantined body: how it arrived."""

_MAX_PATHS = 100
_MAX_PATH = 200
_PERSISTENT = 2


@dataclass(frozen=True, slots=True)
class Label:
    """The routing key of a notification on the outer bus, and its properties.

    ``timestamp``: when the service sent it, in seconds since 1970, None if it does not say.
    """

    routing_key: str
    service: str
    message_id: str
    event_type: str
    timestamp: int | None


class Properties(Protocol):
    """The AMQP properties of a delivery, as far as stackbus reads them."""

    @property
    def app_id(self) -> str | None:
        """Return the name of the service."""

    @property
    def type(self) -> str | None:
        """Return the event type."""


def properties_of(label: Label, paths: Sequence[str]) -> dict[str, Any]:
    """Return the properties of a relayed notification, by their AMQP names.

    ``paths``: the paths of the values that were scrubbed.
    """
    return {
        "content_type": "application/json",
        "content_encoding": "utf-8",
        "delivery_mode": _PERSISTENT,
        "message_id": label.message_id,
        "type": label.event_type,
        "app_id": label.service,
        "timestamp": label.timestamp,
        "headers": {SCRUBBED: _fit_frame(paths)} if paths else None,
    }


def quarantine_properties(reason: str, exchange: str, routing_key: str) -> dict[str, Any]:
    """Return the properties of a body that the relay could not read."""
    return {
        "delivery_mode": _PERSISTENT,
        "headers": {REASON: reason, EXCHANGE: exchange, ROUTING_KEY: routing_key},
    }


def scrubbed_paths(headers: Mapping[str, Any] | None) -> tuple[str, ...]:
    """Return the paths that the relay scrubbed, from the headers of a delivery."""
    paths = (headers or {}).get(SCRUBBED, [])
    return tuple(str(path) for path in paths) if isinstance(paths, list) else ()


def is_relayed(properties: Properties) -> bool:
    """Return whether the relay published a delivery, so that its body is scrubbed.

    The services set neither property, and only the relay may publish on the outer bus.
    """
    return bool(properties.app_id and properties.type)


def _fit_frame(paths: Sequence[str]) -> list[str]:
    """Return the paths as a header that fits an AMQP frame, however many there are."""
    shown = [path[:_MAX_PATH] for path in paths[:_MAX_PATHS]]
    if len(paths) > _MAX_PATHS:
        shown.append(f"... and {len(paths) - _MAX_PATHS} more")
    return shown
