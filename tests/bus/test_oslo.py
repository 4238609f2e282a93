"""oslo.messaging itself, unchanged, on both ends: with the printed drop-ins and a topic's Secret."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote

import oslo_messaging
import pytest
from oslo_config import cfg
from tests.conftest import Broker, Exposed, deployment, exposure, stackbus, wait_until
from tests.relaying import RelayedBus

from stackbus.bus.names import PRIORITIES
from stackbus.expose.deployment import Deployment, Queue, Topic
from stackbus.services import SERVICES
from stackbus.services.service import Service

OUTER = "openstack-external"
TOPICS = {
    "ironic": ["ironic_versioned_notifications"],
    "masakari": ["versioned_notifications"],
    "nova": ["notifications", "versioned_notifications"],
}
"""What these services give their notifiers themselves (nova/rpc.py, ironic/common/rpc.py)."""


def configured(path: Path, text: str) -> cfg.ConfigOpts:
    path.write_text(text)
    conf = cfg.ConfigOpts()
    conf(["--config-file", str(path)], project="test")
    return conf


def notify(conf: cfg.ConfigOpts, service: Service, event_type: str, payload: object) -> list[str]:
    """Notify with oslo's own Notifier, as the service configures it; give the topics it used."""
    transport = oslo_messaging.get_notification_transport(conf)
    try:
        topics = TOPICS.get(service.name) or list(conf.oslo_messaging_notifications.topics)
        notifier = oslo_messaging.Notifier(transport, publisher_id="test.host", topics=topics)
        notifier.info({}, event_type, payload)
        notifier.error({}, event_type, payload)
        return topics
    finally:
        transport.cleanup()


@pytest.mark.parametrize("service", SERVICES, ids=lambda service: service.name)
def test_the_printed_drop_in_makes_a_service_emit(
    bus: Broker,
    expose: Callable[[Deployment], Exposed],
    tmp_path: Path,
    service: Service,
    caplog: pytest.LogCaptureFixture,
) -> None:
    expose(deployment("t"))
    text = stackbus("config", service.type, state=bus.state).stdout
    conf = configured(tmp_path / "drop-in.conf", text)
    with caplog.at_level(logging.ERROR):
        topics = notify(conf, service, f"{service.event_types[0]}.tested", {"tenant_id": "p1"})
    assert not [one for one in caplog.records if "oslo" in one.name]
    told: list[tuple[str | None, str | None]] = []

    def arrived() -> bool:
        for word in PRIORITIES:
            for _, properties, _ in bus.drain(OUTER, f"t.{word}"):
                told.append((word, properties.app_id))
        return len(told) >= 2 * len(topics)

    wait_until(arrived, 30, str(told))
    assert sorted(told) == sorted([("error", service.name), ("info", service.name)] * len(topics))


def test_novas_drop_in_can_ask_for_both_formats(bus: Broker, tmp_path: Path) -> None:
    for arguments, wanted in ((), "versioned"), (("--notification-format", "both"), "both"):
        text = stackbus("config", "nova", *arguments, state=bus.state).stdout
        conf = configured(tmp_path / "nova.conf", text)
        conf.register_opts([cfg.StrOpt("notification_format")], group="notifications")
        assert conf.notifications.notification_format == wanted
    stackbus("config", "glance", "--notification-format", "both", state=bus.state, code=2)


class Endpoint:
    """Collects what oslo's listener hands over."""

    def __init__(self) -> None:
        self.told: list[tuple[str, str]] = []

    def info(self, _: object, publisher: str, event_type: str, __: object, ___: object) -> None:
        self.told.append((publisher, event_type))

    error = warn = info


@pytest.mark.parametrize("kind", ["quorum", "classic"])
@pytest.mark.parametrize("tls", [False, True], ids=["plain", "TLS"])
def test_oslos_notification_listener_consumes_a_topic(
    bus: Broker,
    expose: Callable[[Deployment], Exposed],
    tmp_path: Path,
    kind: str,
    tls: bool,
) -> None:
    exposed = expose(deployment(Topic("listened", queue=Queue(kind))))
    secret = exposed.secret("listened")
    (tmp_path / "ca.pem").write_text(secret["ca_cert"])
    durability = "rabbit_quorum_queue=true" if kind == "quorum" else "amqp_durable_queues=true"
    encryption = f"&ssl=true&ssl_ca_file={tmp_path}/ca.pem" if tls else ""
    port = secret["port_amqp-tls" if tls else "port_amqp"]
    url = (
        f"rabbit://{quote(secret['username'])}:{quote(secret['password'])}"
        f"@{secret['hosts']}:{port}/{secret['vhost']}?{durability}{encryption}"
    )
    conf = cfg.ConfigOpts()
    conf([], project="test")
    transport = oslo_messaging.get_notification_transport(conf, url=url)
    endpoint = Endpoint()
    target = oslo_messaging.Target(topic="listened", exchange="listened")
    listener = oslo_messaging.get_notification_listener(
        transport, [target], [endpoint], executor="threading"
    )
    starting = threading.Thread(target=listener.start)
    starting.start()
    try:
        nova = next(service for service in SERVICES if service.name == "nova")
        text = stackbus("config", "nova", state=bus.state).stdout
        notify(configured(tmp_path / "nova.conf", text), nova, "instance.create.end", {})
        wait_until(lambda: len(endpoint.told) >= 4, 40, str(endpoint.told))
    finally:
        listener.stop()
        starting.join(20)
        listener.wait()
        transport.cleanup()
    assert set(endpoint.told) == {("test.host", "instance.create.end")}
    # The binding that oslo made to its own queue is its own affair.
    plan = stackbus("plan", "-f", str(tmp_path / "deployment.yaml"), "-o", "json", state=bus.state)
    assert plan.stdout.strip() == "[]"


@pytest.mark.parametrize("durable", [False, True])
def test_a_service_with_other_durability_on_a_bus_of_its_own_is_not_silenced(
    clean: Broker,
    tmp_path: Path,
    durable: bool,
    caplog: pytest.LogCaptureFixture,
) -> None:
    release = str(clean.management.overview()["rabbitmq_version"])
    if not durable and tuple(map(int, release.split(".")[:2])) >= (4, 3):
        return  # it refuses oslo's transient default queues all by itself
    clean.management.import_definitions({"vhosts": [{"name": "openstack"}]})
    clean.allow("openstack")
    bus = RelayedBus(clean, exposure(clean, tmp_path), tmp_path)
    description = clean.description
    conf = cfg.ConfigOpts()
    conf([], project="test")
    url = (
        f"rabbit://{description.username}:{description.password}@127.0.0.1:"
        f"{description.ports.amqp}/openstack?amqp_durable_queues={str(durable).lower()}"
    )
    conf.register_opts([cfg.StrOpt("x")])
    transport = oslo_messaging.get_notification_transport(conf, url=url)
    conf.set_default("driver", ["messagingv2"], group="oslo_messaging_notifications")
    notifier = oslo_messaging.Notifier(
        transport, publisher_id="compute.h", topics=["notifications"]
    )
    try:
        with caplog.at_level(logging.ERROR):
            notifier.info({}, "compute.instance.before", {})
            bus.apply(deployment("t"))
            bus.start_relay()
            bus.wait_for_relays()
            bus.wait_for_bindings("openstack")  # oslo.messaging's default exchange
            notifier.info({}, "compute.instance.after", {})
        assert not [one for one in caplog.records if "oslo" in one.name]
        told: list[str | None] = []

        def arrived() -> bool:
            told.extend(properties.type for _, properties, _ in clean.drain(OUTER, "t.info"))
            return bool(told)

        wait_until(arrived, 20)
        assert told == ["compute.instance.after"]
    finally:
        transport.cleanup()
        bus.end_relays()
