"""The operator whole, under kopf: what an administrator does, and what comes of it."""

from __future__ import annotations

import base64
import json
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Mapping
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

import pika
import pytest
import yaml
from cryptography import x509

from stackbus.broker.node import free_port
from stackbus.expose.certificates import expires
from stackbus.expose.cluster.objects import CONFIGURATION, SERVER_TLS
from stackbus.expose.cluster.rotation import ROTATING
from tests.conftest import Broker, backlog, golden, node_at, publish, stackbus, wait_until
from tests.kubernetes.conftest import (
    BROKER_SECRET,
    EXTERNAL,
    KIND,
    NAME,
    OPENSTACK,
    OWN,
    Cloud,
    resource,
    secret,
)
from tests.kubernetes.emulator import Call, Refused
from tests.proxy import Proxy

ADDRESS = "192.0.2.7"


def expose(cloud: Cloud, *topics: str, **environment: str) -> None:
    """Start with these topics exposed."""
    cloud.create(resource(*topics))
    cloud.start(**environment)
    cloud.give_address(ADDRESS)
    cloud.wait_for("Ready", "True", "Exposed")


def test_a_resource_is_created_changed_disabled_and_deleted(cloud: Cloud) -> None:
    expose(cloud, "siem", "cmdb")
    assert cloud.condition("Ready")["message"] == "2 topics are exposed"
    assert cloud.exposed() == ["cmdb", "siem"]
    told = cloud.secret("siem")
    assert told is not None
    assert (told["hosts"], told["username"], told["vhost"]) == (ADDRESS, "siem.g1", EXTERNAL)
    assert told["port_amqp"] == str(cloud.broker.description.ports.amqp)
    assert told["port_amqp-tls"] == str(cloud.broker.description.ports.amqps)
    manifest = cloud.get("Secret", EXTERNAL, "openstack-siem-notifications")
    assert manifest is not None
    assert manifest["type"] == "Opaque"
    assert manifest["metadata"]["labels"] == {"app.kubernetes.io/managed-by": "stackbus"}
    assert manifest["metadata"]["managedFields"][0]["manager"] == "stackbus"
    status = cloud.resource()["status"]
    assert status["exposedTopics"] == 2
    topics = {topic["name"]: topic for topic in status["topics"]}
    assert topics["siem"]["secret"] == "openstack-siem-notifications"
    assert topics["siem"]["queues"] == [
        f"siem.{word}" for word in ["audit", "critical", "debug", "error", "info", "sample", "warn"]
    ]
    written = expires(told["client_cert"]).strftime("%Y-%m-%dT%H:%M:%SZ")
    assert topics["siem"]["certificateExpires"] == written
    service = cloud.get("Service", OPENSTACK, "rabbitmq-external")
    assert service is not None
    assert [port["name"] for port in service["spec"]["ports"]] == ["amqp", "amqp-tls"]
    assert service["spec"]["type"] == "LoadBalancer"
    conf = cloud.get("ConfigMap", OPENSTACK, CONFIGURATION)
    assert conf is not None
    assert "auth_mechanisms.3 = EXTERNAL" in conf["data"]["90-stackbus.conf"]

    cloud.set_external(topics=["siem"], settings=None)
    cloud.wait(lambda: cloud.exposed() == ["siem"])
    cloud.wait(lambda: cloud.secret("cmdb") is None)
    assert cloud.secret("siem") == told
    cloud.wait_for("Ready", "True", "Exposed")
    assert cloud.queues() == sorted(
        [
            *(
                f"siem.{word}"
                for word in ["audit", "critical", "debug", "error", "info", "sample", "warn"]
            ),
            *("stackbus.dropped", "stackbus.intake", "stackbus.journal", "stackbus.quarantine"),
        ]
    )

    cloud.set_external(enabled=False)
    cloud.wait_for("Ready", "True", "NothingToExpose")
    assert cloud.exposed() == []
    assert cloud.names("Secret", EXTERNAL) == []

    cloud.delete(KIND, OPENSTACK, NAME)
    cloud.wait(lambda: cloud.get(KIND, OPENSTACK, NAME) is None)
    assert cloud.is_bare()
    reasons = [reason for reason, _ in cloud.events()]
    assert {"Exposed", "TopicExposed", "TopicRemoved", "NothingToExpose"} <= set(reasons)


def test_no_secret_is_told(cloud: Cloud) -> None:
    expose(cloud, "siem")
    cloud.annotate(rotate="siem")
    cloud.wait(lambda: (cloud.secret("siem") or {}).get("username") == "siem.g2")
    values = [cloud.broker.description.password]
    for where in (EXTERNAL, OWN, OPENSTACK):
        for name in cloud.names("Secret", where):
            found = cloud.get("Secret", where, name)
            assert found is not None
            for key, value in found["data"].items():
                text = base64.b64decode(value).decode()
                if key in ("password", "inner_url", "outer_url") or name == "stackbus-users":
                    values.append(text)
                elif key.endswith("key"):
                    values += [line for line in text.splitlines() if len(line) == 64]
    assert len(values) > 15
    log = (cloud.folder / "operator.log").read_text()
    told = json.dumps([cloud.events(), cloud.resource()])
    process = Path(f"/proc/{cloud.processes[0].pid}/cmdline").read_text()
    for value in values:
        assert value not in log
        assert value not in told
        assert value not in process


def test_a_resource_with_mistakes_changes_nothing_and_is_told(cloud: Cloud) -> None:
    """An API server with our CRD refuses it already; one with MOSK's own lets it through."""
    cloud.needs_emulator()
    expose(cloud, "siem")
    cloud.set_external(topics=["siem", "external-consumer-A"])
    condition = cloud.wait_for("Ready", "False", "InvalidSpec")
    assert "did you mean 'external-consumer-a'" in condition["message"]
    assert cloud.exposed() == ["siem"]
    assert any(
        reason == "InvalidSpec" and "external-consumer-A" in text for reason, text in cloud.events()
    )
    cloud.set_external(topics=["siem", "external-consumer-a"])
    cloud.wait_for("Ready", "True")
    assert cloud.exposed() == ["external-consumer-a", "siem"]


def test_what_somebody_does_to_a_secret_is_undone_at_once(cloud: Cloud) -> None:
    expose(cloud, "siem", "cmdb.eu")
    name = "openstack-siem-notifications"
    before = cloud.secret("siem")
    assert before is not None
    tampered: list[object] = [
        {"data": {"password": base64.b64encode(b"mine").decode()}},
        {"data": {"added": base64.b64encode(b"x").decode()}},
        {"metadata": {"labels": {"app.kubernetes.io/managed-by": None}}},
        {"data": {"client_key": None, "password": None}},
    ]

    def is_as_before() -> bool:
        found = cloud.get("Secret", EXTERNAL, name)
        return (
            found is not None
            and found["metadata"].get("labels") == {"app.kubernetes.io/managed-by": "stackbus"}
            and cloud.secret("siem") == before
        )

    for change in tampered:
        cloud.patch("Secret", EXTERNAL, name, change)
        assert not is_as_before()
        begin = time.monotonic()
        cloud.wait(is_as_before, 15)
        assert time.monotonic() - begin < 10
    kept = cloud.secret("cmdb.eu")
    cloud.delete("Secret", EXTERNAL, "openstack-cmdb.eu-notifications")
    cloud.wait(lambda: cloud.secret("cmdb.eu") is not None, 15)
    # The consumer that has read it goes on as if nothing had been.
    assert cloud.secret("cmdb.eu") == kept
    assert can_log_in(cloud.broker, before["username"], before["password"])
    cloud.wait(lambda: any(reason == "SecretWritten" for reason, _ in cloud.events()), 15)


def test_a_secret_that_was_there_before_its_topic_is_nobodys_credentials(cloud: Cloud) -> None:
    """It bears our label, so it is written over; what it said opens no door."""
    planted = secret(
        EXTERNAL, "openstack-siem-notifications", {"username": "siem.g1", "password": "known"}
    )
    planted["metadata"]["labels"] = {"app.kubernetes.io/managed-by": "stackbus"}
    cloud.create(planted)
    expose(cloud, "siem")
    told = cloud.secret("siem")
    assert told is not None
    assert told["password"] != "known"
    assert can_log_in(cloud.broker, told["username"], told["password"])
    assert not can_log_in(cloud.broker, "siem.g1", "known")


def test_the_broker_may_live_beside_the_consumers_secrets(cloud: Cloud) -> None:
    """Then the server's certificate is a Secret of ours there too, and no topic's."""
    found = cloud.get("Secret", OPENSTACK, BROKER_SECRET)
    assert found is not None
    there = {"name": BROKER_SECRET, "namespace": EXTERNAL}
    cloud.create({**{key: found[key] for key in ("apiVersion", "kind", "data")}, "metadata": there})
    cloud.create(resource("siem"))
    cloud.needs_emulator()  # the roles of deploy/ are for a broker in `openstack`
    cloud.start(
        "--broker-secret", f"{EXTERNAL}/{BROKER_SECRET}", "--advertise", "h", STACKBUS_RESYNC="1"
    )
    cloud.wait_for("Ready", "True", "Exposed")
    before = cloud.get("Secret", EXTERNAL, SERVER_TLS)
    calls = record_calls(cloud)
    cloud.wait(lambda: calls.count(("list", "v1/secrets")) > 8)  # four runs: two each
    assert cloud.get("Secret", EXTERNAL, SERVER_TLS) == before
    assert before is not None


def can_log_in(broker: Broker, user: str, password: str) -> bool:
    try:
        broker.connect(EXTERNAL, user, password).close()
    except pika.exceptions.AMQPError:
        return False
    return True


def test_somebody_elses_secret_is_left_alone(cloud: Cloud) -> None:
    theirs = secret(EXTERNAL, "openstack-cmdb-notifications", {"theirs": "yes"})
    cloud.create(theirs)
    cloud.create(resource("siem", "cmdb"))
    cloud.start()
    cloud.give_address(ADDRESS)
    condition = cloud.wait_for("Ready", "False", "SecretConflict")
    assert "openstack-cmdb-notifications" in condition["message"]
    assert cloud.exposed() == ["siem"]
    assert cloud.secret("cmdb") == {"theirs": "yes"}
    topics = {one["name"]: one for one in cloud.resource()["status"]["topics"]}
    assert "does not belong to stackbus" in topics["cmdb"]["problem"]
    assert "problem" not in topics["siem"]
    cloud.delete("Secret", EXTERNAL, "openstack-cmdb-notifications")
    cloud.wait_for("Ready", "True", "Exposed")
    assert cloud.exposed() == ["cmdb", "siem"]
    # A topic that is exposed keeps its queues, whatever becomes of its Secret.
    cloud.end()
    cloud.delete("Secret", EXTERNAL, "openstack-cmdb-notifications")
    cloud.create(theirs)
    cloud.start()
    cloud.wait_for("Ready", "False", "Conflict")
    assert cloud.exposed() == ["cmdb", "siem"]
    assert cloud.secret("cmdb") == {"theirs": "yes"}


def test_a_load_balancer_comes_late_and_moves(cloud: Cloud) -> None:
    cloud.create(resource("siem"))
    cloud.start()
    condition = cloud.wait_for("EndpointReady", "False", "Waiting")
    assert "an address of the load balancer" in condition["message"]
    cloud.wait_for("Ready", "False", "Waiting")
    assert cloud.secret("siem") is None
    # The journal listens from the first moment on.
    assert "stackbus.journal" in cloud.queues()
    cloud.give_address(ADDRESS)
    cloud.wait_for("Ready", "True", "Exposed")
    assert names_of_server(cloud)[0] == ADDRESS
    assert f"rabbitmq-external.{OPENSTACK}.svc" in names_of_server(cloud)
    before = cloud.secret("siem")
    cloud.give_address("198.51.100.1", "2001:db8::1")
    cloud.wait(lambda: (cloud.secret("siem") or {})["hosts"] == "198.51.100.1,2001:db8::1")
    assert {**(before or {}), "hosts": ""} == {**(cloud.secret("siem") or {}), "hosts": ""}
    cloud.wait(lambda: names_of_server(cloud)[:2] == ["198.51.100.1", "2001:db8::1"])
    moved = {"hosts": ["198.51.100.1", "2001:db8::1"]}
    cloud.wait(lambda: cloud.resource()["status"]["endpoint"] == moved)
    # Without an address for a while, consumers keep what they know.
    cloud.patch(
        "Service",
        OPENSTACK,
        "rabbitmq-external",
        {"status": {"loadBalancer": {"ingress": []}}},
        "status",
    )
    condition = cloud.wait_for("EndpointReady", "False", "Waiting")
    assert "the Secrets keep 198.51.100.1" in condition["message"]
    assert (cloud.secret("siem") or {})["hosts"] == "198.51.100.1,2001:db8::1"
    assert cloud.exposed() == ["siem"]


def names_of_server(cloud: Cloud) -> list[str]:
    found = cloud.get("Secret", OPENSTACK, SERVER_TLS)
    assert found is not None
    certificate = x509.load_pem_x509_certificate(base64.b64decode(found["data"]["tls.crt"]))
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    return [str(name.value) for name in names]


@pytest.mark.parametrize("kind", ["NodePort", "ClusterIP", "advertised"])
def test_other_ways_in(cloud: Cloud, kind: str) -> None:
    cloud.create(resource("siem"))
    addresses = [
        {"type": "InternalIP", "address": "10.0.0.1"},
        {"type": "ExternalIP", "address": "203.0.113.5"},
    ]
    cloud.create(
        {
            "apiVersion": "v1",
            "kind": "Node",
            "metadata": {"name": "n1"},
            "status": {"addresses": addresses},
        }
    )
    arguments = {
        "NodePort": ("--service-type", "NodePort"),
        "ClusterIP": ("--service-type", "ClusterIP"),
        "advertised": ("--advertise", "bus.example.org"),
    }[kind]
    cloud.start(*arguments)
    cloud.wait_for("Ready", "True", "Exposed")
    told = cloud.secret("siem")
    service = cloud.get("Service", OPENSTACK, "rabbitmq-external")
    assert told is not None
    assert service is not None
    host = {
        "NodePort": "203.0.113.5",
        "ClusterIP": f"rabbitmq-external.{OPENSTACK}.svc",
        "advertised": "bus.example.org",
    }[kind]
    field = "nodePort" if kind == "NodePort" else "port"
    ports = {port["name"]: str(port[field]) for port in service["spec"]["ports"]}
    assert told["hosts"] == host
    assert (told["port_amqp"], told["port_amqp-tls"]) == (ports["amqp"], ports["amqp-tls"])


def test_rotation_by_annotation(cloud: Cloud) -> None:
    expose(cloud, "siem", "cmdb.eu")
    before = cloud.secret("siem")
    assert before is not None
    cloud.annotate(rotate="siem")
    cloud.wait(lambda: (cloud.secret("siem") or {})["username"] == "siem.g2")
    cloud.wait_for("Rotated", "True", "Done")
    assert {"siem.g1", "siem.g2", "cmdb.eu.g1"} <= set(cloud.users())
    assert can_log_in(cloud.broker, "siem.g1", before["password"])
    topics = {one["name"]: one for one in cloud.resource()["status"]["topics"]}
    assert "lastRotation" in topics["siem"]
    assert "lastRotation" not in topics["cmdb.eu"]
    annotations = cloud.resource()["metadata"]["annotations"]
    assert "stackbus.io/rotate" not in annotations
    assert ROTATING not in annotations
    cloud.annotate(rotate="siem:0s, cmdb.eu:0s")
    cloud.wait(lambda: {"siem.g3", "cmdb.eu.g2"} <= set(cloud.users()))
    cloud.wait(lambda: not {"siem.g1", "siem.g2", "cmdb.eu.g1"} & set(cloud.users()))
    cloud.annotate(rotate="siam")
    condition = cloud.wait_for("Rotated", "False", "Refused")
    assert "did you mean 'siem'" in condition["message"]
    cloud.annotate(rotate=None)
    cloud.wait_for("Rotated", "True", "Withdrawn")
    assert cloud.wait_for("Ready", "True")
    cloud.annotate(rotate="*:0s")
    cloud.wait(lambda: {"siem.g4", "cmdb.eu.g3"} <= set(cloud.users()))
    cloud.wait_for("Rotated", "True", "Done")
    told = [text for reason, text in cloud.events() if reason == "Rotated"]
    assert "topic siem: new credentials; the old ones work 1 day, 0:00:00 longer" in told
    assert "topic siem: new credentials; the old ones have ended" in told


def test_certificates_are_renewed_in_time(cloud: Cloud) -> None:
    """With a lifetime of seconds, each resync renews what has less than a third of it left."""
    days = str(20 / 86400)
    expose(cloud, "siem", STACKBUS_CERTIFICATE_DAYS=days, STACKBUS_RESYNC="2")
    first = (cloud.secret("siem") or {})["client_cert"]
    cloud.wait(lambda: (cloud.secret("siem") or {})["client_cert"] != first, 60)
    assert (cloud.secret("siem") or {})["username"] == "siem.g1"


def test_a_restart_in_another_world_converges(cloud: Cloud) -> None:
    expose(cloud, "siem", "cmdb")
    cloud.end()
    cloud.set_external(topics=["siem", "billing"], settings=None)
    cloud.delete("Secret", EXTERNAL, "openstack-siem-notifications")
    cloud.broker.management.delete("users", "siem.g1")
    cloud.give_address("198.51.100.1")
    cloud.start()
    cloud.wait_for("Ready", "True", "Exposed")
    assert cloud.exposed() == ["billing", "siem"]
    told = cloud.secret("siem")
    assert told is not None
    assert told["hosts"] == "198.51.100.1"
    assert can_log_in(cloud.broker, told["username"], told["password"])
    cloud.end()
    cloud.delete(KIND, OPENSTACK, NAME)
    deleted = cloud.get(KIND, OPENSTACK, NAME)
    assert deleted is not None
    assert deleted["metadata"]["deletionTimestamp"]
    cloud.start()
    cloud.wait(lambda: cloud.get(KIND, OPENSTACK, NAME) is None)
    assert cloud.is_bare()


def test_what_somebody_changes_in_rabbitmq_is_mended(cloud: Cloud) -> None:
    expose(cloud, "siem", STACKBUS_RESYNC="2")
    management = cloud.broker.management
    management.delete("policies", EXTERNAL, "siem")
    management.delete("queues", EXTERNAL, "siem.info")
    cloud.wait(lambda: "siem.info" in cloud.queues() and "siem" in cloud.policies(), 20)
    cloud.wait(lambda: any(reason == "BrokerChanged" for reason, _ in cloud.events()), 10)


@pytest.fixture
def away(cloud: Cloud) -> Proxy:
    """Put a proxy before the management API, so that the broker can be away."""
    proxy = Proxy(cloud.broker.description.ports.management)
    cloud.broker_secret(management_url=f"http://127.0.0.1:{proxy.port}")
    return proxy


def test_the_broker_is_away_for_several_retries(cloud: Cloud, away: Proxy) -> None:
    with served_metrics(cloud, "siem") as metrics:
        away.cut()
        cloud.set_external(topics=["siem", "cmdb"], settings=None)
        condition = cloud.wait_for("BrokerReachable", "False", "BrokerUnreachable")
        assert "management API" in condition["message"]
        assert cloud.condition("Ready")["reason"] == "BrokerUnreachable"
        assert metrics()["stackbus_broker_reachable"] == 0
        retries = metrics()['stackbus_reconciles_total{result="later"}']
        assert retries > 0
        cloud.wait(lambda: metrics()['stackbus_reconciles_total{result="later"}'] > retries + 2)
        assert cloud.processes[0].poll() is None
        assert cloud.exposed() == ["siem"]
        away.down = False
        cloud.wait_for("Ready", "True", "Exposed", seconds=30)
        cloud.wait_for("BrokerReachable", "True")
        assert cloud.exposed() == ["cmdb", "siem"]
        assert metrics()["stackbus_broker_reachable"] == 1
        assert metrics()["stackbus_topics"] == 2
        assert (
            metrics()['stackbus_certificate_expires_timestamp_seconds{topic="cmdb"}'] > time.time()
        )
        reasons = {reason for reason, _ in cloud.events()}
        assert {"BrokerUnreachable", "Exposed"} <= reasons


@contextmanager
def served_metrics(cloud: Cloud, *topics: str):  # type: ignore[no-untyped-def] # noqa: ANN201 -- a function of no argument
    """Expose with the metrics served; give a function that reads them."""
    cloud.create(resource(*topics))
    port = free_port("127.0.0.1", set())
    cloud.start("--metrics", f"127.0.0.1:{port}")
    cloud.give_address(ADDRESS)
    cloud.wait_for("Ready", "True", "Exposed")

    def read() -> dict[str, float]:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics") as answer:
            lines = answer.read().decode().splitlines()
        pairs = (line.rpartition(" ") for line in lines if not line.startswith("#"))
        return {name: float(value) for name, _, value in pairs}

    yield read


def test_a_deletion_waits_for_the_broker_until_told_to_let_go(cloud: Cloud, away: Proxy) -> None:
    expose(cloud, "siem")
    away.cut()
    cloud.delete(KIND, OPENSTACK, NAME)
    cloud.wait(lambda: cloud.condition("Ready").get("reason") == "Deleting")
    assert "stackbus.io/let-go=true" in cloud.condition("Ready")["message"]
    assert cloud.secret("siem") is not None
    cloud.annotate(**{"let-go": "true"})
    cloud.wait(lambda: cloud.get(KIND, OPENSTACK, NAME) is None, 40)
    assert cloud.names("Secret", EXTERNAL) == []
    assert cloud.names("Secret", OWN) == []
    assert cloud.names("ConfigMap", OPENSTACK) == []


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"password": "wrong"}, "refused the administrator"),
        ({"password": ""}, "missing: password"),
        ({"amqp_url": "http://x"}, "amqp_url is not a URL of the form amqp://HOST"),
        ({"management_url": "rabbit:15672"}, "management_url is not a URL of the form http://HOST"),
        ({"ca_cert": "no PEM", "management_url": "https://127.0.0.1:1"}, "not a CA certificate"),
        (None, "does not exist: create it"),
    ],
)
def test_a_bad_broker_secret_is_told_and_its_mend_is_seen(
    cloud: Cloud, change: dict[str, str] | None, told: str
) -> None:
    if change is None:
        cloud.delete("Secret", OPENSTACK, BROKER_SECRET)
    else:
        cloud.broker_secret(**change)
    cloud.create(resource("siem"))
    cloud.start("--advertise", "bus.example.org")
    condition = cloud.wait_for("BrokerReachable", "False")
    assert told in condition["message"]
    assert "wrong" not in condition["message"]
    cloud.broker_secret(**({"ca_cert": ""} if change and "ca_cert" in change else {}))
    cloud.wait_for("Ready", "True", "Exposed", seconds=30)


def test_watches_are_cut_and_versions_forgotten(cloud: Cloud) -> None:
    emulator = cloud.emulator
    expose(cloud, "siem")
    for forget in (False, True):
        if forget:
            emulator.forget_versions()
        calls = record_calls(cloud)
        emulator.cut_watches()
        cloud.wait(partial(calls.__contains__, ("watch", "v1/secrets")))  # it watches again
        cloud.delete("Secret", EXTERNAL, "openstack-siem-notifications")
        cloud.wait(lambda: cloud.secret("siem") is not None, 30)
        other = "later" if forget else "cmdb"
        cloud.set_external(topics=["siem", other], settings=None)
        cloud.wait(partial(is_exposed, cloud, other), 30)


def record_calls(cloud: Cloud) -> list[tuple[str, str]]:
    """Return the list of the calls that the emulator receives from now on: verb and resource."""
    calls: list[tuple[str, str]] = []
    cloud.emulator.before = lambda call: calls.append((call.verb, call.resource))
    return calls


def wait_for_next_second() -> None:
    """Kubernetes dates objects by whole seconds, and the oldest resource is served."""
    now = int(time.time())
    wait_until(lambda: int(time.time()) > now)


def exposure_events(cloud: Cloud) -> list[str]:
    return [text for reason, text in cloud.events() if reason == "TopicExposed"]


def peers(cloud: Cloud) -> Mapping[str, object]:
    """Return the replicas that have announced themselves in the peering."""
    peering = cloud.get("ClusterKopfPeering", "", "stackbus")
    return (peering or {}).get("status") or {}


def is_exposed(cloud: Cloud, topic: str) -> bool:
    return topic in cloud.exposed()


@pytest.mark.parametrize("code", [409, 429, 500])
def test_the_api_server_is_in_trouble(cloud: Cloud, code: int) -> None:
    """Each write is refused twice before it is let through; then everything for a while."""
    refused: dict[Call, int] = {}
    reason = {409: "Conflict", 429: "TooManyRequests", 500: "InternalError"}[code]

    def twice(call: Call) -> None:
        if call.is_write and call.resource != "v1/events":
            refused[call] = refused.get(call, 0) + 1
            if refused[call] <= 2:
                raise Refused(code, reason)

    cloud.create(resource("siem"))
    cloud.emulator.before = twice
    cloud.start("--advertise", "bus.example.org")
    cloud.wait_for_quietly("Ready", "True")
    assert cloud.exposed() == ["siem"]
    assert len(refused) > 8

    refused_at_last: list[Call] = []

    def everything(call: Call) -> None:
        if call.verb != "watch":
            refused_at_last.append(call)
            raise Refused(code, reason)

    cloud.emulator.before = lambda _: None
    cloud.set_external(topics=["siem", "cmdb"], settings=None)
    cloud.emulator.before = everything
    cloud.wait(lambda: len(refused_at_last) > 9)  # more than two whole tries of a request
    assert cloud.processes[0].poll() is None
    cloud.emulator.before = lambda _: None
    cloud.wait_for("Ready", "True", "Exposed")
    assert cloud.exposed() == ["cmdb", "siem"]


def test_of_two_resources_the_oldest_is_served(cloud: Cloud) -> None:
    expose(cloud, "siem")
    wait_for_next_second()
    cloud.create(resource("cmdb", name="second"))
    condition = cloud.wait_for("Ready", "False", "Conflict", name="second")
    assert f"{OPENSTACK}/{NAME}" in condition["message"]
    assert cloud.exposed() == ["siem"]
    cloud.delete(KIND, OPENSTACK, NAME)
    cloud.wait_for("Ready", "False", "Waiting", name="second")  # for its own Service's address
    cloud.give_address(ADDRESS)
    cloud.wait_for("Ready", "True", name="second")
    assert cloud.exposed() == ["cmdb"]
    cloud.delete(KIND, OPENSTACK, "second")
    cloud.wait(lambda: cloud.get(KIND, OPENSTACK, "second") is None)
    assert cloud.is_bare()


def test_one_namespace_alone_is_served_if_asked(cloud: Cloud) -> None:
    peering = {"apiVersion": "kopf.dev/v1", "kind": "ClusterKopfPeering"}
    cloud.create({**peering, "metadata": {"name": "stackbus"}})
    elsewhere = resource("theirs")
    elsewhere["metadata"]["namespace"] = EXTERNAL
    cloud.create(elsewhere)
    wait_for_next_second()
    cloud.create(resource("siem"))
    cloud.start("-n", OPENSTACK, "--peering", "stackbus", "--advertise", "bus.example.org")
    cloud.wait_for("Ready", "True", "Exposed")
    assert cloud.exposed() == ["siem"]
    found = cloud.get(KIND, EXTERNAL, NAME)
    assert found is not None
    assert "status" not in found
    assert "finalizers" not in found["metadata"]


def test_a_peering_that_is_not_there_is_told_at_once(cloud: Cloud) -> None:
    process = cloud.start("--peering", "stackbuss")
    assert process.wait(30) == 2
    assert "--peering: the cluster has no ClusterKopfPeering named 'stackbuss'" in cloud.said()


def test_of_two_replicas_one_works_and_the_other_takes_over(cloud: Cloud) -> None:
    cloud.create(
        {
            "apiVersion": "kopf.dev/v1",
            "kind": "ClusterKopfPeering",
            "metadata": {"name": "stackbus"},
        }
    )
    cloud.create(resource("siem"))
    first = cloud.start("--peering", "stackbus", "--advertise", "bus.example.org")
    cloud.wait_for("Ready", "True", "Exposed")
    second = cloud.start("--peering", "stackbus", "--advertise", "bus.example.org")
    cloud.wait(lambda: len(peers(cloud)) == 2)
    # The active one writes the status; both are alive.
    assert first.poll() is None
    assert second.poll() is None
    cloud.set_external(topics=["siem", "cmdb"], settings=None)
    cloud.wait_for("Ready", "True", "Exposed")
    cloud.wait(lambda: len(exposure_events(cloud)) == 2)
    assert len(set(exposure_events(cloud))) == 2
    for process in (first, second):
        process.send_signal(signal.SIGKILL)
        process.wait(10)
        if process is first:
            cloud.set_external(topics=["siem", "cmdb", "billing"], settings=None)
            cloud.wait(lambda: cloud.exposed() == ["billing", "cmdb", "siem"], 90)


def test_a_notification_travels_by_the_secrets_alone(cloud: Cloud) -> None:
    """Nova's exchange, the relay with the operator's Secret, a consumer with its Secret."""
    expose(cloud, "siem", STACKBUS_RESYNC="2")
    assert cloud.wait_for("RelayActive", "False", "Absent")
    files = {key: cloud.folder / key for key in ("inner_url", "outer_url", "ca.crt")}

    def mount() -> bytes:
        """Do what the kubelet does with the Secret."""
        found = cloud.get("Secret", OWN, "stackbus-relay")
        assert found is not None
        for key, path in files.items():
            path.write_bytes(base64.b64decode(found["data"][key]))
        return files["inner_url"].read_bytes()

    before = mount()
    relay = subprocess.Popen(
        [sys.executable, "-m", "stackbus", "relay"],
        env={
            "STACKBUS_INNER_URL_FILE": str(files["inner_url"]),
            "STACKBUS_OUTER_URL_FILE": str(files["outer_url"]),
            "STACKBUS_AMQP_CA": str(files["ca.crt"]),
            "PATH": "/usr/bin:/bin",
        },
        stderr=subprocess.DEVNULL,
    )
    try:
        one = next(one for one in golden() if one.service == "nova")
        publish(cloud.broker, [one])
        cloud.wait_for("RelayActive", "True", "Active")
        assert cloud.resource()["status"]["relay"]["state"] == "active"
        told = cloud.secret("siem")
        assert told is not None
        connection = cloud.broker.connect(told["vhost"], told["username"], told["password"])
        channel = connection.channel()
        queue = f"siem.{one.routing_key.rpartition('.')[2]}"
        got: list[bytes] = []

        def has_come() -> bool:
            _, _, body = channel.basic_get(queue, auto_ack=True)
            got.extend([body] if body else [])
            return bool(got)

        cloud.wait(has_come, 20)
        connection.close()
        # A new password reaches the relay through its file, without a restart.
        cloud.delete("Secret", OWN, "stackbus-users")
        cloud.wait(lambda: mount() != before, 20)
        cloud.wait(lambda: can_log_in_by(files["outer_url"].read_text()), 20)
        cloud.broker.management.close_connections("stackbus.relay")
        cloud.wait_for("RelayActive", "True", "Active")
        publish(cloud.broker, [one])
        cloud.wait(lambda: backlog(cloud.broker, "siem") == 1, 40)
    finally:
        relay.terminate()
        relay.wait(20)


def can_log_in_by(url: str) -> bool:
    try:
        pika.BlockingConnection(pika.URLParameters(url)).close()
    except pika.exceptions.AMQPError:
        return False
    return True


def test_a_consumer_comes_in_over_tls_with_its_certificate(cloud: Cloud, tmp_path: Path) -> None:
    """The broker has the Secret that it would mount, the consumer the manifest of its own."""
    with node_at(tmp_path / "tls") as broker:
        there = replace(cloud, broker=broker)
        there.broker_secret()
        there.create(resource("siem"))
        there.start("--advertise", "127.0.0.1")
        there.wait_for("Ready", "True", "Exposed")
        mounted = there.get("Secret", OPENSTACK, SERVER_TLS)
        manifest = there.get("Secret", EXTERNAL, "openstack-siem-notifications")
        assert mounted is not None
        files = {"ca.pem": "ca.crt", "server.pem": "tls.crt", "server.key": "tls.key"}
        for name, key in files.items():
            (broker.state / "tls" / name).write_bytes(base64.b64decode(mounted["data"][key]))
        (tmp_path / "siem.yaml").write_text(yaml.safe_dump(manifest))
        one = next(one for one in golden() if one.service == "nova")
        with broker.channel(EXTERNAL) as channel:
            channel.basic_publish("stackbus", "info.nova.-.instance.create.end", one.body)
        for way in ([], ["--auth", "password"]):
            done = stackbus(
                "tail", "--secret", str(tmp_path / "siem.yaml"), *way, "-n", "1", state=tmp_path
            )
            assert "nova" in done.stdout
            with broker.channel(EXTERNAL) as channel:
                channel.basic_publish("stackbus", "info.nova.-.instance.create.end", one.body)


def test_the_outer_bus_on_a_broker_of_its_own(cloud: Cloud, tmp_path: Path) -> None:
    cloud.needs_emulator()  # the roles of deploy/ name one Secret, those of an overlay two
    with node_at(tmp_path / "outer") as outer:
        description = outer.description
        cloud.create(
            secret(
                OPENSTACK,
                "stackbus-outer-broker",
                {
                    "management_url": description.management_url,
                    "amqp_url": f"amqp://127.0.0.1:{description.ports.amqp}",
                    "username": description.username,
                    "password": description.password,
                },
            )
        )
        cloud.create(resource("siem"))
        cloud.start(
            "--outer-broker-secret",
            f"{OPENSTACK}/stackbus-outer-broker",
            "--advertise",
            "bus.example.org",
        )
        cloud.wait_for("Ready", "True", "Exposed")
        assert cloud.queues() == ["stackbus.intake", "stackbus.quarantine"]
        assert "stackbus.service.nova" in cloud.users()
        other = Cloud(cloud.api, cloud.kubeconfig, outer, cloud.folder)
        assert other.users() == ["siem.g1", "stackbus.relay", "stackbus.tail"]
        assert "siem.info" in other.queues()
        told = cloud.secret("siem")
        assert told is not None
        assert told["port_amqp"] == str(description.ports.amqp)
        assert can_log_in(outer, told["username"], told["password"])
        cloud.delete(KIND, OPENSTACK, NAME)
        cloud.wait(lambda: cloud.get(KIND, OPENSTACK, NAME) is None)
        assert other.users() == []
        assert cloud.users() == []
        assert other.queues() == []
        assert cloud.queues() == []
