"""Apply on a real broker: it makes, heals, removes, leaves alone, and survives being stopped."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from http import HTTPStatus
from pathlib import Path
from typing import Any

import pika.exceptions
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.conftest import Broker, deployment, exposure, must_be_closed, wait_until, wipe

from stackbus.clients.http import HttpTransport, Response, TransportError
from stackbus.clients.management import Management
from stackbus.errors import BrokerError, BrokerUnreachable, Conflict, InputError, StackbusError
from stackbus.expose.apply import Exposure
from stackbus.expose.deployment import NOTHING, Deployment, Queue, Topic
from stackbus.expose.kinds import kind_of
from stackbus.expose.kinds.user import is_password
from stackbus.expose.secrets import NAMESPACE, OWN_NAMESPACE, Secret

OUTER = "openstack-external"


def apply(control: Exposure, wanted: Deployment) -> None:
    control.apply(control.plan(wanted))


def definitions_of(broker: Broker) -> dict[str, Any]:
    return dict(broker.management.definitions())


def state_of(broker: Broker) -> dict[str, Any]:
    """Give all that is on the broker, comparable: without salts, in order."""
    found = copy.deepcopy(definitions_of(broker))
    for user in found["users"]:
        user.pop("password_hash")
    return {
        name: sorted(map(str, found[name]))
        for name in (
            "vhosts",
            "users",
            "permissions",
            "policies",
            "exchanges",
            "queues",
            "bindings",
        )
    }


def secret_of(control: Exposure, topic: str) -> dict[str, str]:
    found = control.store.read(NAMESPACE, f"openstack-{topic}-notifications")
    assert found is not None
    return dict(found.data)


def test_apply_makes_it_so_and_then_there_is_nothing_to_do(clean: Broker, tmp_path: Path) -> None:
    control = exposure(clean, tmp_path)
    wanted = deployment("a", Topic("b.c", queue=Queue("classic"), read_only=True))
    plan = control.plan(wanted)
    assert plan
    control.apply(plan)
    assert control.plan(wanted).steps == ()
    secret = secret_of(control, "a")
    assert list(secret) == [
        "hosts", "port_amqp", "port_amqp-tls", "vhost", "username", "password",
        "ca_cert", "client_cert", "client_key",
    ]  # fmt: skip
    user = next(u for u in definitions_of(clean)["users"] if u["name"] == "a.g1")
    assert user["tags"] == ["stackbus"]
    assert is_password(secret["password"], user["password_hash"])
    apply(control, NOTHING)
    assert control.store.names(NAMESPACE) == []
    assert "b.c" not in str(state_of(clean))


def test_a_plan_changes_nothing(clean: Broker, tmp_path: Path) -> None:
    before = state_of(clean)
    exposure(clean, tmp_path).plan(deployment("a"))
    assert state_of(clean) == before
    assert not list(tmp_path.rglob("*.yaml"))


topics = st.builds(
    Topic,
    st.sampled_from(["a", "a.b", "a-b", "siem", "x" * 229, "b.info-2"]),
    services=st.sampled_from([None, ("nova",), ("cinder", "nova")]),
    events=st.sampled_from([None, ("instance.#", "volume.create.*")]),
    projects=st.sampled_from([None, ("p1", "p2")]),
    priorities=st.sampled_from([None, ("error", "info")]),
    read_only=st.booleans(),
    queue=st.builds(Queue, st.sampled_from(["quorum", "classic"]), st.sampled_from([None, 60])),
)
deployments = st.lists(topics, max_size=3, unique_by=lambda topic: topic.name).map(
    lambda listed: deployment(*listed)
)


@settings(
    max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(deployments, deployments)
def test_any_deployment_after_any_other_gives_exactly_the_second(
    clean: Broker, tmp_path_factory: pytest.TempPathFactory, first: Deployment, second: Deployment
) -> None:
    wipe(clean)
    control = exposure(clean, tmp_path_factory.mktemp("s"))
    apply(control, second)
    straight = state_of(clean)
    wipe(clean)
    control = exposure(clean, tmp_path_factory.mktemp("s"))
    apply(control, first)
    apply(control, second)
    assert state_of(clean) == straight
    assert control.plan(second).steps == ()
    assert control.store.names(NAMESPACE) == sorted(
        f"openstack-{topic.name}-notifications" for topic in second.topics
    )


def _put(path: str, body: dict[str, object]) -> Callable[[Management], object]:
    return lambda management: management._request("PUT", path, body)


def _delete(*key: str) -> Callable[[Management], object]:
    return lambda management: kind_of(key).delete(management, key)


def _bind(body: dict[str, object]) -> Callable[[Management], object]:
    return lambda management: management.import_definitions({"bindings": [body]})


DRIFT: dict[str, Callable[[Management], object]] = {
    "a queue is deleted": _delete("queue", OUTER, "a.info"),
    "the topic's exchange is deleted": _delete("exchange", OUTER, "a"),
    "the outer exchange is deleted": _delete("exchange", OUTER, "stackbus"),
    "the journal is deleted": _delete("queue", OUTER, "stackbus.journal"),
    "the intake is deleted": _delete("queue", "openstack", "stackbus.intake"),
    "a filter's binding is deleted": _delete("binding", OUTER, "stackbus", "exchange", "a", "#", ""),
    "a queue's binding is deleted": _delete("binding", OUTER, "a", "queue", "a.info", "info.#", ""),
    "the intake's binding is deleted": _delete(
        "binding", "openstack", "nova", "queue", "stackbus.intake", "notifications.*", ""
    ),
    "a control exchange of ours is deleted": _delete("exchange", "openstack", "nova"),
    "the policy is deleted": _delete("policy", OUTER, "a"),
    "the policy is changed": _put(
        f"policies/{OUTER}/a",
        {"pattern": "^x$", "definition": {"max-length": 1}, "priority": 9, "apply-to": "all"},
    ),
    "the user is deleted": _delete("user", "a.g1"),
    "the permission is deleted": _delete("permission", "a.g1", OUTER),
    "the permission is widened": _put(
        f"permissions/{OUTER}/a.g1", {"configure": ".*", "write": ".*", "read": ".*"}
    ),
    "a permission elsewhere is given": _put(
        "permissions/openstack/a.g1", {"configure": "", "write": "", "read": ".*"}
    ),
    "the password is changed": _put("users/a.g1", {"password": "other", "tags": "stackbus"}),
    "the password is removed": _put("users/a.g1", {"password_hash": "", "tags": "stackbus"}),
    "a tag is added": _put("users/a.g1", {"password": "x", "tags": "stackbus,administrator"}),
    "a limit is changed": _put("user-limits/a.g1/max-connections", {"value": 100_000}),
    "the journal is bound around the filter": _bind(
        {
            "vhost": OUTER, "source": "stackbus", "destination_type": "queue",
            "destination": "a.info", "routing_key": "#", "arguments": {},
        }
    ),
    "another topic feeds this one": _bind(
        {
            "vhost": OUTER, "source": "b", "destination_type": "exchange",
            "destination": "a", "routing_key": "#", "arguments": {"x": 1},
        }
    ),
}  # fmt: skip


@pytest.mark.parametrize("damage", DRIFT.values(), ids=DRIFT.keys())
def test_drift_is_healed(
    clean: Broker, tmp_path: Path, damage: Callable[[Management], object]
) -> None:
    control = exposure(clean, tmp_path)
    wanted = deployment("a", "b")
    apply(control, wanted)
    before = state_of(clean)
    damage(clean.management)
    plan = control.plan(wanted)
    assert plan.steps
    control.apply(plan)
    assert state_of(clean) == before
    assert control.plan(wanted).steps == ()


def test_a_queue_that_became_another_kind_is_made_anew(clean: Broker, tmp_path: Path) -> None:
    control = exposure(clean, tmp_path)
    apply(control, deployment("a"))
    before = state_of(clean)
    clean.management.delete("queues", OUTER, "a.info")
    clean.management.import_definitions(
        {
            "queues": [
                {
                    "vhost": OUTER,
                    "name": "a.info",
                    "durable": True,
                    "auto_delete": False,
                    "arguments": {"x-max-length": 1},
                }
            ]
        }
    )
    plan = control.plan(deployment("a"))
    assert [step.sign for step in plan.steps if step.kind == "queue"] == ["~"]
    assert "lost" in next(step.detail for step in plan.steps if step.kind == "queue")
    control.apply(plan)
    assert state_of(clean) == before


@pytest.mark.parametrize("edit", ["delete", "username", "password", "certificate", "garbage"])
def test_an_edited_secret_is_mended(clean: Broker, tmp_path: Path, edit: str) -> None:
    control = exposure(clean, tmp_path)
    apply(control, deployment("a"))
    secret = secret_of(control, "a")
    name = "openstack-a-notifications"
    path = tmp_path / NAMESPACE / f"{name}.yaml"
    if edit == "delete":
        control.store.remove(NAMESPACE, name)
    elif edit == "garbage":
        path.write_text("not: a secret")
    else:
        key = {"certificate": "client_cert"}.get(edit, edit)
        control.store.write(Secret(NAMESPACE, name, {**secret, key: "edited"}))
    apply(control, deployment("a"))
    assert secret_of(control, "a") == secret
    assert control.plan(deployment("a")).steps == ()
    clean.connect(OUTER, secret["username"], secret["password"]).close()


def test_a_topic_without_an_original_keeps_its_credentials(clean: Broker, tmp_path: Path) -> None:
    """As it is where an older stackbus exposed it, or where the originals were lost."""
    control = exposure(clean, tmp_path)
    apply(control, deployment("a"))
    secret = secret_of(control, "a")
    control.store.remove(OWN_NAMESPACE, "openstack-a-notifications")
    apply(control, deployment("a"))
    assert secret_of(control, "a") == secret
    assert control.store.names(OWN_NAMESPACE) == ["openstack-a-notifications"]
    control.store.remove(NAMESPACE, "openstack-a-notifications")
    control.store.remove(OWN_NAMESPACE, "openstack-a-notifications")
    apply(control, deployment("a"))
    mended = secret_of(control, "a")
    assert mended["password"] != secret["password"]
    clean.connect(OUTER, mended["username"], mended["password"]).close()


def test_what_is_not_ours_is_left_alone(clean: Broker, tmp_path: Path) -> None:
    foreign: dict[str, list[dict[str, object]]] = {
        "vhosts": [{"name": "openstack"}, {"name": OUTER}],
        "users": [{"name": "a.g9", "password_hash": "", "tags": "stackbus", "limits": {}}],
        "permissions": [{"user": "a.g9", "vhost": OUTER, "configure": ".*", "write": ".*", "read": ".*"}],
        "policies": [{"vhost": "openstack", "name": "ha", "pattern": ".*", "apply-to": "queues", "definition": {"max-length": 9}, "priority": 0}],
        "exchanges": [
            {"vhost": "openstack", "name": "nova", "type": "topic", "durable": False, "auto_delete": False, "arguments": {}},
            {"vhost": OUTER, "name": "a.other", "type": "topic", "durable": True, "auto_delete": False, "arguments": {}},
        ],
        "queues": [{"vhost": OUTER, "name": "a.mine", "durable": True, "auto_delete": False, "arguments": {}}],
        "bindings": [{"vhost": OUTER, "source": "a.other", "destination_type": "queue", "destination": "a.mine", "routing_key": "x", "arguments": {}}],
    }  # fmt: skip
    clean.management.import_definitions(foreign)
    before = state_of(clean)
    control = exposure(clean, tmp_path)
    apply(control, deployment("a"))
    after = state_of(clean)
    assert all(one in after[section] for section, listed in before.items() for one in listed)
    # The bus was there: no control exchange was made on it, and Nova's is as it was.
    exchanges = [one for one in definitions_of(clean)["exchanges"] if one["vhost"] == "openstack"]
    assert {one["name"] for one in exchanges} == {"nova", "stackbus.quarantine"}
    apply(control, NOTHING)
    apply(control, deployment("b"))
    after = state_of(clean)
    assert all(one in after[section] for section, listed in before.items() for one in listed)


def test_a_conflict_is_refused_before_anything_is_changed(clean: Broker, tmp_path: Path) -> None:
    control = exposure(clean, tmp_path)
    apply(control, deployment("a"))
    clean.management.import_definitions(
        {
            "exchanges": [
                {
                    "vhost": OUTER,
                    "name": "b",
                    "type": "fanout",
                    "durable": False,
                    "auto_delete": False,
                    "arguments": {},
                }
            ]
        }
    )
    before = state_of(clean)
    with pytest.raises(Conflict, match="exchange openstack-external / b"):
        apply(control, deployment("a", "b", "c"))
    assert state_of(clean) == before
    assert control.store.names(NAMESPACE) == ["openstack-a-notifications"]


class Stopped(BaseException):
    """The process is killed here."""


class StopAt(HttpTransport):
    """The real transport, which dies at the n-th write: before it is sent, or after."""

    def __init__(self, place: int, *, after: bool) -> None:
        super().__init__()
        self.place, self.after, self.writes = place, after, 0

    def send(
        self, method: str, url: str, headers: Mapping[str, str], body: bytes | None
    ) -> Response:
        if method == "GET":
            return super().send(method, url, headers, body)
        self.writes += 1
        if self.writes == self.place and not self.after:
            raise Stopped
        response = super().send(method, url, headers, body)
        if self.writes == self.place:
            raise Stopped
        return response


@pytest.mark.parametrize("after", [False, True])
def test_stopped_at_any_call_and_run_again_it_converges(
    clean: Broker, tmp_path: Path, after: bool
) -> None:
    """From two topics to one kept, one gone, one new, with a rotation and some drift."""
    description = clean.description
    old, new = deployment("keep", "gone"), deployment("keep", "new")
    place, writes = 0, 99
    while place < writes:
        place += 1
        wipe(clean)
        control = exposure(clean, tmp_path / f"{place}")
        apply(control, old)
        control.apply(control.plan_rotation(old, "keep", grace=timedelta(hours=1)))
        clean.management.delete("queues", OUTER, "keep.info")
        transport = StopAt(place, after=after)
        with Management(
            description.management_url,
            description.username,
            description.password,
            transport=transport,
        ) as dying:
            stopped = exposure(Broker(clean.state, description, dying), tmp_path / f"{place}")
            try:
                apply(stopped, new)
                stopped.apply(stopped.plan_rotation(new, "keep", grace=timedelta(hours=1)))
            except Stopped:
                pass
            else:
                writes = transport.writes
        apply(control, new)
        assert control.plan(new).steps == ()
        users = {u["name"] for u in definitions_of(clean)["users"]}
        consumers = {name for name in users if not name.startswith("stackbus")}
        known = {secret_of(control, topic)["username"] for topic in ("keep", "new")}
        retiring = {"keep.g1", "keep.g2"}
        assert known <= consumers <= known | retiring
        assert control.store.names(NAMESPACE) == [
            "openstack-keep-notifications",
            "openstack-new-notifications",
        ]
        for topic in ("keep", "new"):
            secret = secret_of(control, topic)
            clean.connect(OUTER, secret["username"], secret["password"]).close()
    assert place > 5


def test_a_rotation_keeps_the_old_credentials_for_the_grace_time(
    clean: Broker, tmp_path: Path
) -> None:
    clock = [datetime.now(UTC)]
    made = exposure(clean, tmp_path)
    control = Exposure(made.broker, made.store, made.endpoint, made.settings, lambda: clock[0])
    wanted = deployment("a", "b")
    apply(control, wanted)
    old, other = secret_of(control, "a"), secret_of(control, "b")
    control.apply(control.plan_rotation(wanted, "a", grace=timedelta(hours=24)))
    new = secret_of(control, "a")
    assert new["username"] == "a.g2"
    assert {new[key] == old[key] for key in ("password", "client_cert", "client_key")} == {False}
    assert secret_of(control, "b") == other
    assert control.plan(wanted).steps == ()
    kept = clean.connect(OUTER, old["username"], old["password"])
    clean.connect(OUTER, new["username"], new["password"]).close()
    clock[0] += timedelta(hours=23)
    assert control.plan(wanted).steps == ()
    clock[0] += timedelta(hours=2)
    assert control.next_expiry() is not None
    assert {step.key for step in control.plan(wanted).steps} >= {("user", "a.g1")}
    apply(control, wanted)
    assert control.next_expiry() is None
    must_be_closed(kept)
    with pytest.raises(pika.exceptions.AMQPConnectionError):
        clean.connect(OUTER, old["username"], old["password"])


def test_a_revocation_closes_the_old_connections_at_once(clean: Broker, tmp_path: Path) -> None:
    control = exposure(clean, tmp_path)
    wanted = deployment("a")
    apply(control, wanted)
    old = secret_of(control, "a")
    connection = clean.connect(OUTER, old["username"], old["password"])
    control.apply(control.plan_rotation(wanted, "a", grace=timedelta()))
    must_be_closed(connection)
    users = {u["name"] for u in definitions_of(clean)["users"]}
    assert "a.g1" not in users


def test_a_removed_topics_connections_are_closed(clean: Broker, tmp_path: Path) -> None:
    control = exposure(clean, tmp_path)
    apply(control, deployment("a"))
    secret = secret_of(control, "a")
    connection = clean.connect(OUTER, secret["username"], secret["password"])
    apply(control, NOTHING)
    must_be_closed(connection)


def test_a_rotation_of_no_topic_is_refused(clean: Broker, tmp_path: Path) -> None:
    control = exposure(clean, tmp_path)
    with pytest.raises(InputError, match="exposed: a"):
        control.plan_rotation(deployment("a"), "b", grace=timedelta(hours=1))


# Faults of the management API


def test_an_unreachable_broker_is_told_in_a_sentence() -> None:
    with Management("http://127.0.0.1:1", "u", "secret-word") as management:
        with pytest.raises(BrokerUnreachable, match="does not answer") as told:
            management.definitions()
    assert "secret-word" not in str(told.value)


def test_a_wrong_password_is_told(bare: Broker) -> None:
    with Management(bare.description.management_url, "stackbus-admin", "wrong-word") as management:
        with pytest.raises(BrokerError, match="name or password") as told:
            management.definitions()
    assert "wrong-word" not in str(told.value)


@pytest.mark.parametrize("url", ["ftp://h", "h:15672", "http://u:secret-word@h", "http://"])
def test_a_management_url_that_is_none_is_refused(url: str) -> None:
    with pytest.raises(InputError) as told:
        Management(url, "u", "p")
    assert "secret-word" not in str(told.value)


class Answer(HttpTransport):
    """The real transport, until the n-th request gets a broken answer instead."""

    def __init__(self, place: int, answer: Response | Exception) -> None:
        super().__init__()
        self.place, self.answer, self.requests = place, answer, 0

    def send(
        self, method: str, url: str, headers: Mapping[str, str], body: bytes | None
    ) -> Response:
        self.requests += 1
        if self.requests != self.place:
            return super().send(method, url, headers, body)
        if isinstance(self.answer, Exception):
            raise self.answer
        if self.answer.status == HTTPStatus.OK:
            super().send(method, url, headers, body)  # done, and then badly told
        return self.answer


@pytest.mark.parametrize("place", [1, 2, 3])
@pytest.mark.parametrize(
    "answer",
    [
        Response(500, body=b"boom"),
        Response(503, body=b'{"error": "service_unavailable", "reason": "alarm"}'),
        Response(200, body=b'{"users": [{"na'),
        Response(200, body=b"[]"),
        TransportError("Remote end closed connection without response"),
        TransportError("timed out"),
    ],
    ids=["500", "503", "half", "list", "cut", "timeout"],
)
def test_a_broken_answer_is_a_sentence_and_the_next_run_converges(
    clean: Broker, tmp_path: Path, place: int, answer: Response | Exception
) -> None:
    control = exposure(clean, tmp_path)
    apply(control, deployment("a"))
    description = clean.description
    with Management(
        description.management_url,
        description.username,
        description.password,
        transport=Answer(place, answer),
    ) as broken:
        failing = exposure(Broker(clean.state, description, broken), tmp_path)
        try:
            apply(failing, deployment("a", "b"))
        except StackbusError as error:
            assert description.password not in str(error)
            assert error.exit_code == 1
        else:
            # A write whose answer is nonsense was carried out all the same.
            assert place > 1
    # What stood before still stands ...
    secret = secret_of(control, "a")
    clean.connect(OUTER, secret["username"], secret["password"]).close()
    # ... and run again it converges.
    apply(control, deployment("a", "b"))
    assert control.plan(deployment("a", "b")).steps == ()


def test_a_connection_that_is_just_ending_is_no_error(clean: Broker, tmp_path: Path) -> None:
    """RabbitMQ answers 500 to the closing of a connection that closes itself at that moment."""
    control = exposure(clean, tmp_path)
    apply(control, deployment("a"))
    secret = secret_of(control, "a")
    open_one = clean.connect(OUTER, secret["username"], secret["password"])
    description = clean.description

    def seen() -> bool:
        found = clean.management._list("connections?columns=name,user")
        return any(one.get("user") == secret["username"] for one in found)

    wait_until(seen, 20)
    place = 2  # the first asks which are open
    with Management(
        description.management_url,
        description.username,
        description.password,
        transport=Answer(place, Response(500, "Internal Server Error")),
    ) as racing:
        racing.close_connections(secret["username"])
    with pytest.raises(pika.exceptions.AMQPError):
        open_one.process_data_events(5)
    wait_until(lambda: not seen(), 20)
