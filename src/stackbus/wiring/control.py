"""The control plane on the broker of a command: plan, apply, and the credentials of the start.

``plan_and_apply`` is the only way to change the bus: it holds the state folder, saves the
deployment, applies the plan and installs new certificates for the private broker.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import yaml

from stackbus.bus.names import RECORD_TOPIC, service_user
from stackbus.expose import dropin
from stackbus.expose.apply import Exposure, Plan
from stackbus.expose.credentials import Endpoint, prepare_credentials, secret_name
from stackbus.expose.deployment import NOTHING, Deployment, Topic
from stackbus.expose.secrets import NAMESPACE
from stackbus.expose.validation import load
from stackbus.services.service import Service
from stackbus.settings import Settings
from stackbus.state import StateFolder
from stackbus.wiring.broker import Broker, amqp_url, secret_store


def exposure(settings: Settings, broker: Broker) -> Exposure:
    """Return the control plane of ``broker``."""
    return Exposure(
        broker=broker.management,
        store=secret_store(settings),
        endpoint=broker.endpoint,
        settings=settings,
        clock=lambda: datetime.now(UTC),
        own_topics=(Topic(RECORD_TOPIC),) if is_recorded(settings) else (),
    )


def plan_and_apply(
    settings: Settings,
    broker: Broker,
    make_plan: Callable[[Exposure], Plan],
    *,
    deployment: Deployment | None = None,
    progress: Callable[[str], None] = lambda _: None,
) -> Plan:
    """Make a plan and apply it, while no other process changes the state folder.

    ``deployment``, if given, becomes the saved one. Raises StackbusError after waiting 60 s for
    another process.
    """
    state = StateFolder(settings.state)
    with state.hold_for_apply():
        control = exposure(settings, broker)
        plan = make_plan(control)
        if deployment is not None:
            state.write_deployment(yaml.safe_dump(deployment.to_document(), sort_keys=False))
        if settings.management_url is not None:
            state.write_endpoint(broker.endpoint)
        control.apply(plan, progress)
        if plan.credentials is not None:
            state.install_certificates(plan.credentials)
        return plan


def saved_deployment(settings: Settings) -> Deployment:
    """Return the deployment of the last apply; NOTHING before the first."""
    path = StateFolder(settings.state).deployment
    return load(path) if path.exists() else NOTHING


def is_recorded(settings: Settings) -> bool:
    """Tell whether a recorder runs beside the private broker, and so has a topic of its own."""
    return settings.management_url is None and StateFolder(settings.state).is_recorded


def record_secret(settings: Settings) -> Path:
    """Return the path of the Secret of that topic."""
    return secret_store(settings).path(NAMESPACE, secret_name(RECORD_TOPIC))


def create_first_credentials(settings: Settings, endpoint: Endpoint) -> None:
    """Create the CA and the server's certificate, which the private broker needs to start."""
    store = secret_store(settings)
    credentials = prepare_credentials(
        store,
        NOTHING,
        {},
        endpoint,
        datetime.now(UTC),
        certificate_days=settings.certificate_days,
        renew_days=settings.renew_days,
    )
    for secret in credentials.secrets():
        if store.read(secret.namespace, secret.name) != secret:
            store.write(secret)
    StateFolder(settings.state).install_certificates(credentials)


def render_drop_in(
    settings: Settings, broker: Broker, service: Service, *, notification_format: str
) -> str:
    """Return the oslo.config drop-in by which ``service`` publishes to ``broker``."""
    url = amqp_url(settings, broker, service_user(service.name), settings.inner_vhost)
    return dropin.render_drop_in(
        service, url.replace("amqp", "rabbit", 1), notification_format=notification_format
    )
