"""Normalising: every captured event type, the traps of each service, and arbitrary input."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.conftest import golden
from tests.events import LEFT_OUT, RECEIVED, build_events, expected_path, services

from stackbus.errors import Unreadable
from stackbus.events.actions import ACTIONS, NO_PHASE, PHASES, SYNONYMS
from stackbus.events.model import FIELDS, Event
from stackbus.events.normalise import normalise

GOLDEN = golden()


def normalise_one(
    event_type: str, payload: object, *, service: str = "", **members: object
) -> dict[str, object]:
    (event,) = normalise_all(event_type, payload, service=service, **members)
    return event


def normalise_all(
    event_type: str, payload: object, *, service: str = "", **members: object
) -> list[dict[str, object]]:
    body = {
        "message_id": "m",
        "publisher_id": "p.host-1",
        "event_type": event_type,
        "priority": "INFO",
        "payload": payload,
        "timestamp": "2024-06-14 12:28:29.706843",
        **members,
    }
    events = normalise(json.dumps(body).encode(), "bus", RECEIVED, service)
    return [msgspec.structs.asdict(event) for event in events]


@pytest.mark.parametrize("service", services())
def test_every_captured_notification_becomes_the_expected_events(service: str) -> None:
    expected = json.loads(expected_path(service).read_text())
    assert set(expected) == set(build_events(service))
    for name, events in build_events(service).items():
        assert events == expected[name], name


def test_every_captured_notification_has_a_service_a_resource_type_and_an_action() -> None:
    for captured in GOLDEN:
        events = normalise(captured.body, "bus", RECEIVED, captured.service)
        message = captured.message()
        assert events
        for index, event in enumerate(events):
            assert event.service == captured.service
            assert (event.id, event.index) == (message["message_id"], index)
            assert event.resource_type, event.type
            assert event.action, event.type
            assert event.phase in {NO_PHASE, *PHASES.values()}
            assert event.outcome in {"success", "failure", "unknown"}
            assert json.loads(bytes(event.payload)) == message["payload"]
            # Nothing is invented: the notification has these texts.
            for value in (event.resource_id, event.resource_name, event.project_id, event.user_id):
                assert json.dumps(value)[1:-1] in json.dumps(message).replace("\\\\", "\\")


def test_an_event_is_the_same_without_the_name_of_its_service() -> None:
    # MOSK's topics and the log channel do not name the service.
    for captured in GOLDEN:
        assert normalise(captured.body, "bus", RECEIVED) == normalise(
            captured.body, "bus", RECEIVED, captured.service
        ), captured.message()["event_type"]


def test_the_field_names_are_the_contract() -> None:
    assert FIELDS == (
        "id", "index", "time", "received", "service", "type", "action", "phase", "outcome",
        "priority", "publisher", "host", "resource_type", "resource_id", "resource_name",
        "project_id", "user_id", "user_name", "actor_project_id", "request_id",
        "global_request_id", "address", "attributes", "payload", "channels", "region",
    )  # fmt: skip
    assert set(FIELDS) >= LEFT_OUT


def test_a_bulk_create_becomes_an_event_for_each_resource() -> None:
    ports = [
        {"id": "p1", "project_id": "a", "name": "one", "status": "DOWN"},
        {"id": "p2", "project_id": "b", "name": "two", "status": "ACTIVE"},
    ]
    first, second = normalise_all("port.create.end", {"ports": ports})
    assert (first["index"], first["resource_id"], first["project_id"]) == (0, "p1", "a")
    assert (second["index"], second["resource_id"], second["project_id"]) == (1, "p2", "b")
    assert second["attributes"] == {"state": "ACTIVE"}
    assert first["id"] == second["id"]
    assert normalise_all("policy.create.end", {"policies": [{"id": "q"}]})[0]["resource_id"] == "q"


def test_an_empty_bulk_create_becomes_one_event() -> None:
    assert normalise_one("port.create.end", {"ports": []})["resource_type"] == "port"


def test_both_formats_of_nova_have_the_same_action_and_resource_type() -> None:
    names = {
        "compute.instance.create.end": "instance.create.end",
        "compute.instance.finish_resize.end": "instance.resize_finish.end",
        "compute.instance.resize.prep.start": "instance.resize_prep.start",
        "compute.instance.live_migration._post.end": "instance.live_migration_post.end",
        "compute.instance.live_migration.post.dest.end": "instance.live_migration_post_dest.end",
        "compute.instance.volume.attach": "instance.volume_attach.end",
        "compute.instance.rebuild.scheduled": "instance.rebuild_scheduled",
        "compute.instance.live.migration.abort.start": "instance.live_migration_abort.start",
        "aggregate.addhost.end": "aggregate.add_host.end",
        "servergroup.addmember": "server_group.add_member",
    }
    for legacy, versioned in names.items():
        legacy_event = normalise_one(legacy, {})
        versioned_event = normalise_one(versioned, {"nova_object.data": {}})
        assert (legacy_event["action"], legacy_event["resource_type"]) == (
            versioned_event["action"], versioned_event["resource_type"]
        )  # fmt: skip


def test_an_event_of_cinders_usage_audit_is_a_report() -> None:
    payload = {"volume_id": "v", "tenant_id": "p", "size": 1, "status": "deleted"}
    period = {"audit_period_beginning": "2026-11-22 19:00:00", "audit_period_ending": "2026-11-22"}
    for event_type in ("volume.create.end", "volume.delete.start", "snapshot.delete.end"):
        event = normalise_one(event_type, payload)
        report = normalise_one(event_type, {**payload, **period})
        assert event["action"] in ("create", "delete")
        assert (report["action"], report["phase"], report["outcome"]) == (
            "exists",
            "none",
            "unknown",
        )
        assert report["type"] == event_type
    # Nova's updates name the period too.
    assert normalise_one("compute.instance.update", period)["action"] == "update"


def test_an_event_of_a_designate_domain_names_its_twin() -> None:
    domain = normalise_one("dns.domain.create", {"id": "z"})
    zone = normalise_one("dns.zone.create", {"id": "z"})
    assert domain["attributes"] == {"twin": "dns.zone.create"}
    assert zone["attributes"] == {}
    assert {domain["action"], zone["action"]} == {"create"}
    assert {domain["resource_type"], zone["resource_type"]} == {"zone"}


@pytest.mark.parametrize(
    ("event_type", "priority", "payload", "outcome"),
    [
        ("instance.create.start", "INFO", {}, "unknown"),
        ("instance.create.end", "INFO", {}, "success"),
        ("instance.create.error", "ERROR", {}, "failure"),
        ("scheduler.create_volume", "ERROR", {}, "failure"),
        ("instance.exists", "INFO", {}, "unknown"),
        ("image.create", "INFO", {"status": "queued"}, "success"),
        ("backup.create.end", "INFO", {"status": "error"}, "failure"),
        ("backup.delete.end", "INFO", {"status": "error"}, "success"),
        ("identity.authenticate", "INFO", {"outcome": "failure"}, "failure"),
        ("identity.authenticate", "INFO", {"outcome": "success"}, "success"),
        ("identity.authenticate", "INFO", {"outcome": "pending"}, "unknown"),
        ("baremetal.node.provision_set.fail", "ERROR", {}, "failure"),
    ],
)
def test_the_outcome(event_type: str, priority: str, payload: object, outcome: str) -> None:
    assert normalise_one(event_type, payload, priority=priority)["outcome"] == outcome


def test_a_failed_login_has_the_user_and_the_address() -> None:
    event = normalise_one(
        "identity.authenticate",
        {
            "outcome": "failure",
            "initiator": {
                "id": "3f1a-a-hash",
                "user_id": "alice",
                "host": {"address": "192.0.2.7", "agent": "curl"},
                "request_id": "req-1",
            },
            "reason": {"reasonCode": "401", "reasonType": "wrong password"},
        },
    )
    assert (event["user_id"], event["address"], event["request_id"]) == (
        "alice", "192.0.2.7", "req-1"
    )  # fmt: skip
    assert event["action"] == "login"
    assert event["attributes"] == {"reason": "wrong password", "reason_code": "401"}
    hashed = {"outcome": "failure", "initiator": {"id": "3f1a-a-hash"}}
    assert normalise_one("identity.authenticate", hashed)["user_id"] == ""


def test_an_event_of_the_audit_filter() -> None:
    payload = {
        "id": "cadf-1",
        "eventType": "activity",
        "action": "read/list",
        "outcome": "success",
        "initiator": {"id": "alice", "project_id": "a", "host": {"address": "192.0.2.7"}},
        "target": {"id": "srv", "typeURI": "service/compute/servers/server", "name": "nova"},
        "reason": {"reasonCode": "200", "reasonType": "HTTP"},
        "requestPath": "/v2.1/servers/srv",
    }
    event = normalise_one("audit.http.response", payload)
    fields = {name: event[name] for name in FIELDS if event[name] and name not in LEFT_OUT}
    assert fields == {
        "id": "m", "time": event["time"], "type": "audit.http.response", "service": "nova",
        "action": "list", "phase": "end", "outcome": "success", "priority": "info",
        "publisher": "p.host-1", "host": "host-1", "resource_type": "server", "resource_id": "srv",
        "user_id": "alice", "actor_project_id": "a", "address": "192.0.2.7",
        "attributes": {
            "status": "200", "reason_type": "HTTP", "request_path": "/v2.1/servers/srv",
            "cadf_id": "cadf-1",
        },
    }  # fmt: skip
    request = normalise_one("audit.http.request", {**payload, "outcome": "pending"})
    assert (request["phase"], request["outcome"]) == ("start", "unknown")


def test_an_unknown_service_or_type_keeps_its_payload() -> None:
    unknown_service = normalise_one("trove.instance.create.end", {"id": "x"})
    assert (unknown_service["service"], unknown_service["resource_type"]) == ("", "")
    assert json.loads(bytes(unknown_service["payload"])) == {"id": "x"}  # type: ignore[call-overload]
    unknown_type = normalise_one(
        "identity.novelty.created", {"resource_info": "x"}, service="keystone"
    )
    assert (unknown_type["service"], unknown_type["resource_type"]) == ("keystone", "")
    assert unknown_type["resource_id"] == "x"


@pytest.mark.parametrize(
    ("members", "reason"),
    [
        ({"timestamp": "yesterday"}, "its timestamp is not a time"),
        ({"timestamp": "0001-01-01 00:00:00"}, "its timestamp is before 1970"),
        ({"timestamp": "9999-12-31 23:59:59"}, "its timestamp is before 1970 or after 2199"),
        ({"timestamp": "9999-12-31T23:59:59-12:00"}, "its timestamp is not a time"),
        ({"timestamp": None}, "no notification"),
        ({"priority": "LOUD"}, "none of oslo.messaging's seven"),
        ({"event_type": ""}, "must not be empty"),
    ],
)
def test_an_invalid_notification_is_unreadable(members: dict[str, object], reason: str) -> None:
    with pytest.raises(Unreadable, match=reason):
        normalise_one(**{"event_type": "image.create", "payload": {}, **members})  # type: ignore[arg-type]


def test_the_vocabulary_has_no_synonym_of_itself() -> None:
    assert not set(SYNONYMS) & set(ACTIONS)
    assert set(SYNONYMS.values()) <= set(ACTIONS)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=12,
)


@given(data=st.data())
def test_any_value_in_any_field_becomes_an_event_or_is_unreadable(data: Any) -> None:
    message = data.draw(st.sampled_from(GOLDEN)).message()
    node: Any = message
    for _ in range(data.draw(st.integers(0, 5))):
        key = data.draw(st.sampled_from(sorted(node))) if isinstance(node, dict) else 0
        if not isinstance(node[key], dict | list) or not node[key]:
            break
        node = node[key]
    key = data.draw(st.sampled_from(sorted(node))) if isinstance(node, dict) else 0
    node[key] = data.draw(json_values)
    try:
        events = normalise(json.dumps(message).encode(), "bus", RECEIVED)
    except Unreadable:
        return
    assert events
    for event in events:
        msgspec.convert(msgspec.structs.asdict(event) | {"payload": {}}, dict[str, Any])
        assert all(
            isinstance(getattr(event, name), str)
            for name in FIELDS
            if name not in {"index", "time", "attributes", *LEFT_OUT}
        )
        assert all(isinstance(value, str | int | float) for value in event.attributes.values())


@given(st.binary())
def test_any_bytes_become_an_event_or_are_unreadable(body: bytes) -> None:
    try:
        events: list[Event] = normalise(body, "bus", RECEIVED)
    except Unreadable:
        return
    assert events


def test_a_deeply_nested_payload_is_unreadable() -> None:
    deep = "[" * 100_000 + "]" * 100_000
    body = json.dumps({"message_id": "m", "event_type": "a.b", "priority": "INFO"})[:-1]
    body += f', "timestamp": "2024-06-14 12:28:29", "payload": {deep}}}'
    with pytest.raises(Unreadable):
        normalise(body.encode(), "bus", RECEIVED)
