"""A recorded history stays verifiable when events get a new field, and tampering is detected."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from tests.conftest import golden

import stackbus.history.session
from stackbus.events.model import FIELDS, HASHED_FIELDS, Event
from stackbus.events.normalise import normalise
from stackbus.history import chain
from stackbus.history.batches import EventRow
from stackbus.history.chain import HASH_VERSION, batch_hash, event_hash
from stackbus.history.engine import Engine
from stackbus.history.history import History
from stackbus.history.session import Layout, migrations, open_engine
from stackbus.query.events import list_events
from stackbus.query.filter import EventFilter
from stackbus.query.signing import read_digests, read_public_key, sign_history
from stackbus.query.verification import Verdict, verify_history

RECORDED = Path(__file__).parent.parent / "golden-history" / "version-1"
LINES = (RECORDED / "events.jsonl").read_bytes().splitlines(keepends=True)
NOW = datetime(2026, 11, 24, 10, 30, tzinfo=UTC)
NEW_EVENTS = [
    msgspec.structs.replace(event, id=f"new-{event.id}", region="RegionOne")
    for captured in golden()[:20]
    for event in normalise(captured.body, "bus", NOW, captured.service)
]


@dataclass
class UpgradedHistory:
    """A history that was recorded with version 1 and is open in this version."""

    engine: Engine
    history: History
    digests: Path

    def update(self, change: str, condition: str) -> None:
        self.engine.execute(
            f"ALTER TABLE events UPDATE {change} WHERE {condition} SETTINGS mutations_sync = 1"
        )

    def verify(self) -> Verdict:
        key = read_public_key(RECORDED / "signing.pub")
        return verify_history(self.history, self.digests, key, None)

    def changes(self) -> set[str]:
        return {entry.event for entry in self.verify().discrepancies if entry.kind == "changed"}


@pytest.fixture
def recorded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[UpgradedHistory]:
    engine = open_engine(f"chdb://{tmp_path}/history")
    history = History(engine, Layout(), "r3")
    with monkeypatch.context() as patch:
        released = {number: text for number, text in migrations().items() if number <= 3}
        patch.setattr(stackbus.history.session, "migrations", lambda: released)
        history.migrate()
    for batch in (LINES[:10], LINES[10:20], LINES[20:]):
        engine.insert("events", batch)
    history.migrate()
    shutil.copytree(RECORDED / "digests", tmp_path / "digests")
    yield UpgradedHistory(engine, history, tmp_path / "digests")
    engine.close()


def name(number: int) -> str:
    row = msgspec.json.decode(LINES[number])
    return f"{row['id']} {row['index']}"


def condition(number: int) -> str:
    return f"id = '{name(number).split()[0]}'"


def test_everything_recorded_before_the_new_field_still_verifies(recorded: UpgradedHistory) -> None:
    verdict = recorded.verify()
    assert (verdict.signed, verdict.unsigned, verdict.discrepancies) == (20, 10, [])


def test_both_versions_verify_beside_each_other(recorded: UpgradedHistory) -> None:
    recorded.history.events.store([EventRow.from_event(event) for event in NEW_EVENTS])
    verdict = recorded.verify()
    assert (verdict.signed, verdict.unsigned) == (20, 10 + len(NEW_EVENTS))
    assert verdict.discrepancies == []
    regions = {event.region for event in list_events(recorded.history, EventFilter())}
    assert regions == {"", "RegionOne"}


def test_a_recorder_of_version_1_is_signed_by_this_one(recorded: UpgradedHistory) -> None:
    recorded.history.events.store([EventRow.from_event(event) for event in NEW_EVENTS])
    key = Ed25519PrivateKey.generate()
    folder = recorded.digests.with_name("new")
    sign_history(recorded.history, folder, key, NOW)
    verdict = verify_history(recorded.history, folder, key.public_key(), None)
    assert (verdict.signed, verdict.unsigned) == (30 + len(NEW_EVENTS), 0)
    assert verdict.discrepancies == []
    (file,) = read_digests(folder)
    versions = {batch.recorder: batch.hash_version for batch in file.decode().batches}
    assert versions == {"r1": 1, "r2": 1, "r3": 2}


@pytest.mark.parametrize("number", [3, 25])  # signed, and not
@pytest.mark.parametrize(
    "change",
    [
        "user_name = 'mallory'",
        "region = 'elsewhere'",
        "hash_version = 2",
        "hash_version = 2, region = 'elsewhere'",
        "hash_version = 7",
    ],
)
def test_a_change_of_an_event_of_version_1_is_found(
    recorded: UpgradedHistory, number: int, change: str
) -> None:
    recorded.update(change, condition(number))
    assert name(number) in recorded.changes()


@pytest.mark.parametrize("is_signed", [True, False])
@pytest.mark.parametrize("change", ["region = 'elsewhere'", "region = ''", "hash_version = 1"])
def test_a_change_of_an_event_of_version_2_is_found(
    recorded: UpgradedHistory, change: str, is_signed: bool
) -> None:
    recorded.history.events.store([EventRow.from_event(event) for event in NEW_EVENTS])
    key, folder = Ed25519PrivateKey.generate(), recorded.digests.with_name("new")
    if is_signed:
        sign_history(recorded.history, folder, key, NOW)
    recorded.update(change, f"id = '{NEW_EVENTS[5].id}'")
    verdict = verify_history(recorded.history, folder, key.public_key(), None)
    expected = {
        ("changed", f"{event.id} {event.index}")
        for event in NEW_EVENTS
        if event.id == NEW_EVENTS[5].id
    }
    assert {(entry.kind, entry.event) for entry in verdict.discrepancies} == expected


@pytest.mark.parametrize("batch", ["recorder = 'r2'", "recorder = 'r1' AND batch = 1"])
def test_another_version_of_a_whole_batch_is_found(recorded: UpgradedHistory, batch: str) -> None:
    recorded.update("hash_version = 2", batch)
    assert len(recorded.changes()) == 10


# The hashed form itself


def test_the_newest_version_hashes_the_line_that_is_printed() -> None:
    event = NEW_EVENTS[0]
    assert event_hash(event, HASH_VERSION) == chain.line_hash(event.encode_json().encode())
    assert HASHED_FIELDS[HASH_VERSION] == FIELDS


def test_each_version_extends_the_one_before() -> None:
    for version in range(2, HASH_VERSION + 1):
        before = HASHED_FIELDS[version - 1]
        assert HASHED_FIELDS[version][: len(before)] == before
        assert len(HASHED_FIELDS[version]) > len(before)


def test_released_hashes_never_change() -> None:
    event = msgspec.json.decode(
        b'{"id":"i","index":0,"time":"2026-01-01T00:00:00Z","received":"2026-01-01T00:00:01Z",'
        b'"service":"nova","type":"t","action":"a","phase":"none","outcome":"success",'
        b'"priority":"info","publisher":"p","host":"h","resource_type":"server","resource_id":"r",'
        b'"resource_name":"n","project_id":"p","user_id":"u","user_name":"un",'
        b'"actor_project_id":"ap","request_id":"req","global_request_id":"g","address":"",'
        b'"attributes":{"vcpus":1},"payload":{"a": 1},"channels":["bus"]}',
        type=Event,
    )
    hashes = [event_hash(event, version) for version in HASHED_FIELDS]
    assert [text[:16] for text in hashes] == ["96394353a41a25ae", "41fdee7c661b5ea7"]
    chains = [batch_hash("0" * 64, "r", 1, version, hashes) for version in HASHED_FIELDS]
    assert [text[:16] for text in chains] == ["530c42fb4e19e2cb", "d25cbd715514ed5f"]


def test_an_event_that_its_version_cannot_have_has_no_hash() -> None:
    event = NEW_EVENTS[0]
    assert event_hash(event, 1) == ""
    assert event_hash(event, HASH_VERSION + 1) == ""
