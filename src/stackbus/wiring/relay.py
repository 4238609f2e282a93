"""The relay, between the AMQP URLs of the settings or on the broker that they name."""

from __future__ import annotations

from pathlib import Path

from stackbus.bus.names import RELAY_USER
from stackbus.clients.amqp import Parameters, url_parameters
from stackbus.files import read_first_line
from stackbus.relay.relay import ParametersFactory, Relay, RelaySettings
from stackbus.settings import SecretStr, Settings
from stackbus.wiring.broker import amqp_url, open_broker
from stackbus.wiring.history import scrubber


def relay(settings: Settings) -> Relay:
    """Return the relay.

    Raises InputError for a URL or a file that cannot be used now; the relay waits for one that
    becomes unusable later.
    """
    return Relay(
        inner=_bus(
            settings,
            url=settings.inner_url,
            url_file=settings.inner_url_file,
            name="stackbus relay, inner bus",
            vhost=settings.inner_vhost,
        ),
        outer=_bus(
            settings,
            url=settings.outer_url,
            url_file=settings.outer_url_file,
            name="stackbus relay, outer bus",
            vhost=settings.outer_vhost,
        ),
        scrubber=scrubber(settings),
        settings=RelaySettings(
            prefetch=settings.relay_prefetch,
            retry_max=settings.relay_retry_max,
            rebind=settings.relay_rebind,
        ),
    )


def _bus(
    settings: Settings, *, url: SecretStr | None, url_file: Path | None, name: str, vhost: str
) -> ParametersFactory:
    """Return a function that reads the connection's parameters, anew for each connection."""
    if url is None and url_file is None:
        with open_broker(settings) as broker:
            url = SecretStr(amqp_url(settings, broker, RELAY_USER, vhost))

    def parameters() -> Parameters:
        text = url.value if url else read_first_line(url_file, "an AMQP URL") if url_file else ""
        return url_parameters(text, name, settings.amqp_ca, heartbeat=settings.amqp_heartbeat)

    parameters()
    return parameters
