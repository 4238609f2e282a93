"""Isolation on the real broker: what a consumer can do, and everything that it cannot."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable, Iterator
from datetime import UTC, datetime

import pika
import pika.exceptions
import pytest
from pika.adapters.blocking_connection import BlockingChannel
from pika.connection import Parameters
from pika.credentials import ExternalCredentials
from tests.conftest import (
    Broker,
    Exposed,
    backlog,
    deployment,
    expose,
    golden,
    publish,
    stackbus,
    wait_until,
)

from stackbus.bus.names import PRIORITIES
from stackbus.clients.amqp import consumer_parameters, open_connection
from stackbus.errors import StackbusError
from stackbus.expose import certificates
from stackbus.expose.deployment import Topic
from stackbus.expose.secrets import OWN_NAMESPACE, FolderStore

__all__ = ["expose"]

AWKWARD = ("a", "a.b", "a.b-c", "ab", "a-b", "a.info-x", "info", "b.a", "x" * 229)
OUTER = "openstack-external"


@pytest.fixture(scope="module", params=["own", "read-only"])
def awkward(
    request: pytest.FixtureRequest, bus: Broker, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Exposed, str]]:
    import yaml

    path = tmp_path_factory.mktemp("d") / "deployment.yaml"
    topics = (Topic(name, read_only=request.param == "read-only") for name in AWKWARD)
    path.write_text(yaml.safe_dump(deployment(*topics).to_document()))
    stackbus("apply", "-f", str(path), state=bus.state)
    yield Exposed(bus, AWKWARD), request.param
    path.write_text(yaml.safe_dump(deployment().to_document()))
    stackbus("apply", "-f", str(path), state=bus.state)


Operation = Callable[[BlockingChannel, str, str], object]


def _publish(channel: BlockingChannel, exchange: str, key: str) -> None:
    channel.confirm_delivery()
    channel.basic_publish(exchange, key, b"forged", mandatory=False)


# What one can try on (exchange, queue) of another topic, and on one's own.
ON_OTHERS: dict[str, Operation] = {
    "get": lambda ch, _, q: ch.basic_get(q, auto_ack=False),
    "consume": lambda ch, _, q: ch.basic_consume(q, lambda *_: None),
    "purge": lambda ch, _, q: ch.queue_purge(q),
    "declare queue": lambda ch, _, q: ch.queue_declare(q, durable=True, arguments={"x-queue-type": "quorum"}),
    "delete queue": lambda ch, _, q: ch.queue_delete(q),
    "declare exchange": lambda ch, x, _: ch.exchange_declare(x, "topic", durable=True),
    "delete exchange": lambda ch, x, _: ch.exchange_delete(x),
    "publish": lambda ch, x, _: _publish(ch, x, "info.nova.-.x"),
    "publish by default exchange": lambda ch, _, q: _publish(ch, "", q),
    "bind": lambda ch, x, q: ch.queue_bind(q, x, "#"),
    "unbind": lambda ch, x, q: ch.queue_unbind(q, x, "info.#"),
}  # fmt: skip
OWN = {
    "own": {"get", "consume", "purge", "declare queue", "declare exchange", "bind", "unbind"},
    "read-only": {"get", "consume", "purge"},
}


def attempt(exposed: Exposed, topic: str, operation: Operation, exchange: str, queue: str) -> bool:
    """Try it on a fresh connection as the topic's consumer; tell whether it was allowed."""
    secret = exposed.secret(topic)
    connection = exposed.broker.connect(OUTER, secret["username"], secret["password"])
    try:
        operation(connection.channel(), exchange, queue)
    except pika.exceptions.ChannelClosedByBroker as error:
        assert error.reply_code == 403, error
        return False
    else:
        return True
    finally:
        if connection.is_open:
            connection.close()


def test_a_consumer_can_use_its_own_topic_as_its_access_says(awkward: tuple[Exposed, str]) -> None:
    exposed, access = awkward
    for topic in AWKWARD:
        for name, operation in ON_OTHERS.items():
            if name.startswith("delete"):
                continue
            allowed = attempt(exposed, topic, operation, topic, f"{topic}.info")
            assert allowed is (name in OWN[access]), (topic, name)


def test_a_consumer_can_do_nothing_to_any_other_topic(awkward: tuple[Exposed, str]) -> None:
    exposed, _ = awkward
    for topic in AWKWARD:
        secret = exposed.secret(topic)
        connection = exposed.broker.connect(OUTER, secret["username"], secret["password"])
        for other in AWKWARD:
            if other == topic:
                continue
            for name, operation in ON_OTHERS.items():
                channel = connection.channel()
                with pytest.raises(pika.exceptions.ChannelClosedByBroker) as refused:
                    operation(channel, other, f"{other}.warn")
                assert refused.value.reply_code == 403, (topic, other, name)
        connection.close()


FORBIDDEN: dict[str, Operation] = {
    "read the journal": lambda ch, *_: (
        ch.basic_qos(prefetch_count=1),
        ch.basic_consume("stackbus.journal", lambda *_: None, arguments={"x-stream-offset": "first"}),
    ),
    "read what was dropped": lambda ch, *_: ch.basic_get("stackbus.dropped"),
    "bind its queue to the outer exchange": lambda ch, _, q: ch.queue_bind(q, "stackbus", "#"),
    "bind its exchange to the outer one": lambda ch, x, _: ch.exchange_bind(x, "stackbus", "#"),
    "publish to the outer exchange": lambda ch, *_: _publish(ch, "stackbus", "info.nova.-.x"),
    "publish to its own exchange": lambda ch, x, _: _publish(ch, x, "info.nova.-.x"),
    "publish to its queue by the default exchange": lambda ch, _, q: _publish(ch, "", q),
    "publish to amq.topic": lambda ch, *_: _publish(ch, "amq.topic", "x"),
    "make a queue of another name": lambda ch, *_: ch.queue_declare("mine"),
    "make a queue without a name": lambda ch, *_: ch.queue_declare("", exclusive=True),
    "make an exchange": lambda ch, *_: ch.exchange_declare("mine", "fanout"),
    "delete the outer exchange": lambda ch, *_: ch.exchange_delete("stackbus"),
    "publish around its exchange": lambda ch, x, _: ch.exchange_declare(
        f"{x}.debug", "topic", arguments={"alternate-exchange": "stackbus"}
    ),
}  # fmt: skip


@pytest.mark.parametrize("operation", FORBIDDEN.values(), ids=FORBIDDEN.keys())
def test_a_consumer_cannot(awkward: tuple[Exposed, str], operation: Operation) -> None:
    exposed, _ = awkward
    for topic in AWKWARD:
        assert not attempt(exposed, topic, operation, topic, f"{topic}.info"), topic


def test_a_consumer_cannot_reach_out_through_a_queue_it_made_anew(
    awkward: tuple[Exposed, str],
) -> None:
    exposed, access = awkward
    if access == "read-only":
        return  # it cannot make any
    secret = exposed.secret("a")
    connection = exposed.broker.connect(OUTER, secret["username"], secret["password"])
    connection.channel().queue_delete("a.debug")
    for target in ("stackbus", "b.a", "stackbus.dropped"):
        with pytest.raises(pika.exceptions.ChannelClosedByBroker) as refused_:
            connection.channel().queue_declare(
                "a.debug", durable=True, arguments={"x-dead-letter-exchange": target}
            )
        assert refused_.value.reply_code == 403
    channel = connection.channel()
    channel.queue_declare("a.debug", durable=True, arguments={"x-queue-type": "quorum"})
    channel.queue_bind("a.debug", "a", "debug.#")
    connection.close()


@pytest.mark.parametrize("vhost", ["openstack", "/"])
def test_a_consumer_cannot_enter_any_other_vhost(awkward: tuple[Exposed, str], vhost: str) -> None:
    exposed, _ = awkward
    for topic in AWKWARD:
        secret = exposed.secret(topic)
        with pytest.raises(pika.exceptions.AMQPConnectionError):
            exposed.broker.connect(vhost, secret["username"], secret["password"])


def test_a_consumer_cannot_use_the_management_api(awkward: tuple[Exposed, str]) -> None:
    from stackbus.clients.management import Management

    exposed, _ = awkward
    secret = exposed.secret("a")
    url = exposed.broker.description.management_url
    with (
        Management(url, secret["username"], secret["password"]) as management,
        pytest.raises(StackbusError),
    ):
        management.overview()


@pytest.mark.parametrize(
    ("by_password", "plain"),
    [(True, True), (True, False), (False, False)],
    ids=["plain", "TLS and password", "certificate"],
)
def test_every_way_in_of_the_secret_works(
    awkward: tuple[Exposed, str], by_password: bool, plain: bool
) -> None:
    exposed, _ = awkward
    for topic in AWKWARD:
        parameters = consumer_parameters(
            exposed.secret(topic), "test", by_password=by_password, plain=plain
        )
        with open_connection(parameters) as connection:
            for priority in PRIORITIES:
                connection.channel().queue_declare(f"{topic}.{priority}", passive=True)


def test_another_topics_certificate_opens_only_that_topic(awkward: tuple[Exposed, str]) -> None:
    exposed, _ = awkward
    mixed = {
        **exposed.secret("a"),
        **{k: exposed.secret("ab")[k] for k in ("client_cert", "client_key")},
    }
    with open_connection(
        consumer_parameters(mixed, "test", by_password=False, plain=False)
    ) as connection:
        with pytest.raises(pika.exceptions.ChannelClosedByBroker):
            connection.channel().basic_get("a.info")
        connection.channel().basic_get("ab.info")


def refused(parameters: list[Parameters]) -> str:
    with pytest.raises(StackbusError) as error, open_connection(parameters) as connection:
        connection.channel()
    return str(error.value)


def test_a_forged_certificate_is_refused(awkward: tuple[Exposed, str]) -> None:
    exposed, _ = awkward
    secret = exposed.secret("a")
    now = datetime.now(UTC)
    forged = certificates.issue_client(certificates.new_ca(now), secret["username"], now, 30)
    parameters = consumer_parameters(
        {**secret, "client_cert": forged.certificate, "client_key": forged.key},
        "test",
        by_password=False,
        plain=False,
    )
    assert re.search("TLS|closed|answer", refused(parameters))


def test_an_expired_certificate_is_refused(awkward: tuple[Exposed, str]) -> None:
    exposed, _ = awkward
    secret = exposed.secret("a")
    kept = FolderStore(exposed.broker.state / "secrets").read(OWN_NAMESPACE, "stackbus-ca")
    assert kept is not None
    ca = certificates.Pair(kept.data["tls.crt"], kept.data["tls.key"])
    old = certificates.issue_client(ca, secret["username"], datetime(2020, 1, 1, tzinfo=UTC), 30)
    parameters = consumer_parameters(
        {**secret, "client_cert": old.certificate, "client_key": old.key},
        "test",
        by_password=False,
        plain=False,
    )
    refused(parameters)


@pytest.mark.parametrize("plain", [True, False])
def test_external_without_a_certificate_is_refused(
    awkward: tuple[Exposed, str], plain: bool
) -> None:
    exposed, _ = awkward
    (parameters,) = consumer_parameters(exposed.secret("a"), "test", by_password=True, plain=plain)
    parameters.credentials = ExternalCredentials()
    refused([parameters])


@pytest.mark.parametrize(
    ("version", "accepted"), [("tls1_1", False), ("tls1_2", True), ("tls1_3", True)]
)
def test_tls_12_and_up(bus: Broker, version: str, accepted: bool) -> None:
    done = subprocess.run(
        ["openssl", "s_client", f"-{version}", "-cipher", "DEFAULT:@SECLEVEL=0", "-connect", f"127.0.0.1:{bus.description.ports.amqps}"],
        input=b"", capture_output=True, timeout=30, check=False,
    )  # fmt: skip
    assert (b"Cipher is (NONE)" not in done.stdout) is accepted, done.stdout[-300:]


def test_the_server_proves_who_it_is(awkward: tuple[Exposed, str]) -> None:
    exposed, _ = awkward
    secret = {**exposed.secret("a"), "ca_cert": certificates.new_ca(datetime.now(UTC)).certificate}
    assert "TLS" in refused(consumer_parameters(secret, "test", by_password=True, plain=False))


def test_no_guest_and_no_foreign_user(bus: Broker) -> None:
    for user, password in (("guest", "guest"), ("stackbus-admin", "wrong")):
        with pytest.raises(pika.exceptions.AMQPConnectionError):
            bus.connect("/", user, password)


def test_a_service_can_only_publish_to_its_own_exchange(bus: Broker) -> None:
    users = FolderStore(bus.state / "secrets").read(OWN_NAMESPACE, "stackbus-users")
    assert users is not None
    name = "stackbus.service.nova"
    connection = bus.connect("openstack", name, users.data[name])
    channel = connection.channel()
    channel.confirm_delivery()
    channel.basic_publish("nova", "somewhere", b"x")
    operations: tuple[Callable[[BlockingChannel], object], ...] = (
        lambda ch: ch.basic_publish("keystone", "notifications.info", b"x"),
        lambda ch: ch.basic_publish("", "stackbus.intake", b"x"),
        lambda ch: ch.basic_get("stackbus.intake"),
        lambda ch: ch.basic_get("notifications.info"),
        lambda ch: ch.queue_declare("mine"),
        lambda ch: ch.exchange_delete("keystone"),
    )
    for operation in operations:
        refused_channel = connection.channel()
        refused_channel.confirm_delivery()
        with pytest.raises(pika.exceptions.ChannelClosedByBroker):
            operation(refused_channel)
    connection.close()
    with pytest.raises(pika.exceptions.AMQPConnectionError):
        bus.connect(OUTER, name, users.data[name])


def test_state_files_are_the_administrators_alone(bus: Broker) -> None:
    secret_files = [
        path
        for path in bus.state.rglob("*")
        if path.is_file()
        and (path.suffix in {".yaml", ".json", ".key", ".conf"} or path.name == ".erlang.cookie")
        and "data" not in path.parts
    ]
    assert len(secret_files) > 5
    for path in secret_files:
        assert path.stat().st_mode & 0o077 == 0, path


def test_no_secret_is_in_a_process_list_or_a_log(bus: Broker) -> None:
    users = FolderStore(bus.state / "secrets").read(OWN_NAMESPACE, "stackbus-users")
    assert users is not None
    words = [*users.data.values(), bus.description.password]
    lists = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True).stdout
    logs = [
        path.read_text("utf-8", "replace") for path in bus.state.rglob("*.log") if path.is_file()
    ]
    assert logs
    assert not [word for word in words for text in (lists, *logs) if word in text]


def test_two_topics_get_the_same_notifications(bus: Broker, expose: Callable[..., Exposed]) -> None:
    exposed = expose(deployment("one", "two"))
    sent = golden()
    publish(bus, sent)
    told = {}
    for topic in exposed.topics:
        wait_until(lambda topic=topic: backlog(bus, topic) >= len(sent))  # type: ignore[misc]
        told[topic] = sorted(
            (properties.message_id, body)
            for priority in PRIORITIES
            for _, properties, body in bus.drain(OUTER, f"{topic}.{priority}")
        )
    assert told["one"] == told["two"]
    assert len(told["one"]) == len(sent)
