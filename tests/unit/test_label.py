"""Envelope and label: both formats, each service's owner, and what cannot be read."""

from __future__ import annotations

import json

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.conftest import Captured, golden

from stackbus.errors import Unreadable
from stackbus.events.envelope import Notification, decode
from stackbus.relay.label import Label, label
from stackbus.services import SERVICES, find_service

PLAIN = {
    "message_id": "m",
    "publisher_id": "p",
    "event_type": "instance.create.end",
    "priority": "INFO",
    "payload": {"nova_object.data": {"tenant_id": "t1"}},
    "timestamp": "2024-06-14 12:28:29.706843",
}


def enveloped(message: object) -> bytes:
    return json.dumps({"oslo.version": "2.0", "oslo.message": json.dumps(message)}).encode()


def test_both_formats_are_read_alike() -> None:
    bare = decode(json.dumps(PLAIN).encode())
    wrapped = decode(enveloped(PLAIN))
    assert bare == wrapped
    assert label("nova", bare) == Label(
        "info.nova.t1.instance.create.end", "nova", "m", "instance.create.end", 1718368109
    )


BROKEN: list[tuple[bytes, str]] = [
    (b"", "no notification"),
    (b"\xff\xfe\x00", "no notification"),
    (b"not json", "no notification"),
    (b"[]", "no notification"),
    (b"{}", "neither"),
    (b"null", "no notification"),
    (b'{"oslo.message": 5}', "oslo.message"),
    (b'{"oslo.message": "{"}', "no notification"),
    (enveloped([]), "no notification"),
    (enveloped({**PLAIN, "event_type": 5}), "event_type"),
    (enveloped({**PLAIN, "event_type": ""}), "empty"),
    (enveloped({**PLAIN, "message_id": None}), "message_id"),
    (enveloped({**PLAIN, "priority": ["INFO"]}), "priority"),
    (enveloped({key: PLAIN[key] for key in PLAIN if key != "payload"}), "payload"),
    (b'{"oslo.message": ' + b"[" * 100_000, "no notification"),
]


@pytest.mark.parametrize(("body", "reason"), BROKEN)
def test_what_is_no_notification_is_told_why(body: bytes, reason: str) -> None:
    with pytest.raises(Unreadable, match=reason):
        decode(body)


@given(st.binary() | st.text().map(str.encode))
def test_any_bytes_are_read_or_unreadable(body: bytes) -> None:
    try:
        decode(body)
    except Unreadable as error:
        assert len(str(error)) < 300


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(
    st.fixed_dictionaries(dict.fromkeys(PLAIN, anything)),
    st.sampled_from([s.exchange for s in SERVICES] + ["openstack", "", "x"]),
)
def test_wrong_types_in_every_field_give_a_label_or_a_reason(
    message: dict[str, object], exchange: str
) -> None:
    try:
        found = label(exchange, decode(enveloped(message)))
    except Unreadable:
        return
    assert len(found.routing_key.encode()) <= 255


@given(anything, st.sampled_from(SERVICES))
def test_each_service_reads_any_payload(payload: object, service: object) -> None:
    raw = msgspec.Raw(json.dumps({"payload": payload}).encode())
    for event_type in ("image.create", "network.create.end", "identity.project.created", "x"):
        told = Notification(event_type, "m", "INFO", raw)
        assert label(getattr(service, "exchange"), told).routing_key.startswith("info.")  # noqa: B009


@pytest.mark.parametrize(
    ("priority", "word"),
    [("INFO", "info"), ("warning", "warn"), ("WARN", "warn"), ("AUDIT", "audit")],
)
def test_priorities_are_oslos_words(priority: str, word: str) -> None:
    told = decode(enveloped({**PLAIN, "priority": priority}))
    assert label("nova", told).routing_key.partition(".")[0] == word


def test_an_unknown_priority_is_unreadable() -> None:
    with pytest.raises(Unreadable, match="seven"):
        label("nova", decode(enveloped({**PLAIN, "priority": "loud"})))


@pytest.mark.parametrize("project", ["a.b", "x" * 65, "", "é", 5, None, ["t"], "a b", "#", "*"])
def test_a_project_that_is_no_word_is_unknown(project: object) -> None:
    told = decode(enveloped({**PLAIN, "payload": {"tenant_id": project}}))
    assert label("nova", told).routing_key == "info.nova.-.instance.create.end"


def test_long_names_are_cut_to_what_amqp_holds() -> None:
    told = decode(enveloped({**PLAIN, "event_type": "é" * 300, "message_id": "m" * 300}))
    found = label("nova", told)
    assert len(found.routing_key.encode()) <= 255
    assert len(found.event_type.encode()) <= 255
    assert len(found.message_id) == 255


@pytest.mark.parametrize(
    "captured", golden(), ids=lambda c: f"{c.service}-{c.message()['event_type']}"
)
def test_captured_notifications_are_told_apart(captured: Captured) -> None:
    found = label(captured.exchange, decode(captured.body))
    message = captured.message()
    assert found.service == captured.service
    assert found.event_type == message["event_type"]
    assert found.message_id == message["message_id"]
    assert found.timestamp is not None
    assert found.routing_key.split(".", 3)[3] == message["event_type"]


@pytest.mark.parametrize(
    "captured",
    [one for one in golden() if one.service in ("cinder", "manila")],
    ids=lambda c: f"{c.service}-{c.message()['event_type']}",
)
def test_on_the_shared_exchange_too(captured: Captured) -> None:
    assert label("openstack", decode(captured.body)).service == captured.service


def test_the_owner_is_told_where_the_notification_tells_it() -> None:
    told: dict[str, list[bool]] = {}
    for one in golden():
        project = label(one.exchange, decode(one.body)).routing_key.split(".")[2]
        told.setdefault(one.service, []).append(project != "-")
    # Masakari's resources belong to nobody; Keystone's mostly to domains.
    assert not any(told.pop("masakari"))
    assert sum(told.pop("keystone")) == 5
    for service, known in told.items():
        assert sum(known) / len(known) > 0.4, service
    assert all(told["heat"])


def test_the_owner_is_not_the_actor() -> None:
    seen = 0
    for one in golden():
        message = one.message()
        actor = message.get("_context_project_id")
        payload = message["payload"]
        owner = payload.get("tenant_id") if isinstance(payload, dict) else None
        if isinstance(owner, str) and owner != actor:
            seen += 1
            assert label(one.exchange, decode(one.body)).routing_key.split(".")[2] == owner
    assert seen > 10


@pytest.mark.parametrize(
    ("event_type", "service"),
    [
        ("volume.create.end", "cinder"),
        ("snapshot.delete.start", "cinder"),
        ("scheduler.retype", "cinder"),
        ("scheduler.create_share", "manila"),
        ("share.extend.end", "manila"),
        ("share_type.create", "manila"),
        ("volume.usage", "nova"),
        ("scheduler.select_destinations.start", "nova"),
        ("image.upload", "glance"),
        ("trove.instance.create", None),
    ],
)
def test_on_the_shared_exchange_the_event_type_tells(event_type: str, service: str | None) -> None:
    found = find_service("openstack", event_type)
    assert (found.name if found else None) == service


def test_an_unknown_exchange_is_an_unknown_service() -> None:
    assert label("trove", decode(enveloped(PLAIN))).routing_key == "info.-.-.instance.create.end"
