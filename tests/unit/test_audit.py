"""The audit trail: an action's start and end are one line, and so is a notification sent twice."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import msgspec
import pytest
from tests.conftest import golden

from stackbus.events.model import Event
from stackbus.events.normalise import normalise
from stackbus.history.batches import EventRow
from stackbus.history.history import History
from stackbus.history.session import Layout, open_engine
from stackbus.query.audit import Subject, audit_trail, fold_events

BEGAN = datetime(2026, 11, 24, tzinfo=UTC)
CAPTURED = [
    event
    for captured in golden()
    for event in normalise(captured.body, "bus", BEGAN, captured.service)
]
TEMPLATE = CAPTURED[0]


def event(second: float, type_: str, action: str, phase: str, **fields: object) -> Event:
    given: dict[str, object] = {
        "id": f"{second}-{type_}", "index": 0, "time": BEGAN + timedelta(seconds=second),
        "service": "nova", "type": type_, "action": action, "phase": phase,
        "outcome": {"start": "unknown", "error": "failure"}.get(phase, "success"),
        "resource_type": "server", "resource_id": "s1", "resource_name": "web",
        "project_id": "p1", "user_id": "u1", "user_name": "", "actor_project_id": "p1",
        "request_id": "req-1", "global_request_id": "", "address": "", "attributes": {},
    }  # fmt: skip
    return msgspec.structs.replace(TEMPLATE, **{**given, **fields})


def lines(*events: Event) -> list[tuple[str, str, float | None, int]]:
    return [
        (line.action, line.state, line.duration, len(line.events)) for line in fold_events(events)
    ]


def test_start_and_end_are_one_line_with_its_duration() -> None:
    assert lines(
        event(0, "compute.instance.create.start", "create", "start"),
        event(3.5, "compute.instance.create.end", "create", "end"),
    ) == [("create", "success", 3.5, 2)]


def test_an_action_without_an_end_is_started() -> None:
    assert lines(event(0, "network.create.start", "create", "start")) == [
        ("create", "started", None, 1)
    ]


def test_a_line_that_the_bus_does_not_confirm_is_marked() -> None:
    start = event(0, "compute.instance.create.start", "create", "start", channels=("log",))
    end = event(3, "compute.instance.create.end", "create", "end", channels=("log", "opensearch"))
    (line,) = fold_events([start, end])
    assert line.is_from_logs_alone
    assert line.to_json()["channels"] == ["log", "opensearch"]
    confirmed = msgspec.structs.replace(end, channels=("bus", "log"))
    (line,) = fold_events([start, confirmed])
    assert not line.is_from_logs_alone


def test_an_error_is_a_failure_with_its_reason() -> None:
    (line,) = fold_events(
        [
            event(0, "compute.instance.create.start", "create", "start"),
            event(2, "compute.instance.create.error", "create", "error",
                  attributes={"reason": "no host"}),
        ]
    )  # fmt: skip
    assert (line.state, line.reason, line.duration) == ("failure", "no host", 2)


def test_both_formats_of_nova_are_one_line() -> None:
    assert lines(
        event(0.0, "compute.instance.create.start", "create", "start"),
        event(0.1, "instance.create.start", "create", "start"),
        event(3.0, "instance.create.end", "create", "end"),
        event(3.1, "compute.instance.create.end", "create", "end"),
    ) == [("create", "success", 3.1, 4)]
    assert lines(
        event(0.0, "compute.instance.update", "update", "none"),
        event(0.1, "instance.update", "update", "none"),
        event(0.2, "compute.instance.update", "update", "none"),
        event(0.3, "instance.update", "update", "none"),
    ) == [("update", "success", None, 2), ("update", "success", None, 2)]


def test_types_that_both_formats_share_are_one_line() -> None:
    versioned = {"publisher": "nova-api:host-1"}
    legacy = {"publisher": "api.host-1"}
    assert lines(
        event(0.0, "keypair.create.start", "create", "start", id="a", **legacy),
        event(0.1, "keypair.create.start", "create", "start", id="b", **versioned),
        event(0.2, "keypair.create.end", "create", "end", id="c", **legacy),
        event(0.3, "keypair.create.end", "create", "end", id="d", **versioned),
    ) == [("create", "success", 0.3, 4)]


def test_one_notification_in_one_format_joins_start_and_end_in_the_other() -> None:
    assert lines(
        event(0.0, "instance.volume_attach.start", "attach_volume", "start"),
        event(0.9, "compute.instance.volume.attach", "attach_volume", "none"),
        event(1.0, "instance.volume_attach.end", "attach_volume", "end"),
    ) == [("attach_volume", "success", 1.0, 3)]


def test_a_user_has_the_name_that_any_service_sends() -> None:
    first, second, third = fold_events(
        [
            event(0, "volume.create.end", "create", "end", service="cinder"),
            event(1, "network.create.end", "create", "end", service="neutron", user_name="alice"),
            event(2, "volume.create.end", "create", "end", service="cinder", user_id="u2"),
        ]
    )
    assert [first.user_name, second.user_name, third.user_name] == ["alice", "alice", ""]


def test_a_repeated_action_is_a_line_of_its_own() -> None:
    assert lines(
        event(0, "compute.instance.reboot.start", "reboot", "start"),
        event(1, "compute.instance.reboot.end", "reboot", "end"),
        event(5, "compute.instance.reboot.start", "reboot", "start"),
        event(7, "compute.instance.reboot.end", "reboot", "end"),
    ) == [("reboot", "success", 1, 2), ("reboot", "success", 2, 2)]


def test_simultaneous_actions_are_told_apart_by_request_and_resource() -> None:
    assert lines(
        event(0, "compute.instance.create.start", "create", "start"),
        event(0, "compute.instance.create.start", "create", "start", resource_id="s2", id="x"),
        event(1, "compute.instance.create.start", "create", "start", request_id="req-2", id="y"),
        event(2, "compute.instance.create.end", "create", "end", resource_id="s2", id="z"),
        event(3, "compute.instance.create.end", "create", "end"),
    ) == [
        ("create", "success", 3, 2),
        ("create", "success", 2, 2),
        ("create", "started", None, 1),
    ]


def test_a_start_without_a_resource_belongs_to_the_end_of_its_request() -> None:
    (line,) = fold_events(
        [
            event(0, "port.create.start", "create", "start", resource_id="", service="neutron",
                  resource_type="port"),
            event(0.5, "port.create.end", "create", "end", service="neutron",
                  resource_type="port"),
        ]
    )  # fmt: skip
    assert (line.resource_id, line.duration) == ("s1", 0.5)


def test_fields_of_the_end_complete_the_line() -> None:
    (line,) = fold_events(
        [
            event(0, "a.start", "create", "start", user_name="", address="", project_id=""),
            event(1, "a.end", "create", "end", user_name="alice", address="192.0.2.1"),
        ]
    )
    assert (line.user_name, line.address, line.project_id) == ("alice", "192.0.2.1", "p1")


@pytest.fixture(scope="module")
def history(tmp_path_factory: pytest.TempPathFactory) -> Iterator[History]:
    engine = open_engine(f"chdb://{tmp_path_factory.mktemp('audit')}/history")
    history = History(engine, Layout(), "r1")
    history.migrate()
    history.events.store([EventRow.from_event(event) for event in CAPTURED])
    yield history
    history.close()


def test_a_subject_is_an_id_a_name_or_a_request(history: History) -> None:
    created = next(
        event for event in CAPTURED
        if event.type == "instance.create.end" and event.user_id and event.outcome == "success"
    )  # fmt: skip
    for subject in (
        Subject(resource=created.resource_id),
        Subject(resource=created.resource_name),
        Subject(user=created.user_id),
        Subject(project=created.project_id),
        Subject(request=created.request_id),
    ):
        trail = audit_trail(history, subject, None, None)
        assert created.id in {event.id for line in trail for event in line.events}
        assert trail == sorted(trail, key=lambda line: line.time)
    assert audit_trail(history, Subject(resource="nothing has this name"), None, None) == []
    assert audit_trail(history, Subject(resource=created.resource_id), BEGAN, None) == []


def test_both_notifications_of_designate_are_one_line(history: History) -> None:
    zones = [event for event in CAPTURED if event.type == "dns.zone.create"]
    for line in audit_trail(history, Subject(resource=zones[0].resource_id), None, None):
        if line.action == "create" and line.resource_type == "zone":
            assert sorted(event.type for event in line.events) == [
                "dns.domain.create",
                "dns.zone.create",
            ]
            return
    raise AssertionError("no creation of the zone")


def test_periodic_reports_are_included_on_demand(history: History) -> None:
    report = next(event for event in CAPTURED if event.action == "exists" and event.resource_id)
    subject = Subject(resource=report.resource_id)
    without = audit_trail(history, subject, None, None)
    assert all(line.action != "exists" for line in without)
    with_them = audit_trail(history, subject, None, None, with_periodic=True)
    assert any(line.action == "exists" for line in with_them)


@pytest.mark.parametrize(
    ("seconds", "since", "parts"),
    [
        (1, None, 2),
        (23 * 3600, None, 2),
        (25 * 3600, None, 1),  # no call of an API takes so long
        (60, timedelta(seconds=61), 2),
        (60, timedelta(seconds=59), 1),  # before what was asked for
    ],
)
def test_a_start_without_a_resource_is_found_before_its_end(
    history: History, seconds: int, since: timedelta | None, parts: int
) -> None:
    name = f"port {seconds} {since}"
    port = {"service": "neutron", "resource_type": "port", "request_id": f"req {name}"}
    ended = 3600 * 24 * 10
    events = [
        event(ended - seconds, "port.create.start", "create", "start", resource_id="",
              resource_name="", id=f"start of {name}", **port),
        event(ended, "port.create.end", "create", "end", resource_id=name, id=f"end of {name}",
              **port),
    ]  # fmt: skip
    history.events.store([EventRow.from_event(event) for event in events])
    begin = events[1].time - since if since else None
    (line,) = audit_trail(history, Subject(resource=name), begin, None)
    assert len(line.events) == parts
    assert line.duration == (seconds if parts == 2 else None)
