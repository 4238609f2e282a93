"""Envelope and label: both formats, each service's owner, and what cannot be read."""

from __future__ import annotations

import json

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.conftest import Captured, golden

from stackbus.bus.message import Label
from stackbus.errors import Unreadable
from stackbus.events.envelope import Notification, decode
from stackbus.relay.label import label
from stackbus.services import SERVICES, find_service

PLAIN = {
    "message_id": "m",
    "publisher_id": "p",
    "event_type": "instance.create.end",
    "priority": "INFO",
    "payload": {"nova_object.data": {"tenant_id": "t1"}},
    "timestamp": "2024-06-14 12:28:29.706843",
}


def wrap(message: object) -> bytes:
    return json.dumps({"oslo.version": "2.0", "oslo.message": json.dumps(message)}).encode()


def test_both_formats_are_read_alike() -> None:
    bare = decode(json.dumps(PLAIN).encode())
    wrapped = decode(wrap(PLAIN))
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
    (wrap([]), "no notification"),
    (wrap({**PLAIN, "event_type": 5}), "event_type"),
    (wrap({**PLAIN, "event_type": ""}), "empty"),
    (wrap({**PLAIN, "message_id": None}), "message_id"),
    (wrap({**PLAIN, "priority": ["INFO"]}), "priority"),
    (wrap({key: PLAIN[key] for key in PLAIN if key != "payload"}), "payload"),
    (b'{"oslo.message": ' + b"[" * 100_000, "no notification"),
]


@pytest.mark.parametrize(("body", "reason"), BROKEN)
def test_any_other_body_is_unreadable_with_a_reason(body: bytes, reason: str) -> None:
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
        notification_label = label(exchange, decode(wrap(message)))
    except Unreadable:
        return
    assert len(notification_label.routing_key.encode()) <= 255


@given(anything, st.sampled_from(SERVICES))
def test_each_service_reads_any_payload(payload: object, service: object) -> None:
    raw = msgspec.Raw(json.dumps({"payload": payload}).encode())
    for event_type in ("image.create", "network.create.end", "identity.project.created", "x"):
        notification = Notification(event_type, "m", "INFO", raw)
        assert label(getattr(service, "exchange"), notification).routing_key.startswith("info.")  # noqa: B009


@pytest.mark.parametrize(
    ("priority", "word"),
    [("INFO", "info"), ("warning", "warn"), ("WARN", "warn"), ("AUDIT", "audit")],
)
def test_priorities_become_words_of_routing_keys(priority: str, word: str) -> None:
    notification = decode(wrap({**PLAIN, "priority": priority}))
    assert label("nova", notification).routing_key.partition(".")[0] == word


def test_an_unknown_priority_is_unreadable() -> None:
    with pytest.raises(Unreadable, match="seven"):
        label("nova", decode(wrap({**PLAIN, "priority": "loud"})))


@pytest.mark.parametrize("project", ["a.b", "x" * 65, "", "é", 5, None, ["t"], "a b", "#", "*"])
def test_a_project_that_is_not_one_word_is_unknown(project: object) -> None:
    notification = decode(wrap({**PLAIN, "payload": {"tenant_id": project}}))
    assert label("nova", notification).routing_key == "info.nova.-.instance.create.end"


def test_long_names_are_cut_to_what_amqp_holds() -> None:
    notification = decode(wrap({**PLAIN, "event_type": "é" * 300, "message_id": "m" * 300}))
    notification_label = label("nova", notification)
    assert len(notification_label.routing_key.encode()) <= 255
    assert len(notification_label.event_type.encode()) <= 255
    assert len(notification_label.message_id) == 255


@pytest.mark.parametrize(
    "captured", golden(), ids=lambda c: f"{c.service}-{c.message()['event_type']}"
)
def test_captured_notifications_get_the_label_of_their_service(captured: Captured) -> None:
    notification_label = label(captured.exchange, decode(captured.body))
    message = captured.message()
    assert notification_label.service == captured.service
    assert notification_label.event_type == message["event_type"]
    assert notification_label.message_id == message["message_id"]
    assert notification_label.timestamp is not None
    assert notification_label.routing_key.split(".", 3)[3] == message["event_type"]


@pytest.mark.parametrize(
    "captured",
    [captured for captured in golden() if captured.service in ("cinder", "manila")],
    ids=lambda c: f"{c.service}-{c.message()['event_type']}",
)
def test_the_service_is_recognised_on_the_shared_exchange(captured: Captured) -> None:
    assert label("openstack", decode(captured.body)).service == captured.service


def test_the_project_is_read_from_most_notifications() -> None:
    has_project: dict[str, list[bool]] = {}
    for captured in golden():
        project = label(captured.exchange, decode(captured.body)).routing_key.split(".")[2]
        has_project.setdefault(captured.service, []).append(project != "-")
    # Masakari's resources belong to nobody; Keystone's mostly to domains.
    assert not any(has_project.pop("masakari"))
    assert sum(has_project.pop("keystone")) == 5
    for service, answers in has_project.items():
        assert sum(answers) / len(answers) > 0.4, service
    assert all(has_project["heat"])


def test_the_owner_is_not_the_actor() -> None:
    count = 0
    for captured in golden():
        message = captured.message()
        actor = message.get("_context_project_id")
        payload = message["payload"]
        owner = payload.get("tenant_id") if isinstance(payload, dict) else None
        if isinstance(owner, str) and owner != actor:
            count += 1
            assert (
                label(captured.exchange, decode(captured.body)).routing_key.split(".")[2] == owner
            )
    assert count > 10


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
def test_on_the_shared_exchange_the_event_type_decides(
    event_type: str, service: str | None
) -> None:
    emitter = find_service("openstack", event_type)
    assert (emitter.name if emitter else None) == service


def test_an_unknown_exchange_is_an_unknown_service() -> None:
    assert label("trove", decode(wrap(PLAIN))).routing_key == "info.-.-.instance.create.end"
