"""Verification finds and names every change of a recorded history."""

from __future__ import annotations

import gzip
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from tests.conftest import golden

from stackbus.errors import InputError
from stackbus.events.model import FIELDS
from stackbus.events.normalise import normalise
from stackbus.history.batches import EventRow
from stackbus.history.engine import Engine
from stackbus.history.history import History
from stackbus.history.session import Layout, open_engine
from stackbus.query import signing
from stackbus.query.signing import read_digests, read_private_key, read_public_key, sign_history
from stackbus.query.verification import Verdict, verify_history

NOW = datetime(2026, 11, 24, 10, 30, tzinfo=UTC)
CAPTURED = [
    event
    for captured in golden()
    for event in normalise(captured.body, "bus", NOW, captured.service)
]
KEY, OTHER_KEY = Ed25519PrivateKey.generate(), Ed25519PrivateKey.generate()


@dataclass
class Recorded:
    """A history of three batches of two recorders, its digests, and SQL that tampers with it."""

    engine: Engine
    history: History
    second: History
    folder: Path

    def run(self, sql: str) -> None:
        self.engine.execute(sql)

    def update(self, change: str, condition: str) -> None:
        self.run(
            f"ALTER TABLE events UPDATE {change} WHERE {condition} SETTINGS mutations_sync = 1"
        )

    def sign(self, hours: int = 0) -> list[Path]:
        return sign_history(self.history, self.folder, KEY, NOW + timedelta(hours=hours))

    def verify(self, key: Ed25519PrivateKey | None = KEY) -> Verdict:
        return verify_history(self.history, self.folder, key.public_key() if key else None, None)

    def discrepancies(self, key: Ed25519PrivateKey | None = KEY) -> set[tuple[str, str]]:
        return {(entry.kind, entry.event) for entry in self.verify(key).discrepancies}


def store(history: History, start: int, count: int, received: datetime = NOW) -> None:
    events = [
        msgspec.structs.replace(event, received=received)
        for event in CAPTURED[start : start + count]
    ]
    history.events.store([EventRow.from_event(event) for event in events])


@pytest.fixture
def recorded(tmp_path: Path) -> Iterator[Recorded]:
    engine = open_engine(f"chdb://{tmp_path}/history")
    history, second = History(engine, Layout(), "r1"), History(engine, Layout(), "r2")
    history.migrate()
    store(history, 0, 10)
    store(second, 10, 10)
    store(history, 20, 10)
    yield Recorded(engine, history, second, tmp_path / "digests")
    engine.close()


def name(number: int) -> str:
    return f"{CAPTURED[number].id} {CAPTURED[number].index}"


def test_an_untouched_history_is_verified_signed_or_not(recorded: Recorded) -> None:
    verdict = recorded.verify()
    assert (verdict.signed, verdict.unsigned, verdict.discrepancies) == (0, 30, [])
    recorded.sign()
    store(recorded.second, 30, 5)
    verdict = recorded.verify()
    assert (verdict.signed, verdict.unsigned, verdict.discrepancies) == (30, 5, [])
    recorded.sign(1)
    assert recorded.sign(1) == []
    verdict = recorded.verify()
    assert (verdict.signed, verdict.unsigned, verdict.digests, verdict.discrepancies) == (
        35,
        0,
        2,
        [],
    )


CHANGES = {
    "time": "time + 1",
    "received": "received + 1",
    "attributes": "'{\"x\":1}'",
    "payload": "concat(payload, ' ')",
    "channels": "['x']",
}
"""SQL of another value for each column that is not a text; a text becomes ``x``."""
COLUMNS = [name for name in FIELDS if name not in {"id", "index"}]


def change(recorded: Recorded, number: int, column: str, value: str) -> None:
    """Change one column of one event; the sorting key needs the row to be inserted again."""
    condition = f"id = '{CAPTURED[number].id}' AND index = {CAPTURED[number].index}"
    if column != "time":
        recorded.update(f"`{column}` = {value}", condition)
        return
    recorded.run("CREATE TABLE copy AS events ENGINE = Memory")
    recorded.run(f"INSERT INTO copy SELECT * FROM events WHERE {condition}")
    recorded.run(f"ALTER TABLE events DELETE WHERE {condition} SETTINGS mutations_sync = 1")
    recorded.run("INSERT INTO events SELECT * REPLACE(time + 1 AS time) FROM copy")
    recorded.run("DROP TABLE copy")


@pytest.mark.parametrize("is_signed", [True, False])
def test_a_change_of_any_column_is_found(recorded: Recorded, is_signed: bool) -> None:
    if is_signed:
        recorded.sign()
    for number, column in enumerate(COLUMNS):
        change(recorded, number, column, CHANGES.get(column, "'x'"))
        assert ("changed", name(number)) in recorded.discrepancies(), column
    assert recorded.discrepancies() == {("changed", name(number)) for number in range(len(COLUMNS))}


def test_a_change_with_a_forged_hash_is_found_by_the_digest(recorded: Recorded) -> None:
    recorded.sign()
    recorded.update("user_name = 'mallory'", f"id = '{CAPTURED[3].id}'")
    forged = msgspec.structs.replace(CAPTURED[3], user_name="mallory", received=NOW)
    recorded.update(f"hash = '{EventRow.from_event(forged).hash[:16]}'", f"id = '{CAPTURED[3].id}'")
    assert recorded.discrepancies() == {("changed", name(3))}


@pytest.mark.parametrize("number", [0, 4, 9, 15, 29])
def test_a_removed_event_is_named_once_it_is_signed(recorded: Recorded, number: int) -> None:
    recorded.sign()
    recorded.run(
        f"ALTER TABLE events DELETE WHERE id = '{CAPTURED[number].id}' SETTINGS mutations_sync = 1"
    )
    assert recorded.discrepancies() == {("removed", name(number))}


@pytest.mark.parametrize("number", [0, 4, 9, 15, 29])
def test_a_removed_event_is_found_before_it_is_signed(recorded: Recorded, number: int) -> None:
    recorded.run(
        f"ALTER TABLE events DELETE WHERE id = '{CAPTURED[number].id}' SETTINGS mutations_sync = 1"
    )
    assert recorded.verify().discrepancies


def test_a_removed_batch_is_found(recorded: Recorded) -> None:
    store(recorded.history, 30, 5)
    recorded.run(
        "ALTER TABLE events DELETE WHERE recorder = 'r1' AND batch = 1 SETTINGS mutations_sync = 1"
    )
    assert [(entry.kind, entry.message) for entry in recorded.verify().discrepancies] == [
        ("removed", "batches 1 to 1 are missing")
    ]


def test_a_removed_batch_is_named_event_by_event_once_it_is_signed(recorded: Recorded) -> None:
    recorded.sign()
    recorded.run("ALTER TABLE events DELETE WHERE recorder = 'r2' SETTINGS mutations_sync = 1")
    assert recorded.discrepancies() == {("removed", name(number)) for number in range(10, 20)}


def add_copy(recorded: Recorded, values: str, number: int) -> None:
    recorded.run(
        f"INSERT INTO events SELECT * REPLACE({values}) FROM "
        f"(SELECT * FROM events WHERE id = '{CAPTURED[number].id}' LIMIT 1)"
    )


@pytest.mark.parametrize("is_signed", [True, False])
@pytest.mark.parametrize(
    "values", ["'forged' AS id", "'forged' AS id, 99 AS position", "'forged' AS id, 10 AS position"]
)
def test_an_added_event_is_found(recorded: Recorded, is_signed: bool, values: str) -> None:
    if is_signed:
        recorded.sign()
    add_copy(recorded, values, 3)
    discrepancies = recorded.verify().discrepancies
    assert discrepancies
    if is_signed:
        assert [(entry.kind, entry.event) for entry in discrepancies] == [("added", "forged 0")]


def test_an_added_batch_of_an_old_recorder_is_found(recorded: Recorded) -> None:
    recorded.sign()
    add_copy(recorded, "'forged' AS id, 7 AS batch", 3)
    assert recorded.verify().discrepancies
    add_copy(recorded, "'forged 2' AS id, 'nobody' AS recorder", 3)
    assert "nobody, batch 0" in " ".join(entry.place for entry in recorded.verify().discrepancies)


@pytest.mark.parametrize("is_signed", [True, False])
def test_reordered_events_are_found(recorded: Recorded, is_signed: bool) -> None:
    if is_signed:
        recorded.sign()
    recorded.update(
        f"position = if(id = '{CAPTURED[1].id}', 2, 1)",
        f"id IN ('{CAPTURED[1].id}', '{CAPTURED[2].id}')",
    )
    discrepancies = recorded.discrepancies()
    if is_signed:
        assert discrepancies == {("reordered", name(1)), ("reordered", name(2))}
    else:
        assert discrepancies == {("reordered", "")}


def test_an_event_that_was_moved_to_another_batch_is_found(recorded: Recorded) -> None:
    recorded.sign()
    recorded.update("recorder = 'r2', batch = 0, position = 10", f"id = '{CAPTURED[1].id}'")
    assert recorded.discrepancies() == {("reordered", name(1))}


def test_exchanged_ids_are_found(recorded: Recorded) -> None:
    recorded.sign()
    recorded.run("CREATE TABLE copy AS events ENGINE = Memory")
    recorded.run(f"INSERT INTO copy SELECT * FROM events WHERE id = '{CAPTURED[5].id}'")
    recorded.run(
        f"ALTER TABLE events DELETE WHERE id = '{CAPTURED[5].id}' SETTINGS mutations_sync = 1"
    )
    recorded.run("INSERT INTO events SELECT * REPLACE('other' AS id) FROM copy")
    assert recorded.discrepancies() == {("changed", name(5))}


def test_forged_marks_of_a_batch_are_found(recorded: Recorded) -> None:
    recorded.sign()
    recorded.update("chain = 'x'", "recorder = 'r1' AND batch = 0")
    assert recorded.verify().discrepancies


# The digests themselves


def three_digests(recorded: Recorded) -> list[Path]:
    paths = recorded.sign()
    for hour in (1, 2):
        store(recorded.history, 20 + 10 * hour, 10, NOW + timedelta(hours=hour))
        paths += recorded.sign(hour)
    assert recorded.discrepancies() == set()
    return paths


def test_openssl_verifies_a_digest(recorded: Recorded, tmp_path: Path) -> None:
    private, public = tmp_path / "k.pem", tmp_path / "k.pub"
    make = ["openssl", "genpkey", "-algorithm", "ed25519", "-out", str(private)]
    subprocess.run(make, check=True, capture_output=True)
    take = ["openssl", "pkey", "-in", str(private), "-pubout", "-out", str(public)]
    subprocess.run(take, check=True, capture_output=True)
    (path,) = sign_history(recorded.history, recorded.folder, read_private_key(private), NOW)
    check = ["openssl", "pkeyutl", "-verify", "-pubin", "-inkey", str(public), "-rawin",
             "-in", str(path), "-sigfile", f"{path}.sig"]  # fmt: skip
    done = subprocess.run(check, check=True, capture_output=True, text=True)
    assert "Verified Successfully" in done.stdout
    assert path.stat().st_mode & 0o777 == 0o600
    verdict = verify_history(recorded.history, recorded.folder, read_public_key(public), None)
    assert (verdict.signed, verdict.discrepancies) == (30, [])


def test_each_hour_has_a_digest_that_names_the_one_before(recorded: Recorded) -> None:
    paths = three_digests(recorded)
    assert [path.name for path in paths] == [
        "000001-2026-11-24T10.json.gz",
        "000002-2026-11-24T11.json.gz",
        "000003-2026-11-24T12.json.gz",
    ]
    first, second, third = read_digests(recorded.folder)
    assert second.decode().previous == first.sha256
    assert third.decode().previous == second.sha256


def test_the_current_hour_can_be_left_unsigned(recorded: Recorded) -> None:
    store(recorded.history, 30, 5, NOW + timedelta(hours=1))
    paths = sign_history(
        recorded.history, recorded.folder, KEY, NOW + timedelta(hours=1), only_past_hours=True
    )
    assert [path.name for path in paths] == ["000001-2026-11-24T10.json.gz"]
    assert recorded.verify().unsigned == 5


def test_a_clock_that_jumps_back_makes_no_older_digest(recorded: Recorded) -> None:
    recorded.sign()
    store(recorded.history, 30, 5, NOW - timedelta(days=3))
    (path,) = recorded.sign()
    assert path.name == "000002-2026-11-24T10.json.gz"
    assert recorded.discrepancies() == set()


def test_an_hour_with_many_events_has_several_digests(
    recorded: Recorded, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(signing, "_MAX_EVENTS", 10)
    monkeypatch.setattr(signing, "_EVENTS_PER_QUERY", 5)
    assert len(recorded.sign()) == 3
    assert (recorded.verify().signed, recorded.discrepancies()) == (30, set())


@pytest.mark.parametrize("number", [0, 1])
def test_a_missing_digest_is_found(recorded: Recorded, number: int) -> None:
    three_digests(recorded)[number].unlink()
    assert ("digest", "") in recorded.discrepancies()


def test_a_changed_digest_is_found(recorded: Recorded) -> None:
    path = three_digests(recorded)[1]
    content = gzip.decompress(path.read_bytes())
    path.write_bytes(gzip.compress(content.replace(b"2026-11-24T11", b"2026-11-24T09"), mtime=0))
    assert ("digest", "") in recorded.discrepancies()
    path.write_bytes(b"\x1f\x8b no gzip")
    assert ("digest", "") in recorded.discrepancies()


def test_a_digest_of_another_key_or_without_signature_is_found(recorded: Recorded) -> None:
    path = three_digests(recorded)[1]
    signature = path.with_name(path.name + ".sig")
    signature.write_bytes(OTHER_KEY.sign(path.read_bytes()))
    assert ("digest", "") in recorded.discrepancies()
    signature.unlink()
    assert ("digest", "") in recorded.discrepancies()
    assert ("digest", "") in recorded.discrepancies(OTHER_KEY)


def test_a_digest_that_was_signed_anew_in_the_middle_is_found(recorded: Recorded) -> None:
    three_digests(recorded)
    second = read_digests(recorded.folder)[1].decode()
    forged = msgspec.structs.replace(second, batches=second.batches[:-1])
    packed = gzip.compress(msgspec.json.encode(forged), mtime=0)
    path = recorded.folder / "000002-2026-11-24T11.json.gz"
    path.write_bytes(packed)
    path.with_name(path.name + ".sig").write_bytes(KEY.sign(packed))
    assert ("digest", "") in recorded.discrepancies()


# Retention


def test_only_a_month_that_retention_dropped_may_be_missing(recorded: Recorded) -> None:
    old = [
        msgspec.structs.replace(event, time=event.time - timedelta(days=90))
        for event in CAPTURED[30:35]
    ]
    recorded.history.events.store([EventRow.from_event(event) for event in old])
    recorded.sign()
    before = NOW - timedelta(days=30)
    month = recorded.history.events.expire(before)
    assert len(month) == 1
    verdict = verify_history(recorded.history, recorded.folder, KEY.public_key(), before)
    assert (verdict.expired, verdict.discrepancies) == (5, [])
    assert len(recorded.verify().discrepancies) == 5


# Keys


@pytest.mark.parametrize("content", ["", "no key", "-----BEGIN PRIVATE KEY-----\nAAAA\n"])
@pytest.mark.parametrize("read", [read_private_key, read_public_key])
def test_a_file_without_a_key_is_refused_with_the_command_that_creates_one(
    tmp_path: Path, content: str, read: Callable[[Path], object]
) -> None:
    path = tmp_path / "key.pem"
    path.write_text(content)
    with pytest.raises(InputError, match="openssl") as caught:
        read(path)
    assert "AAAA" not in str(caught.value)
    with pytest.raises(InputError, match="cannot be read"):
        read(tmp_path / "none.pem")
