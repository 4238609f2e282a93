"""Topology and changes, without a broker: the desired items, and what no change touches."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.test_deployment import names

from stackbus.bus.names import PRIORITIES
from stackbus.errors import BrokerError, Conflict
from stackbus.expose.changes import Actual, Ledger, changes
from stackbus.expose.credentials import Endpoint, Generations, Retiring, prepare_credentials
from stackbus.expose.deployment import Deployment, Queue, Topic
from stackbus.expose.kinds.kind import Items
from stackbus.expose.secrets import FolderStore
from stackbus.expose.topology import BusState, topology
from stackbus.settings import Settings

NOW = datetime(2026, 11, 22, tzinfo=UTC)
BUS = BusState("openstack", "openstack-external", owns_inner=True, control_exchanges=frozenset())
EMPTY = Actual({}, Ledger())


def desired(*topics: Topic, bus: BusState = BUS) -> Items:
    deployment = Deployment("d", "openstack", None, topics)
    credentials = prepare_credentials(
        FolderStore(Path("/nonexistent")),
        deployment,
        {},
        Endpoint(("h",), 1, 2, "v"),
        NOW,
        certificate_days=30,
        renew_days=10,
    )
    return topology(deployment, credentials, {}, bus, Settings(state=Path("/nonexistent")))


def permission(items: Items, topic: str) -> dict[str, str]:
    return {
        key: str(value)
        for key, value in items["permission", f"{topic}.g1", "openstack-external"].items()
    }


similar_names = st.lists(
    st.sampled_from(
        [
            "a",
            "a.b",
            "a.b.c",
            "a-b",
            "a.info-x",
            "ab",
            "b",
            "b.a",
            "a.b-c",
            "aa",
            "a.bb",
            "info",
            "a.x.info",
        ]
    )
    | names,
    min_size=2,
    max_size=6,
    unique=True,
)


@given(similar_names)
def test_no_two_legal_names_ever_share_a_permission(listed: list[str]) -> None:
    listed = [
        name
        for name in listed
        if not (name.rpartition(".")[0] in listed and name.rpartition(".")[2] in PRIORITIES)
    ]
    items = desired(*(Topic(name) for name in listed))
    items_of = {name: {name, *(f"{name}.{word}" for word in PRIORITIES)} for name in listed}
    foreign = {
        "stackbus",
        "stackbus.journal",
        "stackbus.dropped",
        "amq.default",
        "amq.topic",
        "",
        "nova",
    }
    for name in listed:
        allowed = permission(items, name)
        for item in foreign.union(*items_of.values()):
            for verb, pattern in allowed.items():
                is_allowed = re.search(pattern, item) is not None
                is_own = item in items_of[name] and not (verb == "write" and item == name)
                assert is_allowed == is_own, (name, verb, item)


def test_a_read_only_consumer_may_read_its_queues_and_nothing_else() -> None:
    allowed = permission(desired(Topic("a", read_only=True)), "a")
    assert allowed["configure"] == allowed["write"] == "^$"
    assert re.search(allowed["read"], "a.info")
    assert not re.search(allowed["read"], "a")


def test_the_plan_for_an_empty_broker_is_everything() -> None:
    items = desired(Topic("a"))
    steps = changes(items, EMPTY)
    assert {step.key for step in steps} == set(items)
    assert all(step.sign == "+" for step in steps)


def test_an_item_outside_the_ledger_is_never_removed() -> None:
    items = desired()
    foreign: Items = {
        ("user", "alice"): {"tags": ["stackbus"], "limits": {}, "password_hash": "x"},
        ("exchange", "openstack-external", "a"): {},
        ("queue", "openstack", "stackbus.other"): {},
        ("policy", "openstack", "a"): {},
        ("binding", "openstack", "nova", "queue", "mine", "#", ""): {},
        ("permission", "alice", "openstack"): {},
        ("vhost", "/"): {},
    }
    steps = changes(items, Actual(foreign, Ledger()))
    assert not {step.key for step in steps} & set(foreign)


@pytest.mark.parametrize(
    "key",
    [
        ("user", "a.g1"),
        ("exchange", "openstack-external", "a"),
        ("queue", "openstack-external", "a.info"),
        ("policy", "openstack-external", "a"),
        ("queue", "openstack", "stackbus.intake"),
    ],
)
def test_a_foreign_item_with_the_name_of_a_desired_one_is_a_conflict(key: tuple[str, ...]) -> None:
    with pytest.raises(Conflict, match=re.escape(key[-1])):
        changes(desired(Topic("a")), Actual({key: {}}, Ledger()))


def test_an_existing_control_exchange_is_never_changed() -> None:
    present: Items = {
        (kind, "openstack", "nova"): {"type": "topic", "durable": False}
        for kind in ("exchange", "control exchange")
    }
    steps = changes(desired(), Actual(present, Ledger()))
    created = {step.key[2] for step in steps if step.kind == "control exchange"}
    assert "nova" not in created
    assert {"keystone", "cinder", "openstack"} <= created


def test_no_control_exchange_is_created_on_an_existing_bus() -> None:
    bus = BusState("openstack", "x", owns_inner=False, control_exchanges=frozenset({"nova"}))
    items = desired(bus=bus)
    assert not [key for key in items if key[0] == "control exchange"]
    bound = {key[2] for key in items if key[0] == "binding" and key[4] == "stackbus.intake"}
    assert bound == {"nova"}


def test_only_notification_keys_are_bound_to_the_intake() -> None:
    keys = {key[5] for key in desired() if key[0] == "binding" and key[4] == "stackbus.intake"}
    assert keys == {
        "notifications.*",
        "versioned_notifications.*",
        "ironic_versioned_notifications.*",
    }


def test_queues_carry_their_type_and_policies_the_rest() -> None:
    items = desired(Topic("a", queue=Queue("classic", 60, 1000)), Topic("b"))
    assert items["queue", "openstack-external", "a.info"]["arguments"] == {}
    assert items["queue", "openstack-external", "b.info"]["arguments"] == {"x-queue-type": "quorum"}
    definition = items["policy", "openstack-external", "a"]["definition"]
    assert isinstance(definition, dict)
    assert (definition["message-ttl"], definition["max-length-bytes"]) == (60_000, 1000)
    assert definition["dead-letter-exchange"] == "stackbus.dropped"


def test_a_rotation_keeps_the_last_generation_for_its_grace_time() -> None:
    rotated = Generations().rotate(NOW, timedelta(hours=1), "hash")
    assert rotated == Generations(2, (Retiring(1, NOW + timedelta(hours=1), "hash"),), NOW)
    again = rotated.rotate(NOW + timedelta(minutes=1), timedelta(hours=1), "hash2")
    assert [old.generation for old in again.retiring] == [1, 2]
    assert (
        again.without_expired(NOW + timedelta(minutes=60, seconds=30)).retiring
        == again.retiring[1:]
    )
    assert again.rotate(NOW, timedelta(), "hash3") == Generations(4, (), NOW)
    ledger = Ledger(frozenset({("user", "x"), ("queue", "v", "q")}), {"a": again})
    assert Ledger.from_json(ledger.to_json()) == ledger


@pytest.mark.parametrize(
    "value", [{}, {"version": 2}, {"version": 1, "owned": [], "topics": {}}, 5]
)
def test_a_ledger_of_another_form_is_refused(value: object) -> None:
    with pytest.raises(BrokerError, match="backup"):
        Ledger.from_json(value)


@pytest.mark.parametrize("value", [{}, {"vhosts": 5}, {"vhosts": [], "users": [{"name": 5}]}])
def test_definitions_of_another_form_are_refused(value: dict[str, object]) -> None:
    with pytest.raises(BrokerError, match="expected form"):
        Actual.from_definitions(value)
