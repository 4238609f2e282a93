"""The commands of the history, as an auditor runs them."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from select import select
from uuid import uuid4

import msgspec
import pytest
from tests.conftest import golden, publish, running, stackbus, wait_until

from stackbus.events.model import FIELDS
from stackbus.events.normalise import normalise
from stackbus.history.batches import EventRow
from stackbus.history.history import History
from stackbus.history.session import Layout, open_engine

NOW = datetime(2026, 1, 1, tzinfo=UTC)
CAPTURED = [
    msgspec.structs.replace(event, region="RegionOne")
    for captured in golden()
    for event in normalise(captured.body, "bus", NOW, captured.service)
]


@pytest.fixture(scope="module")
def state(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a state folder with everything captured in its history."""
    folder = tmp_path_factory.mktemp("history") / "state"
    folder.mkdir()
    engine = open_engine(f"chdb://{folder}/history")
    history = History(engine, Layout(), "r1")
    history.migrate()
    history.events.store([EventRow.from_event(event) for event in CAPTURED])
    engine.close()
    return folder


def test_events_as_json_lines_json_and_csv_are_the_same(state: Path) -> None:
    def printed(form: str) -> str:
        return stackbus("events", "-o", form, "--limit", "0", state=state).stdout

    lines = [json.loads(line) for line in printed("jsonl").splitlines()]
    assert json.loads(printed("json")) == lines
    assert len(lines) == len(CAPTURED)
    assert tuple(lines[0]) == FIELDS
    rows = list(csv.DictReader(io.StringIO(printed("csv"))))
    assert [row["id"] for row in rows] == [line["id"] for line in lines]
    for row, line in zip(rows, lines, strict=True):
        assert json.loads(row["payload"]) == line["payload"]
        assert json.loads(row["attributes"]) == line["attributes"]
        assert row["channels"] == "bus"


def test_a_server_that_is_away_is_one_line_without_its_password(tmp_path: Path) -> None:
    dsn = "clickhouse://reader:s3cret@127.0.0.1:1/audit"
    done = stackbus("events", "--count", "--history", dsn, state=tmp_path, code=1)
    (line,) = done.stderr.splitlines()
    assert line.startswith("stackbus: the history cannot be reached: ")
    assert "s3cret" not in line


def test_the_newest_are_printed_oldest_first_and_counted(state: Path) -> None:
    lines = stackbus("events", "--limit", "5", state=state).stdout.splitlines()
    assert lines[0].split() == ["TIME", "SERVICE", "TYPE", "OUTCOME", "KIND", "RESOURCE", "WHO"]
    times = [line[:19] for line in lines[1:]]
    assert times == sorted(times)
    newest = sorted(event.time for event in CAPTURED)[-5:]
    assert times == [f"{moment:%Y-%m-%d %H:%M:%S}" for moment in newest]
    assert stackbus("events", "--count", state=state).stdout == f"{len(CAPTURED)}\n"
    done = stackbus("events", "--count", "-o", "json", "--service", "nova", state=state)
    assert json.loads(done.stdout) == {"count": sum(e.service == "nova" for e in CAPTURED)}


@pytest.mark.parametrize("field", [name for name in FIELDS if name not in ("attributes", "payload", "channels", "time", "received")])  # fmt: skip
def test_every_field_is_an_option(state: Path, field: str) -> None:
    event = next(one for one in CAPTURED if getattr(one, field) not in ("", None))
    value = str(getattr(event, field))
    option = f"--{field.replace('_', '-')}"
    done = stackbus("events", option, value, "--count", state=state)
    wanted = sum(str(getattr(one, field)) == value for one in CAPTURED)
    assert done.stdout == f"{wanted}\n"


def test_counts_by_a_field_in_every_form(state: Path) -> None:
    wanted: dict[str, int] = {}
    for event in CAPTURED:
        wanted[event.service] = wanted.get(event.service, 0) + 1
    by = ["events", "--count", "--by", "service"]
    rows = json.loads(stackbus(*by, "-o", "json", state=state).stdout)
    assert {row["service"]: row["count"] for row in rows} == wanted
    lines = stackbus(*by, "-o", "jsonl", state=state).stdout.splitlines()
    assert [json.loads(line) for line in lines] == rows
    text = stackbus(*by, "-o", "csv", state=state).stdout
    assert [(row["service"], int(row["count"])) for row in csv.DictReader(io.StringIO(text))] == [
        (row["service"], row["count"]) for row in rows
    ]
    table = stackbus(*by, state=state).stdout.splitlines()
    assert table[0].split() == ["SERVICE", "COUNT"]
    assert dict(line.split() for line in table[1:]) == {k: str(v) for k, v in wanted.items()}


def test_times_are_relative_or_iso(state: Path) -> None:
    day = max(event.time for event in CAPTURED)
    age = (datetime.now(UTC) - day).days
    assert stackbus("events", "--since", f"-{age + 2}d", "--count", state=state).stdout != "0\n"
    assert stackbus("events", "--until", f"-{age + 2}d", "--count", state=state).stdout == "0\n"
    since = f"{day:%Y-%m-%dT%H:%M:%S.%fZ}"
    wanted = sum(event.time >= day for event in CAPTURED)
    assert stackbus("events", "--since", since, "--count", state=state).stdout == f"{wanted}\n"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["events", "--since", "yesterday"], "--since: 'yesterday' is not a time: give -2h"),
        (["events", "--attribute", "vcpus"], "--attribute: 'vcpus' is not NAME=VALUE"),
        (["events", "--follow", "--count"], "--follow and --count cannot be used together"),
        (["events", "--history", "mysql://u:s3cret@h/x"], "the DSN of the history is neither chdb:///"),
        (["events", "--by", "type"], "--by can only be used with --count"),
        (["events", "--count", "--by", "x"], "'x' is not a text field of an event: give one of id, "),
        (["audit"], "give exactly one of RESOURCE, --user, --project and --request"),
        (["audit", "x", "--user", "y"], "give exactly one of RESOURCE"),
        (["coverage", "--channel", "bus"], "--channel can only be used with --missed"),
        (["quarantine", "--body", "ff"], "--body: 0 bodies in quarantine"),
        (["sign"], "no key: give --key FILE, or set STACKBUS_SIGNING_KEY"),
        (["sign", "--key", "/nowhere"], "/nowhere: cannot be read"),
        (["record"], "nothing to record: give --secret FILE, --logs PATH or --opensearch"),
        (["record", "--opensearch", "http://x"], "--opensearch URL and --index PATTERN can only be used together"),
        (["record", "--logs", "/nowhere"], "/nowhere: no such file or folder"),
        (["record", "--secret", "/nowhere"], "/nowhere: cannot be read"),
        (["record", "--secret", "/etc/hostname", "--auth", "kerberos"], "--auth: 'kerberos' is neither"),
        (["record", "--secret", "/etc/hostname", "--until-idle", "x"], "--until-idle: 'x' is not a duration"),
    ],
)  # fmt: skip
def test_bad_input_is_told_with_its_mend(state: Path, arguments: list[str], said: str) -> None:
    done = stackbus(*arguments, state=state, code=2)
    assert said in done.stderr
    assert "s3cret" not in done.stderr


def test_no_secret_of_a_topic_is_an_error(state: Path, tmp_path: Path) -> None:
    path = tmp_path / "secret.yaml"
    for text in ("", "kind: Secret", "[", "kind: Secret\nmetadata: {name: x}\ndata: {a: YQ==}\n"):
        path.write_text(text)
        done = stackbus("record", "--secret", str(path), state=state, code=2)
        assert str(path) in done.stderr


def test_what_comes_is_followed_until_ctrl_c(tmp_path: Path) -> None:
    folder = tmp_path / "state"
    folder.mkdir()
    engine = open_engine(f"chdb://{folder}/history")
    history = History(engine, Layout(), "r1")
    history.migrate()
    command = [sys.executable, "-m", "stackbus", "events", "--follow", "-o", "jsonl"]
    process = subprocess.Popen(
        [*command, "--service", "glance", "--state", str(folder)],
        stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    output = process.stdout
    template = next(event for event in CAPTURED if event.service == "glance")

    def is_following() -> bool:
        marker = msgspec.structs.replace(template, id=str(uuid4()), received=datetime.now(UTC))
        history.events.store([EventRow.from_event(marker)])
        return bool(select([output], [], [], 0.2)[0])

    wait_until(is_following)
    for captured in golden():
        events = normalise(captured.body, "bus", datetime.now(UTC), captured.service)
        if captured.service in {"glance", "heat"}:
            history.events.store([EventRow.from_event(event) for event in events])
    missing = {(event.id, event.index) for event in CAPTURED if event.service == "glance"}
    while missing:
        line = json.loads(output.readline())
        assert line["service"] == "glance"
        missing.discard((line["id"], line["index"]))
    process.send_signal(signal.SIGINT)
    assert process.wait(20) == 0
    engine.close()


def test_a_reader_that_goes_is_no_error(state: Path) -> None:
    done = subprocess.run(
        ["bash", "-c", f"{sys.executable} -m stackbus events -n 0 -o jsonl --state {state} | head -1"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stderr == ""
    assert done.stdout.count("\n") == 1


def test_a_story_says_who_what_and_how_long(state: Path) -> None:
    create = next(
        event for event in CAPTURED
        if event.type == "instance.create.end" and event.outcome == "success" and event.user_name
    )  # fmt: skip
    table = stackbus("audit", create.resource_id, state=state).stdout
    assert table.splitlines()[0].split() == ["TIME", "WHO", "FROM", "WHAT", "RESOURCE", "RESULT", "TOOK"]  # fmt: skip
    assert re.search(rf"{create.user_name} +\S+ +create server .* success +\d+\.\d s", table)
    story = json.loads(stackbus("audit", create.resource_id, "-o", "json", state=state).stdout)
    line = next(one for one in story if create.id in {event["id"] for event in one["events"]})
    assert line["duration"] > 0
    assert (line["action"], line["outcome"], line["user_name"]) == (
        "create",
        "success",
        create.user_name,
    )
    done = stackbus("audit", "nobody has this name", state=state)
    assert "the history has no events of 'nobody has this name'" in done.stderr


def test_a_change_is_found_and_ends_with_1(state: Path, tmp_path: Path) -> None:
    private, public = tmp_path / "k.pem", tmp_path / "k.pub"
    for command in (
        ["genpkey", "-algorithm", "ed25519", "-out", str(private)],
        ["pkey", "-in", str(private), "-pubout", "-out", str(public)],
    ):
        subprocess.run(["openssl", *command], check=True, capture_output=True)
    digests = tmp_path / "digests"
    where = ["--digests", str(digests)]
    done = stackbus("sign", "--key", str(private), *where, state=state)
    assert done.stdout.strip() == str(next(digests.glob("*.json.gz")))
    assert "nothing has been recorded since" in stackbus("sign", "--key", str(private), *where, state=state).stderr  # fmt: skip
    done = stackbus("verify", "--key", str(public), *where, state=state)
    assert f"{len(CAPTURED):,} events are signed by 1 digests" in done.stderr
    done = stackbus("verify", *where, state=state, code=2)
    assert "give the signer's public key" in done.stderr
    engine = open_engine(f"chdb://{state}/history")
    where_is = f"WHERE id = '{CAPTURED[3].id}' SETTINGS mutations_sync = 1"
    engine.execute(f"ALTER TABLE events UPDATE user_name = concat(user_name, 'x') {where_is}")
    try:
        done = stackbus("verify", "--key", str(public), *where, state=state, code=1)
        assert CAPTURED[3].id in done.stdout
        assert done.stdout.splitlines()[1].startswith("changed")
        done = stackbus("verify", "--key", str(public), *where, "-o", "json", state=state, code=1)
        verdict = json.loads(done.stdout)
        assert (verdict["verified"], len(verdict["findings"])) == (False, 1)
    finally:
        engine.execute(f"ALTER TABLE events UPDATE user_name = substring(user_name, 1, length(user_name) - 1) {where_is}")  # fmt: skip
        engine.close()


def test_the_schema_of_a_server_and_of_a_cluster_is_shown(state: Path) -> None:
    done = stackbus("history", "schema", state=state)
    alone, cluster = done.stdout.split("-- A cluster (STACKBUS_HISTORY_CLUSTER=cluster)")
    assert "ENGINE = ReplacingMergeTree()" in alone
    assert "ON CLUSTER 'cluster'" in cluster
    assert "ENGINE = Distributed('cluster'" in cluster


@pytest.fixture
def recorded(tmp_path: Path) -> Iterator[Path]:
    """Give the state folder of a private bus that records."""
    folder = tmp_path / "state"
    stackbus("up", "--record", "--detach", state=folder)
    try:
        yield folder
    finally:
        stackbus("down", state=folder)


def test_a_recorder_beside_the_private_broker_has_a_topic_of_its_own(recorded: Path) -> None:
    status = json.loads(stackbus("status", "-o", "json", state=recorded).stdout)
    assert status["recorded"] is True
    assert status["topics"] == ["stackbus.record"]
    publish(running(recorded), golden())

    def count() -> int:
        return int(stackbus("events", "--count", "--index", "0", state=recorded).stdout)

    wait_until(lambda: count() == len(golden()), 60)
    # A deployment without topics leaves it alone; so do a plan, and the same bus without the flag.
    empty = recorded.parent / "empty.yaml"
    empty.write_text(
        "apiVersion: lcm.mirantis.com/v1alpha1\nkind: OpenStackDeployment\n"
        "metadata: {name: x}\nspec: {}\n"
    )
    assert "Nothing to do" in stackbus("apply", "-f", str(empty), state=recorded).stderr
    done = stackbus("up", "--no-record", "--detach", state=recorded, code=2)
    assert "`stackbus down` first" in done.stderr
    pid = _recorder(recorded)
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: _recorder(recorded) not in (0, pid), 30, "it is started again")
    publish(running(recorded), golden()[:5])
    stackbus("down", state=recorded)
    stackbus("up", "--detach", state=recorded)
    assert json.loads(stackbus("status", "-o", "json", state=recorded).stdout)["recorded"] is True
    stackbus("down", state=recorded)
    stackbus("up", "--no-record", "--detach", state=recorded)
    status = json.loads(stackbus("status", "-o", "json", state=recorded).stdout)
    assert (status["recorded"], status["topics"]) == (False, [])


def _recorder(state: Path) -> int:
    """Give the process id of the recorder, 0 for none."""
    for entry in Path("/proc").iterdir():
        try:
            words = (entry / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if b"record" in words and str(state).encode() in words:
            return int(entry.name)
    return 0
