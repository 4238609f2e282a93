"""The commands as users and scripts meet them: output, exit codes, clean ends."""

from __future__ import annotations

import base64
import json
import os
import signal
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import yaml
from tests.conftest import (
    Broker,
    Exposed,
    backlog,
    deployment,
    golden,
    publish,
    stackbus,
    wait_until,
)
from tests.relaying import numbered

from stackbus.cli.app import COMMANDS
from stackbus.expose.deployment import Deployment
from stackbus.expose.secrets import NAMESPACE, OWN_NAMESPACE, FolderStore

GOLDEN = golden()


def written(path: Path, wanted: Deployment) -> str:
    path.write_text(yaml.safe_dump(wanted.to_document()))
    return str(path)


def test_a_plan_prints_as_people_know_it_and_as_json(
    bus: Broker, expose: Callable[[Deployment], Exposed], tmp_path: Path
) -> None:
    expose(deployment("a"))
    same = written(tmp_path / "same.yaml", deployment("a"))
    other = written(tmp_path / "other.yaml", deployment("b"))
    assert json.loads(stackbus("plan", "-f", same, "-o", "json", state=bus.state).stdout) == []
    assert "Nothing to do" in stackbus("plan", "-f", same, state=bus.state).stderr
    printed = stackbus("plan", "-f", other, state=bus.state).stdout.splitlines()
    assert "  + exchange openstack-external: b" in printed
    assert "  - user a.g1" in printed
    steps = json.loads(stackbus("plan", "-f", other, "-o", "json", state=bus.state).stdout)
    counts = {sign: sum(line.startswith(f"  {sign} ") for line in printed) for sign in "+~-"}
    assert sum(counts.values()) == len(steps)
    assert printed[-1] == (
        f"Plan: {counts['+']} to add, {counts['~']} to change, {counts['-']} to remove."
    )
    assert {step["action"] for step in steps} == {"create", "delete"}
    assert (
        yaml.safe_load(stackbus("plan", "-f", other, "-o", "yaml", state=bus.state).stdout) == steps
    )


def test_a_plan_shows_no_secret(
    bus: Broker, expose: Callable[[Deployment], Exposed], tmp_path: Path
) -> None:
    exposed = expose(deployment("a"))
    secret = exposed.secret("a")
    store = FolderStore(bus.state / "secrets")
    for namespace in (OWN_NAMESPACE, NAMESPACE):
        store.path(namespace, "openstack-a-notifications").write_text("broken: yes")
    for output in ("table", "json", "yaml"):
        done = stackbus(
            "plan",
            "-f",
            written(tmp_path / "d.yaml", deployment("a")),
            "-o",
            output,
            state=bus.state,
        )
        assert "user" in done.stdout
        assert secret["password"] not in done.stdout + done.stderr
        assert "PRIVATE KEY" not in done.stdout


def test_wrong_input_ends_with_2_and_leaves_everything(
    bus: Broker, expose: Callable[[Deployment], Exposed], tmp_path: Path
) -> None:
    expose(deployment("a"))
    before = bus.management.definitions()
    bad = tmp_path / "bad.yaml"
    bad.write_text("kind: [")
    invalid = tmp_path / "invalid.yaml"
    document = deployment("a").to_document()
    document["kind"] = "Other"
    invalid.write_text(yaml.safe_dump(document))
    for command in (
        ["apply", "-f", str(bad)],
        ["apply", "-f", str(invalid)],
        ["plan", "-f", str(tmp_path / "absent.yaml")],
        ["up", "--detach", "-f", str(bad)],
        ["rotate", "nosuch"],
        ["rotate", "a", "--grace", "soon"],
        ["secret", "nosuch"],
        ["secret", "a", "--key", "nosuch"],
        ["config", "swift"],
        ["tail"],
        ["tail", "a", "--service", "swift"],
        ["tail", "a", "--priority", "loud"],
        ["tail", "--secret", str(bad)],
        ["tail", "--secret", str(tmp_path / "absent.yaml")],
        ["apply", "-f", str(invalid), "--advertise", "no host!"],
        ["nosuchcommand"],
    ):
        done = stackbus(*command, state=bus.state, code=None)
        assert done.returncode == 2, command
        assert done.stderr
        assert not done.stdout
    assert bus.management.definitions() == before


def test_a_broker_that_is_away_ends_with_1(tmp_path: Path) -> None:
    file = written(tmp_path / "d.yaml", deployment("a"))
    environment = {"STACKBUS_MANAGEMENT_PASSWORD": "secret-word"}
    done = stackbus(
        "plan",
        "-f",
        file,
        "--management-url",
        "http://127.0.0.1:1",
        state=tmp_path / "s",
        code=1,
        env=environment,
    )
    assert "does not answer" in done.stderr
    assert "secret-word" not in done.stderr
    done = stackbus(
        "plan", "-f", file, "--management-url", "http://127.0.0.1:1", state=tmp_path / "s", code=2
    )
    assert "STACKBUS_MANAGEMENT_PASSWORD_FILE" in done.stderr


def test_a_setting_that_makes_no_sense_is_named(tmp_path: Path) -> None:
    done = stackbus("status", state=tmp_path, code=2, env={"STACKBUS_RELAY_PREFETCH": "many"})
    assert "STACKBUS_RELAY_PREFETCH" in done.stderr
    done = stackbus(
        "relay",
        state=tmp_path,
        code=2,
        env={"STACKBUS_INNER_URL": "http://x:secret-word@h", "STACKBUS_OUTER_URL": "amqp://h"},
    )
    assert "secret-word" not in done.stderr


def test_a_broker_of_ones_own_is_managed_by_its_url(clean: Broker, tmp_path: Path) -> None:
    """apply, plan, topics, config and tail with --management-url, password from a file."""
    file = written(tmp_path / "d.yaml", deployment("mine"))
    (tmp_path / "password").write_text(clean.description.password + "\n")
    own = {
        "STACKBUS_MANAGEMENT_URL": clean.description.management_url,
        "STACKBUS_MANAGEMENT_PASSWORD_FILE": str(tmp_path / "password"),
    }
    state = tmp_path / "state"
    stackbus(
        "apply",
        "-f",
        file,
        "--advertise",
        "rabbit.example.org",
        "--port-amqp",
        "5672",
        state=state,
        env=own,
    )
    assert json.loads(stackbus("plan", "-f", file, "-o", "json", state=state, env=own).stdout) == []
    assert (
        stackbus("secret", "mine", "--key", "hosts", state=state).stdout == "rabbit.example.org\n"
    )
    assert stackbus("secret", "mine", "--key", "port_amqp", state=state).stdout == "5672\n"
    stackbus("rotate", "mine", "--revoke", state=state, env=own)
    assert (
        stackbus("secret", "mine", "--key", "hosts", state=state).stdout == "rabbit.example.org\n"
    )
    told = json.loads(stackbus("topics", "-o", "json", state=state, env=own).stdout)
    assert [topic["topic"] for topic in told] == ["mine"]
    assert (
        f":{clean.description.ports.amqp}/openstack"
        in stackbus("config", "nova", state=state, env=own).stdout
    )
    stackbus("tail", "mine", "--until-idle", "1s", state=state, env=own)
    assert (
        json.loads(stackbus("status", "-o", "json", state=state, env=own).stdout)["relay"]["state"]
        == "absent"
    )
    assert (state / "tls" / "server.pem").exists()
    stackbus("up", "--detach", state=state, code=2, env=own)


def test_a_secret_prints_as_a_manifest_or_a_value(
    bus: Broker, expose: Callable[[Deployment], Exposed]
) -> None:
    exposed = expose(deployment("a"))
    manifest = yaml.safe_load(stackbus("secret", "a", state=bus.state).stdout)
    assert manifest == json.loads(stackbus("secret", "a", "-o", "json", state=bus.state).stdout)
    assert manifest["metadata"]["name"] == "openstack-a-notifications"
    assert base64.b64decode(manifest["data"]["username"]) == b"a.g1"
    assert (
        stackbus("secret", "a", "--key", "ca_cert", state=bus.state).stdout
        == exposed.secret("a")["ca_cert"]
    )
    table = stackbus("secret", "a", "-o", "table", state=bus.state).stdout
    assert exposed.secret("a")["password"] not in table


def test_topics_are_told_in_a_table_and_as_json(
    bus: Broker, expose: Callable[[Deployment], Exposed]
) -> None:
    expose(deployment("a", "b"))
    publish(bus, GOLDEN[:30])

    def told() -> list[dict[str, object]]:
        value = json.loads(stackbus("topics", "-o", "json", state=bus.state).stdout)
        assert isinstance(value, list)
        return value

    wait_until(lambda: [topic["backlog"] for topic in told()] == [30, 30], 40)
    table = stackbus("topics", state=bus.state).stdout.splitlines()
    assert table[0].split() == ["TOPIC", "QUEUES", "BACKLOG", "CONSUMERS", "DROPPED", "EXPIRES"]
    assert table[1].split()[:5] == ["a", "7", "30", "0", "0"]


def test_two_applies_at_once_are_one_after_the_other(
    bus: Broker, expose: Callable[[Deployment], Exposed], tmp_path: Path
) -> None:
    expose(deployment())
    files = [
        written(tmp_path / f"{n}.yaml", deployment(*(f"t{n}-{m}" for m in range(8))))
        for n in range(4)
    ]
    runs = [
        subprocess.Popen(
            [sys.executable, "-m", "stackbus", "apply", "-f", file, "--state", str(bus.state)],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )
        for file in files
    ]  # fmt: skip
    assert [run.wait(120) for run in runs] == [0] * 4
    plans = [
        json.loads(stackbus("plan", "-f", file, "-o", "json", state=bus.state).stdout)
        for file in files
    ]
    assert sum(plan == [] for plan in plans) == 1, "a mix"


# tail


def tailing(*arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "stackbus", "tail", *arguments],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )  # fmt: skip


def listening(bus: Broker, tails: int) -> bool:
    """Tell whether so many watching tails have bound what they want."""
    bindings = bus.management._json("bindings/openstack-external")
    assert isinstance(bindings, list)
    queues = {one["destination"] for one in bindings if one["source"]}
    return tails == sum(str(one).startswith("amq.gen-") for one in queues)


def sent_once_it_listens(process: subprocess.Popen[str], bus: Broker, count: int = 40) -> None:
    """Publish as soon as the tail surely listens."""
    assert process.stderr is not None
    process.stderr.readline()
    wait_until(lambda: listening(bus, 1), 60)
    publish(bus, GOLDEN[:count])


def test_tail_watches_and_takes_nothing_from_the_consumer(
    bus: Broker, expose: Callable[[Deployment], Exposed]
) -> None:
    exposed = expose(deployment("a"))
    process = tailing("a", "--until-idle", "6s", "--state", str(bus.state))
    sent_once_it_listens(process, bus)
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    lines = out.splitlines()
    assert lines[0].split()[:5] == ["TIME", "PRIORITY", "SERVICE", "PROJECT", "TYPE"]
    assert len(lines) == 41
    told = sum(len(bus.drain("openstack-external", f"a.{word}")) for word in ("info", "error"))
    assert told == 40
    assert exposed.topics == ("a",)


def test_tail_filters_by_everything(bus: Broker, expose: Callable[[Deployment], Exposed]) -> None:
    expose(deployment("a"))
    # The project with most of the captured volumes.
    owners = [one.message()["payload"] for one in GOLDEN if one.service == "cinder"]
    project, _ = Counter(
        str(one["tenant_id"]) for one in owners if isinstance(one, dict) and "tenant_id" in one
    ).most_common(1)[0]
    cases: list[tuple[list[str], Callable[[dict[str, object]], bool]]] = [
        ([], lambda _: True),
        (
            ["--service", "compute", "--service", "cinder", "--priority", "error"],
            lambda one: one["service"] in ("nova", "cinder") and one["priority"] == "error",
        ),
        (
            ["--type", "volume.#", "--type", "*.create.end", "--project", project],
            lambda one: (
                one["project"] == project
                and (
                    str(one["type"]).startswith("volume.")
                    or str(one["type"]).endswith(".create.end")
                )
                and (str(one["type"]).startswith("volume.") or str(one["type"]).count(".") == 2)
            ),
        ),
    ]
    common = ["-o", "json", "--until-idle", "7s", "--state", str(bus.state)]
    processes = [tailing("a", *arguments, *common) for arguments, _ in cases]
    wait_until(lambda: listening(bus, len(cases)), 60)
    publish(bus, GOLDEN)
    told = [
        [json.loads(line) for line in process.communicate(timeout=120)[0].splitlines()]
        for process in processes
    ]
    whole = told[0]
    assert len(whole) == len(GOLDEN)
    for one, (arguments, passes) in zip(told, cases, strict=True):
        assert one == [each for each in whole if passes(each)], arguments
        assert one


WAYS = {
    "certificate": [],
    "password": ["--auth", "password"],
    "plain": ["--plain"],
}


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS.keys())
def test_tail_consumes_as_the_consumer_and_acknowledges_what_it_printed(
    bus: Broker, expose: Callable[[Deployment], Exposed], way: list[str]
) -> None:
    expose(deployment("a"))
    publish(bus, numbered(30))
    path = str(FolderStore(bus.state / "secrets").path(NAMESPACE, "openstack-a-notifications"))
    first = stackbus("tail", "--secret", path, *way, "-n", "10", "-o", "json").stdout.splitlines()
    rest = stackbus(
        "tail", "--secret", path, *way, "--until-idle", "3s", "-o", "json"
    ).stdout.splitlines()
    ids = [json.loads(line)["message_id"][:6] for line in first + rest]
    assert ids == [f"{place:06d}" for place in range(30)]
    told = json.loads(first[0])
    assert told["notification"]["payload"]["adminPass"] == "***"
    assert told["scrubbed"] == ["payload.adminPass"]


def test_tail_as_consumer_gives_back_what_its_filter_leaves_out(
    bus: Broker, expose: Callable[[Deployment], Exposed]
) -> None:
    expose(deployment("a"))
    publish(bus, GOLDEN)
    path = str(FolderStore(bus.state / "secrets").path(NAMESPACE, "openstack-a-notifications"))
    wait_until(lambda: "info" in stackbus("topics", "-o", "json", state=bus.state).stdout)
    shown = stackbus(
        "tail", "--secret", path, "--service", "glance", "--until-idle", "4s", "-o", "json"
    ).stdout
    glance = [one for one in GOLDEN if one.service == "glance"]
    assert len(shown.splitlines()) == len(glance)
    left = sum(len(bus.drain("openstack-external", f"a.{word}")) for word in ("info", "error"))
    assert left == len(GOLDEN) - len(glance)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_tail_ends_cleanly_on_a_signal(
    bus: Broker, expose: Callable[[Deployment], Exposed], number: int
) -> None:
    expose(deployment("a"))
    process = tailing("a", "--state", str(bus.state))
    sent_once_it_listens(process, bus)
    assert process.stdout is not None
    process.stdout.readline()
    process.stdout.readline()
    process.send_signal(number)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 0, err
    assert "Traceback" not in err


def test_tail_ends_cleanly_on_a_closed_pipe(
    bus: Broker, expose: Callable[[Deployment], Exposed]
) -> None:
    expose(deployment("a"))
    publish(bus, numbered(50))
    path = FolderStore(bus.state / "secrets").path(NAMESPACE, "openstack-a-notifications")
    command = (
        f"{sys.executable} -m stackbus tail --secret {path} | head -n 3; echo ${{PIPESTATUS[0]}}"
    )
    done = subprocess.run(
        ["bash", "-c", command], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.stdout.splitlines()[-1] == "0", done.stderr
    assert "Traceback" not in done.stderr
    assert "BrokenPipe" not in done.stderr


def test_tail_on_a_full_disk_says_so_and_acknowledges_nothing_more(
    bus: Broker, expose: Callable[[Deployment], Exposed]
) -> None:
    expose(deployment("a"))
    publish(bus, GOLDEN[:50])
    path = FolderStore(bus.state / "secrets").path(NAMESPACE, "openstack-a-notifications")
    wait_until(lambda: backlog(bus, "a") == 50)
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "stackbus", "tail", "--secret", str(path)],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            timeout=60,
            check=False,
        )
    assert done.returncode == 1
    assert "No space left" in done.stderr
    assert "Traceback" not in done.stderr
    assert "RabbitMQ" not in done.stderr
    left = sum(len(bus.drain("openstack-external", f"a.{word}")) for word in ("info", "error"))
    assert left == 50


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ((), "the broker's Secret is not set"),
        (("--broker-secret", "a"), "'a': expected NAMESPACE/NAME of a Secret"),
        (("--broker-secret", "a/b", "--service-type", "X"), "'X': expected LoadBalancer"),
        (("--broker-secret", "a/b", "--liveness", "x"), "--liveness: 'x' is not ADDRESS:PORT"),
        (("--broker-secret", "a/b", "--metrics", "9"), "--metrics: '9' is not ADDRESS:PORT"),
        (("--broker-secret", "a/b", "--advertise", "a b"), "--advertise: 'a b'"),
    ],
)
def test_what_an_operator_is_told_wrong_is_refused(
    tmp_path: Path, arguments: tuple[str, ...], told: str
) -> None:
    good = tmp_path / "kubeconfig"
    user = {"name": "u", "user": {"token": "hunter2"}}
    good.write_text(yaml.safe_dump(kubeconfig([user])))
    done = stackbus("operator", *arguments, code=2, env={"KUBECONFIG": str(good)})
    assert told in done.stderr


def kubeconfig(users: Sequence[object]) -> dict[str, object]:
    cluster = {"server": "https://127.0.0.1:1"}
    return {
        "current-context": "c",
        "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
        "clusters": [{"name": "c", "cluster": cluster}],
        "users": users,
    }


@pytest.mark.parametrize(
    "text",
    ["", "hunter2", "token: [hunter2", "{current-context: c}", "[]", "\x00", None]
    + [yaml.safe_dump(kubeconfig(users)) for users in ([5], [{"name": "u"}], [{"user": 5}])],
)
def test_a_kubeconfig_that_is_none_is_told_in_a_sentence(tmp_path: Path, text: str | None) -> None:
    path = tmp_path / "kubeconfig"
    if text is not None:
        path.write_text(text)
    done = stackbus("operator", "--broker-secret", "a/b", code=2, env={"KUBECONFIG": str(path)})
    assert "kubeconfig" in done.stderr
    assert "hunter2" not in done.stderr


def test_every_command_has_help_with_an_example() -> None:
    names = [entry.name for entry in COMMANDS if entry.name != "history"]
    done = subprocess.run(
        [sys.executable, "-m", "stackbus", "--help"], capture_output=True, text=True, check=True
    )
    for name in names:
        assert f"  {name} " in done.stdout
    threads = []
    failures: list[str] = []

    def check(name: str) -> None:
        text = subprocess.run(
            [sys.executable, "-m", "stackbus", name, "--help"],
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        if "Example" not in text or ("--state" not in text and name != "demo"):
            failures.append(name)

    for name in names:
        threads.append(threading.Thread(target=check, args=(name,)))
        threads[-1].start()
    for thread in threads:
        thread.join()
    assert failures == []
