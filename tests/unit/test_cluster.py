"""The pure parts of the operator: where consumers connect, what a rotation means, what is told."""

from __future__ import annotations

import base64
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stackbus.errors import InputError
from stackbus.expose.cluster import rotation
from stackbus.expose.cluster.conditions import BROKER, READY, Report, TopicReport
from stackbus.expose.cluster.endpoint import Access, find_endpoint, read_access
from stackbus.expose.cluster.rotation import Target
from stackbus.expose.credentials import Generations
from stackbus.expose.status import RelayStatus

NOW = datetime(2026, 11, 22, tzinfo=UTC)
GOOD = {
    "management_url": "https://rabbit.openstack.svc:15671",
    "amqp_url": "amqps://rabbit.openstack.svc:5671",
    "username": "admin",
    "password": "s3cret",
}


def secret(data: dict[str, str]) -> dict[str, Any]:
    return {"data": {key: base64.b64encode(value.encode()).decode() for key, value in data.items()}}


def test_the_brokers_secret_is_read() -> None:
    found = read_access(secret(GOOD), "openstack/broker")
    assert found == Access("openstack", *GOOD.values())
    assert found.names == ("rabbit.openstack.svc",)
    assert found.url("stackbus.relay", "p/w", "openstack") == (
        "amqps://stackbus.relay:p%2Fw@rabbit.openstack.svc:5671/openstack"
    )
    assert "s3cret" not in repr(found)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"password": ""}, "missing: password"),
        ({"username": " \n", "management_url": ""}, "missing: management_url, username"),
        ({"amqp_url": "http://rabbit"}, "amqp_url"),
        ({"amqp_url": "amqp://user:s3cret@rabbit"}, "without user and path"),
        ({"amqp_url": "amqp://rabbit/vhost"}, "without user and path"),
        ({"amqp_url": "amqp://rabbit:99999"}, "amqp_url"),
        ({"amqp_url": "amqp://"}, "amqp_url"),
        ({"management_url": "rabbit:15672"}, "management_url"),
        ({"management_url": "http://[::1"}, "management_url"),
    ],
)
def test_a_bad_brokers_secret_is_told_without_its_values(change: dict[str, str], told: str) -> None:
    with pytest.raises(InputError, match=told) as refused:
        read_access(secret({**GOOD, **change}), "openstack/broker")
    assert "s3cret" not in str(refused.value)
    assert "openstack/broker" in str(refused.value)


def test_a_brokers_secret_that_is_absent_or_no_text_is_told() -> None:
    with pytest.raises(InputError, match="management_url, amqp_url, username, password"):
        read_access(None, "a/b")
    with pytest.raises(InputError, match="username is not the base64 of a text"):
        read_access({"data": {"username": "!"}}, "a/b")
    with pytest.raises(InputError, match="missing: "):
        read_access({}, "a/b")


def service(kind: str, ingress: list[dict[str, str]] | None = None) -> dict[str, Any]:
    ports: list[dict[str, Any]] = [
        {"name": "amqp", "port": 5672},
        {"name": "amqp-tls", "port": 5671},
    ]
    for number, port in enumerate(ports):
        if kind == "NodePort":
            port["nodePort"] = 30000 + number
    return {
        "metadata": {"name": "rabbitmq-external", "namespace": "openstack"},
        "spec": {"type": kind, "ports": ports},
        "status": {"loadBalancer": {"ingress": ingress} if ingress is not None else {}},
    }


NODES = [
    {"status": {"addresses": [{"type": "InternalIP", "address": "10.0.0.2"}]}},
    {"status": {"addresses": [{"type": "InternalIP", "address": "10.0.0.1"}]}},
    {"status": {}},
]


@pytest.mark.parametrize(
    ("given_service", "nodes", "advertise", "hosts", "port"),
    [
        (service("LoadBalancer", [{"ip": "192.0.2.1"}]), [], (), ("192.0.2.1",), 5672),
        (
            service("LoadBalancer", [{"hostname": "lb.example"}, {"ip": "192.0.2.1"}]),
            [],
            (),
            ("lb.example", "192.0.2.1"),
            5672,
        ),
        (service("LoadBalancer"), [], ("bus.example",), ("bus.example",), 5672),
        (service("LoadBalancer"), [], (), (), 5672),
        (service("LoadBalancer", []), [], (), (), 5672),
        (service("NodePort"), NODES, (), ("10.0.0.1", "10.0.0.2"), 30000),
        (service("NodePort"), [], (), (), 30000),
        (service("ClusterIP"), [], (), ("rabbitmq-external.openstack.svc",), 5672),
    ],
)
def test_where_consumers_connect(
    given_service: dict[str, Any],
    nodes: list[dict[str, Any]],
    advertise: tuple[str, ...],
    hosts: tuple[str, ...],
    port: int,
) -> None:
    found, waiting = find_endpoint(given_service, nodes, advertise, ("rabbit",), "v")
    assert (found.hosts, found.port_amqp, found.vhost) == (hosts, port, "v")
    assert bool(waiting) == (not hosts)
    assert found.certificate_names[-2:] == (
        "rabbit",
        "rabbitmq-external.openstack.svc",
    ) or hosts == ("rabbitmq-external.openstack.svc",)


EXPOSED = {"siem": Generations(3), "cmdb": Generations()}


@pytest.mark.parametrize(
    ("wish", "targets"),
    [
        ("siem", [("siem", 4, 24.0)]),
        (" siem:2h , cmdb:0s", [("siem", 4, 2.0), ("cmdb", 2, 0.0)]),
        ("*", [("siem", 4, 24.0), ("cmdb", 2, 24.0)]),
        ("*:1d,siem:0m", [("siem", 4, 0.0), ("cmdb", 2, 24.0)]),
        ("siem,siem", [("siem", 4, 24.0)]),
    ],
)
def test_a_wish_becomes_the_generations_to_reach(
    wish: str, targets: list[tuple[str, int, float]]
) -> None:
    found = rotation.parse_request(wish, EXPOSED)
    assert found == tuple(
        Target(topic, generation, timedelta(hours=hours)) for topic, generation, hours in targets
    )
    assert rotation.decode_targets(rotation.encode_targets(found)) == found


@pytest.mark.parametrize(
    ("wish", "told"),
    [
        ("siam", "did you mean 'siem'"),
        ("zzz", "exposed: siem, cmdb"),
        ("", "a topic"),
        ("siem:", "a topic"),
        ("siem:5", "a topic"),
        ("siem:-1s", "a topic"),
        ("siem cmdb", "a topic"),
        ("siem,,cmdb", "a topic"),
    ],
)
def test_a_wish_that_makes_no_sense_is_told(wish: str, told: str) -> None:
    with pytest.raises(InputError, match=told):
        rotation.parse_request(wish, EXPOSED)


@given(st.text() | st.just("[]") | st.just('{"a": [1]}') | st.just('{"a": [1, 1e400]}'))
def test_whatever_stands_in_the_annotation_is_read_or_nothing(text: str) -> None:
    assert isinstance(rotation.decode_targets(text), tuple)


def test_a_status_keeps_what_was_not_looked_at_and_when_it_turned() -> None:
    first = Report()
    first.set_condition(READY, "True", "Exposed", "1 topics")
    first.set_condition(BROKER, "True", "Answers", "it answers")
    first.topics = (
        TopicReport("a", "s", ("a.info",), NOW, NOW),
        TopicReport("b", "t", problem="x"),
    )
    first.hosts = ("h",)
    first.relay = RelayStatus("active", 1, 5, 0)
    before = first.to_status({}, 1, NOW)
    assert before["exposedTopics"] == 1
    assert before["topics"][0]["lastRotation"] == "2026-11-22T00:00:00Z"
    second = Report()
    second.set_condition(READY, "False", "InvalidSpec", "a mistake")
    later = NOW + timedelta(hours=1)
    after = second.to_status(before, 2, later)
    assert after["observedGeneration"] == 2
    assert after["topics"] == before["topics"]
    assert after["endpoint"] == {"hosts": ["h"]}
    assert after["relay"]["behind"] == 5
    ready, broker = after["conditions"]
    assert (ready["status"], ready["lastTransitionTime"]) == ("False", "2026-11-22T01:00:00Z")
    assert broker == before["conditions"][1]
    again = second.to_status(after, 2, later + timedelta(hours=1))
    assert again == after
