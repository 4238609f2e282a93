"""The CRD refuses what the command refuses, and lets through what it lets through."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import yaml

from stackbus.errors import InvalidDeployment
from stackbus.expose.validation import MAX_TOPICS, parse
from tests.kubernetes.conftest import as_administrator
from tests.kubernetes.schema import complaints
from tests.unit.test_deployment import BAD, GOOD, REMOVED, E, change

ROOT = Path(__file__).parent.parent.parent
CRD = yaml.safe_load((ROOT / "deploy" / "crd" / "openstackdeployments.yaml").read_text())
SCHEMA = CRD["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
OWN = ("apiVersion", "kind", "metadata")
"""What an API server checks itself, before any schema: the path of the request names them."""

MORE_BAD: list[tuple[str, object]] = [
    (f"{E}/topics", [f"t{n}" for n in range(MAX_TOPICS + 1)]),
    (f"{E}/settings/a/queue/maxBytes", "9999999999999999TiB"),
    (f"{E}/settings/a/queue/maxBytes", "1024TiB"),
    (f"{E}/settings/a/queue/maxBytes", 2**50),
    (f"{E}/settings/a/queue/maxBytes", "0B"),
    (f"{E}/settings/a/queue/maxAge", "999999999w"),
    (f"{E}/settings/a/queue/maxAge", "-1s"),
    (f"{E}/topics", ["amq"]),
    (f"{E}/settings/a", {"projects": [f"p{n}" for n in range(200)], "events": ["x", "y"]}),
    (f"{E}/settings/a/services", ["networking"]),
    (f"{E}/topics", None),
]
DROPPED = [(E, None), (f"{E}/settings", None), (f"{E}/settings/a/queue", None)]
"""An API server drops a member that is null before it checks anything; a file keeps it."""

ALSO_GOOD: list[tuple[str, object]] = [
    (f"{E}/enabled", False),
    (E, REMOVED),
    ("spec/features/messaging", REMOVED),
    ("spec/features/messaging", None),
    ("spec/features/messaging/notifications", None),
    ("spec/features", REMOVED),
    ("spec/features", None),
    (f"{E}/topics", []),
    (f"{E}/topics", ["x" * 229]),
    (f"{E}/topics", ["a", "info", "audit.log"]),
    (f"{E}/settings/a/services", None),
    (f"{E}/settings/a/services", ["nova", "image"]),
    (f"{E}/settings/a/events", None),
    (f"{E}/settings/a/events", ["#", "a.*.b", "dns.zone:x@y"]),
    (f"{E}/settings/a/queue", {"maxAge": None, "maxBytes": None}),
    (f"{E}/settings/a/queue", {"type": "classic", "maxAge": "49d", "maxBytes": "1GiB"}),
    (f"{E}/settings/a/queue/maxBytes", 1),
    (f"{E}/settings/a", {"projects": [f"p{n}" for n in range(333)]}),
    ("spec/features/services", ["compute", "compute", "ingress", "block_storage", "volumev3"]),
]


@pytest.mark.parametrize(
    ("where", "value"),
    [row[:2] for row in BAD if not row[0].startswith(OWN) and row[:2] not in DROPPED] + MORE_BAD,
)
def test_both_refuse(where: str, value: object) -> None:
    document: Any = change(where, value)
    with pytest.raises(InvalidDeployment):
        parse(document, "d")
    assert list(complaints(without_head(document), SCHEMA))


@pytest.mark.parametrize(("where", "value"), [("spec/preset", "compute"), *ALSO_GOOD])
def test_both_let_through(where: str, value: object) -> None:
    document = change(where, value)
    parse(document, "d")
    assert list(complaints(without_head(document), SCHEMA)) == []


@pytest.mark.parametrize(("where", "value"), DROPPED)
def test_a_null_is_refused_in_a_file_and_dropped_by_kubernetes(where: str, value: object) -> None:
    document = change(where, value)
    with pytest.raises(InvalidDeployment):
        parse(document, "d")
    assert list(complaints(without_head(document), SCHEMA)) == []


def test_the_good_one_is_good() -> None:
    assert list(complaints(without_head(GOOD), SCHEMA)) == []


def test_the_status_that_is_written_fits() -> None:
    status = {
        "observedGeneration": 3,
        "exposedTopics": 1,
        "conditions": [{"type": "Ready", "status": "True", "reason": "x", "message": "y"}],
        "topics": [{"name": "a", "secret": "s", "queues": ["a.info"], "problem": ""}],
        "endpoint": {"hosts": ["192.0.2.1"]},
        "relay": {"state": "active", "standby": 1, "behind": 0, "quarantined": 0},
    }
    assert list(complaints({"spec": {}, "status": status}, SCHEMA)) == []


REAL = os.environ.get("STACKBUS_TEST_CRDS")


@pytest.mark.skipif(REAL is None, reason="needs a real API server (make test-kubernetes)")
def test_a_real_api_server_says_the_same() -> None:
    """Each row of the table goes to a real API server, strict about unknown fields."""
    with as_administrator(Path(str(REAL))) as client:
        wrong = []
        rows = [(row[0], row[1], False) for row in BAD] + [(*row, False) for row in MORE_BAD]
        for where, value, good in [*rows, *((*row, True) for row in [*ALSO_GOOD, *DROPPED])]:
            if (where, value) in DROPPED and not good:
                continue
            if (where, value) == ("metadata/namespace", ""):
                continue  # the path of the request names it
            answer = client.post(
                "/apis/lcm.mirantis.com/v1alpha1/namespaces/openstack/openstackdeployments",
                params={"dryRun": "All", "fieldValidation": "Strict"},
                json=change(where, value),
            )
            if answer.is_success != good:
                wrong.append((where, value, answer.text[:300]))
        assert wrong == []


def without_head(document: dict[str, Any]) -> dict[str, Any]:
    """Leave out what an API server takes out of a resource before its schema is asked."""
    return {name: value for name, value in document.items() if name not in OWN}
