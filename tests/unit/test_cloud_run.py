"""The record of a scenario has each call with resource, outcome and requests, and each problem."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from keystoneauth1.exceptions import Conflict
from openstack.compute.v2.server import Server
from tests.cloud.home import CloudHome
from tests.cloud.scenario import with_used
from tests.cloud.scenario.run import REQUEST_ID, Actor, ScenarioRun, Stuck, identifier, section

SERVER = "1b9f2b3e-0000-4000-8000-000000000001"


@pytest.fixture
def run(tmp_path: Path) -> ScenarioRun:
    return ScenarioRun(CloudHome(tmp_path), lambda _: None)


@pytest.fixture
def alice(run: ScenarioRun) -> Actor:
    http = SimpleNamespace(hooks={"response": []}, headers={})
    connection = SimpleNamespace(
        session=SimpleNamespace(session=http),
        authorize=lambda: None,
        current_user_id="alice-id",
        current_project_id="alpha-id",
    )
    return Actor(run, "alice", connection)


def answer(alice: Actor, status: int, **headers: str) -> None:
    """Call the hooks as requests does at a response."""
    request = SimpleNamespace(method="POST", path_url="/v2.1/servers")
    response = SimpleNamespace(status_code=status, headers=headers, request=request)
    for hook in alice._http.hooks["response"]:
        hook(response)


def test_a_call_is_recorded_with_its_requests_and_its_resource(
    run: ScenarioRun, alice: Actor
) -> None:
    def create() -> Any:
        assert alice._http.headers[REQUEST_ID].startswith("req-")
        answer(alice, 202, **{"X-OpenStack-Request-Id": "req-of-nova", "X-Subject-Token": "t0ken"})
        return {"server": {"id": SERVER, "links": []}}

    alice.do("nova.server.create", create)
    login, call = run.calls
    assert login.call == "keystone.token.create"
    assert (call.call, call.user, call.user_id) == ("nova.server.create", "alice", "alice-id")
    assert (call.resource_id, call.outcome, call.as_expected) == (SERVER, "success", True)
    assert call.requests == [
        {"method": "POST", "path": "/v2.1/servers", "status": 202, "request_id": "req-of-nova"}
    ]
    assert call.begin <= call.end
    assert REQUEST_ID not in alice._http.headers
    assert run.tokens == {"t0ken"}
    # A poll between calls belongs to none.
    answer(alice, 200)
    assert len(call.requests) == 1


@pytest.mark.parametrize(
    ("refused", "fails", "as_expected"),
    [(True, True, True), (True, False, False), (False, True, False), (False, False, True)],
)
def test_an_unexpected_outcome_is_a_problem(
    run: ScenarioRun, alice: Actor, refused: bool, fails: bool, as_expected: bool
) -> None:
    def delete(_: str) -> None:
        if fails:
            raise Conflict

    alice.do("nova.server.delete", delete, SERVER, refused=refused)
    call = run.calls[-1]
    assert call.outcome == ("failure" if fails else "success")
    assert call.resource_id == SERVER
    assert call.as_expected == as_expected
    assert bool(run.problems) != as_expected


def test_a_section_that_fails_is_a_problem_and_the_others_go_on(run: ScenarioRun) -> None:
    with section(run, "nova"):
        raise Stuck("alice expected ACTIVE; it is 'ERROR'")
    assert run.problems == ["section nova failed: Stuck: alice expected ACTIVE; it is 'ERROR'"]


def test_the_record_is_saved_in_the_order_of_the_calls(
    run: ScenarioRun, alice: Actor, tmp_path: Path
) -> None:
    alice.do("nova.server.delete", lambda _: None, SERVER)
    run.calls.reverse()
    run.save(tmp_path / "calls.jsonl")
    lines = [json.loads(line) for line in (tmp_path / "calls.jsonl").read_text().splitlines()]
    assert [line["call"] for line in lines] == ["keystone.token.create", "nova.server.delete"]


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
def test_the_id_of_a_result(result: object, expected: str | None) -> None:
    assert identifier(result) == expected


def test_a_scenario_of_some_services_includes_the_services_that_it_uses() -> None:
    assert with_used(["glance"]) == ["keystone", "glance"]
    assert with_used(["masakari"]) == [
        "keystone",
        "masakari",
        "nova",
        "glance",
        "neutron",
        "cinder",
    ]
