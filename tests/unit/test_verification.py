"""What was done to a history since it was recorded is found, and named."""

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
CAPTURED = [event for one in golden() for event in normalise(one.body, "bus", NOW, one.service)]
KEY, OTHER = Ed25519PrivateKey.generate(), Ed25519PrivateKey.generate()


@dataclass
class Place:
    """A history of three batches of two recorders, its digests, and SQL behind stackbus' back."""

    engine: Engine
    history: History
    second: History
    folder: Path

    def run(self, sql: str) -> None:
        self.engine.execute(sql)

    def update(self, what: str, where: str) -> None:
        self.run(f"ALTER TABLE events UPDATE {what} WHERE {where} SETTINGS mutations_sync = 1")

    def sign(self, hours: int = 0) -> list[Path]:
        return sign_history(self.history, self.folder, KEY, NOW + timedelta(hours=hours))

    def verify(self, key: Ed25519PrivateKey | None = KEY) -> Verdict:
        return verify_history(self.history, self.folder, key.public_key() if key else None, None)

    def found(self, key: Ed25519PrivateKey | None = KEY) -> set[tuple[str, str]]:
        return {(one.kind, one.event) for one in self.verify(key).discrepancies}


def stored(history: History, first: int, count: int, received: datetime = NOW) -> None:
    some = CAPTURED[first : first + count]
    events = [msgspec.structs.replace(event, received=received) for event in some]
    history.events.store([EventRow.from_event(event) for event in events])


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    engine = open_engine(f"chdb://{tmp_path}/history")
    history, second = History(engine, Layout(), "r1"), History(engine, Layout(), "r2")
    history.migrate()
    stored(history, 0, 10)
    stored(second, 10, 10)
    stored(history, 20, 10)
    yield Place(engine, history, second, tmp_path / "digests")
    engine.close()


def name(number: int) -> str:
    return f"{CAPTURED[number].id} {CAPTURED[number].index}"


def test_an_untouched_history_is_verified_signed_or_not(place: Place) -> None:
    verdict = place.verify()
    assert (verdict.signed, verdict.unsigned, verdict.discrepancies) == (0, 30, [])
    place.sign()
    stored(place.second, 30, 5)
    verdict = place.verify()
    assert (verdict.signed, verdict.unsigned, verdict.discrepancies) == (30, 5, [])
    place.sign(1)
    assert place.sign(1) == []
    verdict = place.verify()
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


def changed(place: Place, number: int, column: str, value: str) -> None:
    """Change one column of one event; what sorts the table only by taking the row out and in."""
    where = f"id = '{CAPTURED[number].id}' AND index = {CAPTURED[number].index}"
    if column != "time":
        place.update(f"`{column}` = {value}", where)
        return
    place.run("CREATE TABLE copy AS events ENGINE = Memory")
    place.run(f"INSERT INTO copy SELECT * FROM events WHERE {where}")
    place.run(f"ALTER TABLE events DELETE WHERE {where} SETTINGS mutations_sync = 1")
    place.run("INSERT INTO events SELECT * REPLACE(time + 1 AS time) FROM copy")
    place.run("DROP TABLE copy")


@pytest.mark.parametrize("signed", [True, False])
def test_a_change_of_any_column_is_found(place: Place, signed: bool) -> None:
    if signed:
        place.sign()
    for number, column in enumerate(COLUMNS):
        changed(place, number, column, CHANGES.get(column, "'x'"))
        assert ("changed", name(number)) in place.found(), column
    assert place.found() == {("changed", name(number)) for number in range(len(COLUMNS))}


def test_who_forges_the_hashes_too_is_found_by_the_digest(place: Place) -> None:
    place.sign()
    place.update("user_name = 'mallory'", f"id = '{CAPTURED[3].id}'")
    forged = msgspec.structs.replace(CAPTURED[3], user_name="mallory", received=NOW)
    place.update(f"hash = '{EventRow.from_event(forged).hash[:16]}'", f"id = '{CAPTURED[3].id}'")
    assert place.found() == {("changed", name(3))}


@pytest.mark.parametrize("number", [0, 4, 9, 15, 29])
def test_a_removed_event_is_named_once_it_is_signed(place: Place, number: int) -> None:
    place.sign()
    place.run(
        f"ALTER TABLE events DELETE WHERE id = '{CAPTURED[number].id}' SETTINGS mutations_sync = 1"
    )
    assert place.found() == {("removed", name(number))}


@pytest.mark.parametrize("number", [0, 4, 9, 15, 29])
def test_a_removed_event_is_found_before_it_is_signed(place: Place, number: int) -> None:
    place.run(
        f"ALTER TABLE events DELETE WHERE id = '{CAPTURED[number].id}' SETTINGS mutations_sync = 1"
    )
    assert place.verify().discrepancies


def test_a_removed_batch_is_found(place: Place) -> None:
    stored(place.history, 30, 5)
    place.run(
        "ALTER TABLE events DELETE WHERE recorder = 'r1' AND batch = 1 SETTINGS mutations_sync = 1"
    )
    assert [(one.kind, one.message) for one in place.verify().discrepancies] == [
        ("removed", "batches 1 to 1 are missing")
    ]


def test_a_removed_batch_is_named_event_by_event_once_it_is_signed(place: Place) -> None:
    place.sign()
    place.run("ALTER TABLE events DELETE WHERE recorder = 'r2' SETTINGS mutations_sync = 1")
    assert place.found() == {("removed", name(number)) for number in range(10, 20)}


def added(place: Place, values: str, like: int) -> None:
    place.run(
        f"INSERT INTO events SELECT * REPLACE({values}) FROM "
        f"(SELECT * FROM events WHERE id = '{CAPTURED[like].id}' LIMIT 1)"
    )


@pytest.mark.parametrize("signed", [True, False])
@pytest.mark.parametrize(
    "values", ["'forged' AS id", "'forged' AS id, 99 AS position", "'forged' AS id, 10 AS position"]
)
def test_an_added_event_is_found(place: Place, signed: bool, values: str) -> None:
    if signed:
        place.sign()
    added(place, values, 3)
    found = place.verify().discrepancies
    assert found
    if signed:
        assert [(one.kind, one.event) for one in found] == [("added", "forged 0")]


def test_an_added_batch_of_an_old_recorder_is_found(place: Place) -> None:
    place.sign()
    added(place, "'forged' AS id, 7 AS batch", 3)
    assert place.verify().discrepancies
    added(place, "'forged 2' AS id, 'nobody' AS recorder", 3)
    assert "nobody, batch 0" in " ".join(one.place for one in place.verify().discrepancies)


@pytest.mark.parametrize("signed", [True, False])
def test_reordered_events_are_found(place: Place, signed: bool) -> None:
    if signed:
        place.sign()
    place.update(
        f"position = if(id = '{CAPTURED[1].id}', 2, 1)",
        f"id IN ('{CAPTURED[1].id}', '{CAPTURED[2].id}')",
    )
    found = place.found()
    if signed:
        assert found == {("reordered", name(1)), ("reordered", name(2))}
    else:
        assert found == {("reordered", "")}


def test_an_event_that_was_moved_to_another_batch_is_found(place: Place) -> None:
    place.sign()
    place.update("recorder = 'r2', batch = 0, position = 10", f"id = '{CAPTURED[1].id}'")
    assert place.found() == {("reordered", name(1))}


def test_exchanged_ids_are_found(place: Place) -> None:
    place.sign()
    place.run("CREATE TABLE copy AS events ENGINE = Memory")
    place.run(f"INSERT INTO copy SELECT * FROM events WHERE id = '{CAPTURED[5].id}'")
    place.run(
        f"ALTER TABLE events DELETE WHERE id = '{CAPTURED[5].id}' SETTINGS mutations_sync = 1"
    )
    place.run("INSERT INTO events SELECT * REPLACE('other' AS id) FROM copy")
    assert place.found() == {("changed", name(5))}


def test_forged_marks_of_a_batch_are_found(place: Place) -> None:
    place.sign()
    place.update("chain = 'x'", "recorder = 'r1' AND batch = 0")
    assert place.verify().discrepancies


# The digests themselves


def three_digests(place: Place) -> list[Path]:
    made = place.sign()
    for hour in (1, 2):
        stored(place.history, 20 + 10 * hour, 10, NOW + timedelta(hours=hour))
        made += place.sign(hour)
    assert place.found() == set()
    return made


def test_a_digest_is_openssl_s_too(place: Place, tmp_path: Path) -> None:
    private, public = tmp_path / "k.pem", tmp_path / "k.pub"
    make = ["openssl", "genpkey", "-algorithm", "ed25519", "-out", str(private)]
    subprocess.run(make, check=True, capture_output=True)
    take = ["openssl", "pkey", "-in", str(private), "-pubout", "-out", str(public)]
    subprocess.run(take, check=True, capture_output=True)
    (path,) = sign_history(place.history, place.folder, read_private_key(private), NOW)
    check = ["openssl", "pkeyutl", "-verify", "-pubin", "-inkey", str(public), "-rawin",
             "-in", str(path), "-sigfile", f"{path}.sig"]  # fmt: skip
    done = subprocess.run(check, check=True, capture_output=True, text=True)
    assert "Verified Successfully" in done.stdout
    assert path.stat().st_mode & 0o777 == 0o600
    verdict = verify_history(place.history, place.folder, read_public_key(public), None)
    assert (verdict.signed, verdict.discrepancies) == (30, [])


def test_each_hour_has_a_digest_that_names_the_one_before(place: Place) -> None:
    paths = three_digests(place)
    assert [path.name for path in paths] == [
        "000001-2026-11-24T10.json.gz",
        "000002-2026-11-24T11.json.gz",
        "000003-2026-11-24T12.json.gz",
    ]
    first, second, third = read_digests(place.folder)
    assert second.decode().previous == first.sha256
    assert third.decode().previous == second.sha256


def test_the_running_hour_can_wait(place: Place) -> None:
    stored(place.history, 30, 5, NOW + timedelta(hours=1))
    made = sign_history(
        place.history, place.folder, KEY, NOW + timedelta(hours=1), only_past_hours=True
    )
    assert [path.name for path in made] == ["000001-2026-11-24T10.json.gz"]
    assert place.verify().unsigned == 5


def test_a_clock_that_jumps_back_makes_no_older_digest(place: Place) -> None:
    place.sign()
    stored(place.history, 30, 5, NOW - timedelta(days=3))
    (path,) = place.sign()
    assert path.name == "000002-2026-11-24T10.json.gz"
    assert place.found() == set()


def test_a_busy_hour_has_several(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(signing, "_MAX_EVENTS", 10)
    monkeypatch.setattr(signing, "_EVENTS_PER_QUERY", 5)
    assert len(place.sign()) == 3
    assert (place.verify().signed, place.found()) == (30, set())


@pytest.mark.parametrize("which", [0, 1])
def test_a_missing_digest_is_found(place: Place, which: int) -> None:
    three_digests(place)[which].unlink()
    assert ("digest", "") in place.found()


def test_a_changed_digest_is_found(place: Place) -> None:
    path = three_digests(place)[1]
    content = gzip.decompress(path.read_bytes())
    path.write_bytes(gzip.compress(content.replace(b"2026-11-24T11", b"2026-11-24T09"), mtime=0))
    assert ("digest", "") in place.found()
    path.write_bytes(b"\x1f\x8b no gzip")
    assert ("digest", "") in place.found()


def test_a_digest_of_another_key_or_without_signature_is_found(place: Place) -> None:
    path = three_digests(place)[1]
    signature = path.with_name(path.name + ".sig")
    signature.write_bytes(OTHER.sign(path.read_bytes()))
    assert ("digest", "") in place.found()
    signature.unlink()
    assert ("digest", "") in place.found()
    assert ("digest", "") in place.found(OTHER)


def test_a_digest_that_was_signed_anew_in_the_middle_is_found(place: Place) -> None:
    three_digests(place)
    second = read_digests(place.folder)[1].decode()
    forged = msgspec.structs.replace(second, batches=second.batches[:-1])
    packed = gzip.compress(msgspec.json.encode(forged), mtime=0)
    path = place.folder / "000002-2026-11-24T11.json.gz"
    path.write_bytes(packed)
    path.with_name(path.name + ".sig").write_bytes(KEY.sign(packed))
    assert ("digest", "") in place.found()


# Retention


def test_what_retention_dropped_is_no_finding_and_anything_else_is(place: Place) -> None:
    old = [
        msgspec.structs.replace(event, time=event.time - timedelta(days=90))
        for event in CAPTURED[30:35]
    ]
    place.history.events.store([EventRow.from_event(event) for event in old])
    place.sign()
    before = NOW - timedelta(days=30)
    month = place.history.events.expire(before)
    assert len(month) == 1
    verdict = verify_history(place.history, place.folder, KEY.public_key(), before)
    assert (verdict.expired, verdict.discrepancies) == (5, [])
    assert len(place.verify().discrepancies) == 5


# Keys


@pytest.mark.parametrize("content", ["", "no key", "-----BEGIN PRIVATE KEY-----\nAAAA\n"])
@pytest.mark.parametrize("read", [read_private_key, read_public_key])
def test_what_is_no_key_is_refused_with_the_command_that_makes_one(
    tmp_path: Path, content: str, read: Callable[[Path], object]
) -> None:
    path = tmp_path / "key.pem"
    path.write_text(content)
    with pytest.raises(InputError, match="openssl") as caught:
        read(path)
    assert "AAAA" not in str(caught.value)
    with pytest.raises(InputError, match="cannot be read"):
        read(tmp_path / "none.pem")
