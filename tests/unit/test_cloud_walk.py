"""The scenario's record says what was done: call, resource, outcome, requests; and what broke off."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from keystoneauth1.exceptions import Conflict
from openstack.compute.v2.server import Server
from tests.cloud.place import Place
from tests.cloud.scenario import with_used
from tests.cloud.scenario.walk import REQUEST_ID, Actor, Stuck, Walk, identifier, section

SERVER = "1b9f2b3e-0000-4000-8000-000000000001"


@pytest.fixture
def walk(tmp_path: Path) -> Walk:
    return Walk(Place(tmp_path), lambda _: None)


@pytest.fixture
def alice(walk: Walk) -> Actor:
    http = SimpleNamespace(hooks={"response": []}, headers={})
    connection = SimpleNamespace(
        session=SimpleNamespace(session=http),
        authorize=lambda: None,
        current_user_id="alice-id",
        current_project_id="alpha-id",
    )
    return Actor(walk, "alice", connection)


def answer(alice: Actor, status: int, **headers: str) -> None:
    """Do as requests does when an answer has come."""
    request = SimpleNamespace(method="POST", path_url="/v2.1/servers")
    response = SimpleNamespace(status_code=status, headers=headers, request=request)
    for hook in alice._http.hooks["response"]:
        hook(response)


def test_a_call_is_recorded_with_its_requests_and_its_resource(walk: Walk, alice: Actor) -> None:
    def create() -> Any:
        assert alice._http.headers[REQUEST_ID].startswith("req-")
        answer(alice, 202, **{"X-OpenStack-Request-Id": "req-of-nova", "X-Subject-Token": "t0ken"})
        return {"server": {"id": SERVER, "links": []}}

    alice.do("nova.server.create", create)
    login, call = walk.calls
    assert login.call == "keystone.token.create"
    assert (call.call, call.user, call.user_id) == ("nova.server.create", "alice", "alice-id")
    assert (call.resource_id, call.outcome, call.as_expected) == (SERVER, "success", True)
    assert call.requests == [
        {"method": "POST", "path": "/v2.1/servers", "status": 202, "request_id": "req-of-nova"}
    ]
    assert call.begin <= call.end
    assert REQUEST_ID not in alice._http.headers
    assert walk.tokens == {"t0ken"}
    # What comes between calls, a poll, belongs to none.
    answer(alice, 200)
    assert len(call.requests) == 1


@pytest.mark.parametrize(
    ("refused", "fails", "as_expected"),
    [(True, True, True), (True, False, False), (False, True, False), (False, False, True)],
)
def test_an_outcome_that_was_not_meant_is_a_problem(
    walk: Walk, alice: Actor, refused: bool, fails: bool, as_expected: bool
) -> None:
    def delete(_: str) -> None:
        if fails:
            raise Conflict

    alice.do("nova.server.delete", delete, SERVER, refused=refused)
    call = walk.calls[-1]
    assert call.outcome == ("failure" if fails else "success")
    assert call.resource_id == SERVER
    assert call.as_expected == as_expected
    assert bool(walk.problems) != as_expected


def test_a_section_that_breaks_off_is_a_problem_and_the_others_go_on(walk: Walk) -> None:
    with section(walk, "nova"):
        raise Stuck("alice wanted ACTIVE; it is 'ERROR'")
    assert walk.problems == ["section nova broke off: Stuck: alice wanted ACTIVE; it is 'ERROR'"]


def test_the_record_is_saved_in_the_order_of_the_calls(
    walk: Walk, alice: Actor, tmp_path: Path
) -> None:
    alice.do("nova.server.delete", lambda _: None, SERVER)
    walk.calls.reverse()
    walk.save(tmp_path / "calls.jsonl")
    lines = [json.loads(one) for one in (tmp_path / "calls.jsonl").read_text().splitlines()]
    assert [one["call"] for one in lines] == ["keystone.token.create", "nova.server.delete"]


@pytest.mark.parametrize(
    ("result", "expected"),
    [
        (Server(id=SERVER), SERVER),
        ({"id": SERVER, "name": "x"}, SERVER),
        ({"server": {"id": SERVER}}, SERVER),
        ({"notification": {"id": 7, "notification_uuid": SERVER}}, SERVER),
        ({"host": {"uuid": SERVER}}, SERVER),
        ({"ports": [{"id": SERVER}]}, None),
        ({}, None),
        (None, None),
    ],
)
def test_the_id_of_what_a_call_returned(result: object, expected: str | None) -> None:
    assert identifier(result) == expected


def test_a_scenario_of_some_services_brings_what_it_uses() -> None:
    assert with_used(["glance"]) == ["keystone", "glance"]
    assert with_used(["masakari"]) == [
        "keystone",
        "masakari",
        "nova",
        "glance",
        "neutron",
        "cinder",
    ]
