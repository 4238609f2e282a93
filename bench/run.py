"""Speed, as ratios within one run: ``make bench``, or one part: ``python bench/run.py relay``.

Absolute figures depend on the machine more than on stackbus, so each is printed beside a peer or a
limit that ran on the same broker minutes before. No result fails a build. ``scripts/benchmarks.py``
pastes the printed tables into docs/benchmarks.md.

    start      CPU time of `stackbus --help` and `topics`, against kubectl and openstack
    apply      100 topics by one definitions call, against one HTTP call for each object
    relay      the relay against RabbitMQ's shovel, which moves the same messages unread
    latency    from a service's publish to the consumer, at 500 a second
    backlog    memory of the relay over a long backlog (--backlog, default 100000)
    exposure   confirmed publishes of a service with 0, 1, 5 and 20 topics
    operator   from a change of the resource to a consumer's first message; 100 topics; idle load
    record     the recorder against a consumer that only acknowledges, and against one worker of
               ceilometer-agent-notification, on the same broker and messages; bytes on disk
    search     from a topic's exchange to an answer of the history, at 1,000 a second
    hoard      memory of the recorder over a backlog (--backlog) and over a tenth of it
    questions  the three questions of auditors with --events (default 5,000,000) and with a tenth
"""

from __future__ import annotations

import argparse
import base64
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

import pika
import pika.exceptions
from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).parent.parent))

from bench import record, start
from tests.conftest import Broker, deployment, exposure, golden, node_at, wait_until, wipe
from tests.kubernetes.conftest import Cloud, emulated_cloud, resource

from stackbus.expose.apply import Exposure
from stackbus.expose.deployment import NOTHING
from stackbus.expose.kinds import kind_of
from stackbus.expose.kinds.kind import ItemKey

INNER, OUTER = "openstack", "openstack-external"
GOLDEN = golden()
console = Console(width=100)


def say(sentence: str) -> None:
    """Print the current step."""
    console.print(sentence, style="dim")


def show(title: str, rows: Sequence[tuple[str, ...]]) -> None:
    """Print the figures of one part."""
    table = Table(title=title, title_justify="left", show_header=False, box=None)
    for row in rows:
        table.add_row(*row)
    console.print(table, "")


@contextmanager
def node(folder: Path) -> Iterator[Broker]:
    """Run a private node with the shovel plugin."""
    with node_at(folder, ",rabbitmq_shovel,rabbitmq_shovel_management") as broker:
        yield broker


def apply(control: Exposure, *topics: str) -> None:
    """Expose these topics."""
    control.apply(control.plan(deployment(*topics)))


def messages(broker: Broker, vhost: str, queue: str) -> int:
    """Return the number of ready messages in a queue."""
    with broker.channel(vhost) as channel:
        return int(channel.queue_declare(queue, passive=True).method.message_count)


def fill(broker: Broker, count: int) -> None:
    """Publish captured notifications to their control exchanges."""
    properties = pika.BasicProperties(
        delivery_mode=2, content_type="application/json", content_encoding="utf-8"
    )
    with broker.channel(INNER) as channel:
        for index in range(count):
            captured = GOLDEN[index % len(GOLDEN)]
            channel.basic_publish(
                captured.exchange, captured.routing_key, captured.body, properties
            )
    wait_until(lambda: messages(broker, INNER, "stackbus.intake") >= count, 120)


@contextmanager
def relay(control: Exposure, broker: Broker) -> Iterator[subprocess.Popen[bytes]]:
    """Run a relay in a process of its own."""
    credentials = control.plan(NOTHING).credentials
    assert credentials is not None
    password = credentials.own_passwords["stackbus.relay"]
    port = broker.description.ports.amqp
    url = f"amqp://stackbus.relay:{quote(password)}@127.0.0.1:{port}/"
    process = subprocess.Popen(
        [sys.executable, "-m", "stackbus", "relay", "--state", str(broker.state / "relay")],
        env={**os.environ, "STACKBUS_INNER_URL": url + INNER, "STACKBUS_OUTER_URL": url + OUTER},
        stderr=subprocess.DEVNULL,
    )
    try:
        yield process
    finally:
        process.terminate()
        process.wait()


def resident(pid: int, word: str = "VmRSS") -> float:
    """Return the memory of a process in MB."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(word):
            return int(line.split()[1]) / 1024
    return 0.0


def measure_drain(broker: Broker, count: int) -> float:
    """Return the rate at which the intake empties, between its first and its last tenth."""
    start: tuple[float, int] | None = None
    with broker.channel(INNER) as channel:
        while True:
            left = channel.queue_declare("stackbus.intake", passive=True).method.message_count
            now = time.perf_counter()
            if start is None and left <= count * 0.9:
                start = (now, left)
            if start is not None and left <= count * 0.1:
                return float((start[1] - left) / (now - start[0]))
            time.sleep(0.05)


def bench_start(broker: Broker) -> None:
    """Measure the start of the command line, with two topics on the broker."""
    control = exposure(broker, broker.state / "own" / "secrets")
    apply(control, "a", "b")
    environment = _own_broker(broker)
    show("start: CPU time of a command, median of 10 runs", start.start(environment))
    apply(control)


def _own_broker(broker: Broker) -> dict[str, str]:
    """Return the settings by which a command uses ``broker`` as the user's own."""
    password_file = broker.state / "password"
    password_file.write_text(broker.description.password)
    return {
        "STACKBUS_STATE": str(broker.state / "own"),
        "STACKBUS_MANAGEMENT_URL": broker.description.management_url,
        "STACKBUS_MANAGEMENT_PASSWORD_FILE": str(password_file),
    }


def bench_apply(broker: Broker, control: Exposure) -> None:
    """Compare one definitions request with one request for each object."""
    topics = [f"t{number:03d}" for number in range(100)]
    apply(control)
    plan = control.plan(deployment(*topics))
    begin = time.perf_counter()
    control.apply(plan)
    together = time.perf_counter() - begin
    begin = time.perf_counter()
    unchanged = control.plan(deployment(*topics))
    idle = time.perf_counter() - begin
    assert not unchanged
    control.apply(control.plan(NOTHING))
    queues = [
        {"vhost": step.key[1], "name": step.key[2], **step.body}
        for step in plan.steps
        if step.kind == "queue"
    ]
    begin = time.perf_counter()
    broker.management.import_definitions({"queues": queues})
    floor = time.perf_counter() - begin
    for step in plan.steps:
        if step.kind == "queue":
            kind_of(step.key).delete(broker.management, step.key)
    begin = time.perf_counter()
    _apply_one_by_one(broker, [(step.key, dict(step.body)) for step in plan.steps])
    singly = time.perf_counter() - begin
    control.apply(control.plan(deployment()))
    for step in reversed(plan.steps):
        if step.kind not in ("vhost", "secret", "permission", "binding"):
            kind_of(step.key).delete(broker.management, step.key)
    file = broker.state / "hundred.json"
    file.write_text(json.dumps(deployment(*topics).to_document()))
    code = (
        "import resource, sys; from stackbus.cli.app import app\n"
        "try: app()\nexcept SystemExit: pass\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, file=sys.stderr)"
    )
    result = subprocess.run(
        [
            sys.executable,
            "-c",
            code,
            "apply",
            "-f",
            str(file),
            "--state",
            str(broker.state / "own"),
        ],
        env={**os.environ, **_own_broker(broker)},
        capture_output=True,
        text=True,
        check=True,
    )
    peak = int(result.stderr.split()[-1]) / 1024
    control.apply(control.plan(NOTHING))
    show(
        "apply: 100 topics, 700 queues",
        [
            ("one definitions request", f"{together:.1f} s"),
            ("one HTTP request for each object", f"{singly:.1f} s"),
            (f"RabbitMQ's share: {len(queues)} quorum queues alone", f"{floor:.1f} s"),
            ("ratio", f"{singly / together:.1f} times as fast (target: 5)"),
            ("a plan without changes", f"{idle:.2f} s (target: under 1)"),
            ("peak memory of `stackbus apply`", f"{peak:.0f} MB (target: under 150)"),
        ],
    )


def _apply_one_by_one(broker: Broker, items: list[tuple[ItemKey, dict[str, object]]]) -> None:
    request = broker.management._request
    for key, body in items:
        match key:
            case ("user", name):
                request("PUT", f"users/{name}", {"password": "x", "tags": "stackbus"})
                limits = body.get("limits")
                for limit, value in limits.items() if isinstance(limits, dict) else ():
                    request("PUT", f"user-limits/{name}/{limit}", {"value": value})
            case ("permission", user, vhost):
                request("PUT", f"permissions/{vhost}/{user}", body)
            case ("policy", vhost, name):
                request("PUT", f"policies/{vhost}/{name}", body)
            case ("exchange" | "control exchange", vhost, name):
                request("PUT", f"exchanges/{vhost}/{name}", body)
            case ("queue", vhost, name):
                request("PUT", f"queues/{vhost}/{name}", body)
            case ("binding", vhost, source, kind, destination, routing_key, _):
                path = f"bindings/{vhost}/e/{source}/{kind[0]}/{destination}"
                request("POST", path, {"routing_key": routing_key, "arguments": {}})
            case _:
                pass


def bench_relay(broker: Broker, control: Exposure, count: int = 40_000) -> None:
    """Compare the relay with the shovel: the same queue, exchange and confirms."""
    apply(control)
    fill(broker, count)
    with relay(control, broker):
        relay_rate = measure_drain(broker, count)
        wait_until(lambda: messages(broker, INNER, "stackbus.intake") == 0, 60)
    fill(broker, count)
    description = broker.description
    uri = (
        f"amqp://{description.username}:{description.password}@127.0.0.1:{description.ports.amqp}/"
    )
    broker.allow(OUTER)
    shovel = {
        "src-protocol": "amqp091",
        "src-uri": uri + INNER,
        "src-queue": "stackbus.intake",
        "src-prefetch-count": 500,
        "dest-protocol": "amqp091",
        "dest-uri": uri + OUTER,
        "dest-exchange": "stackbus",
        "ack-mode": "on-confirm",
    }
    path = f"parameters/shovel/{INNER}/bench"
    broker.management._request("PUT", path, {"value": shovel})
    shovel_rate = measure_drain(broker, count)
    wait_until(lambda: messages(broker, INNER, "stackbus.intake") == 0, 60)
    broker.management._request("DELETE", path)
    show(
        f"relay: {count} captured notifications, one core",
        [
            ("the relay, with scrubbing and labels", f"{relay_rate:.0f} a second"),
            ("RabbitMQ's shovel", f"{shovel_rate:.0f} a second"),
            (
                "ratio",
                f"{relay_rate / shovel_rate:.2f} of the shovel's rate (target: 0.35, goal: 0.5)",
            ),
        ],
    )


def bench_latency(broker: Broker, control: Exposure, seconds: int = 20, rate: int = 500) -> None:
    """Measure the time from publish to consumer at a steady rate."""
    apply(control, "latency")
    bodies = (
        captured.body
        for captured in GOLDEN
        if captured.routing_key == "versioned_notifications.info"
    )
    body = next(bodies)
    latencies: list[float] = []
    sent: dict[str, float] = {}
    stop = threading.Event()

    def consume() -> None:
        connection = broker.connect(OUTER)
        channel = connection.channel()
        channel.basic_qos(prefetch_count=500)

        def receive(ch: object, method: object, properties: pika.BasicProperties, _: bytes) -> None:
            latencies.append(time.perf_counter() - sent[str(properties.message_id)])
            channel.basic_ack(method.delivery_tag)  # type: ignore[attr-defined]
            del ch

        channel.basic_consume("latency.info", receive)
        while not stop.is_set():
            connection.process_data_events(0.2)
        connection.close()

    broker.allow(OUTER)
    with relay(control, broker):
        time.sleep(5)
        consumer = threading.Thread(target=consume)
        consumer.start()
        identifier = json.loads(json.loads(body)["oslo.message"])["message_id"]
        with broker.channel(INNER) as channel:
            begin = time.perf_counter()
            for index in range(rate * seconds):
                wait = begin + index / rate - time.perf_counter()
                if wait > 0:
                    time.sleep(wait)
                name = f"{index:036d}"
                sent[name] = time.perf_counter()
                numbered_body = body.replace(identifier.encode(), name.encode())
                channel.basic_publish("nova", "versioned_notifications.info", numbered_body)
        time.sleep(2)
        stop.set()
        consumer.join()
    marks = statistics.quantiles(latencies, n=100)
    show(
        f"latency: publish to consumer, {rate} a second for {seconds} s, {len(latencies)} arrived",
        [
            ("p50", f"{marks[49] * 1000:.1f} ms (target: under 5)"),
            ("p99", f"{marks[98] * 1000:.1f} ms (target: under 30)"),
        ],
    )
    apply(control)


def bench_backlog(broker: Broker, control: Exposure, count: int) -> None:
    """Measure the relay's memory over a long backlog."""
    apply(control)
    fill(broker, count)
    with relay(control, broker) as process:
        samples: list[tuple[int, float]] = []
        while (left := messages(broker, INNER, "stackbus.intake")) > 0:
            samples.append((left, resident(process.pid)))
            time.sleep(0.5)
        peak = resident(process.pid, "VmHWM")
    early = next(memory for left, memory in samples if left < count * 0.9)
    show(
        f"backlog: {count} notifications",
        [
            ("memory after a tenth", f"{early:.0f} MB"),
            ("memory at the end", f"{samples[-1][1]:.0f} MB"),
            ("peak memory", f"{peak:.0f} MB"),
        ],
    )


def bench_exposure(broker: Broker, control: Exposure, count: int = 3000) -> None:
    """Measure confirmed publishes of one service, one after the other as oslo.messaging does."""
    rows = []
    base = 0.0
    captured = next(captured for captured in GOLDEN if captured.service == "nova")
    for topics in (0, 1, 5, 20):
        names = [f"e{number}" for number in range(topics)]
        apply(control, *names)
        with broker.channel(INNER) as channel:
            channel.confirm_delivery()
            begin = time.perf_counter()
            for _ in range(count):
                channel.basic_publish("nova", "notifications.info", captured.body)
            rate = count / (time.perf_counter() - begin)
            channel.queue_purge("stackbus.intake")
            for name in names:
                channel.queue_declare(f"{name}.info", durable=True)
                channel.queue_bind(f"{name}.info", "nova", f"{name}.info")
            begin = time.perf_counter()
            for _ in range(count // max(1, topics)):
                for name in names:
                    channel.basic_publish("nova", f"{name}.info", captured.body)
            spent = time.perf_counter() - begin
            for name in names:
                channel.queue_delete(f"{name}.info")
        base = base or rate
        per_topic = (
            f"one publish for each: {count // topics / spent:.0f} a second" if topics else ""
        )
        rows.append(
            (
                f"{topics} topics",
                f"{rate:.0f} a second ({rate / base:.2f} of the rate without topics)",
                per_topic,
            )
        )
    show("exposure: confirmed publishes of a service into its control exchange", rows)
    apply(control)


def bench_operator(broker: Broker, count: int = 100) -> None:
    """Measure the operator: a new topic to its first message, many topics, and the idle load."""
    wipe(broker)
    folder = broker.state / "kubernetes"
    folder.mkdir()
    with emulated_cloud(broker, folder) as cloud:
        document = resource("first", settings={})
        cloud.create(document)
        cloud.start("--advertise", "127.0.0.1", STACKBUS_RESYNC="60")
        cloud.wait_for("Ready", "True", "Exposed")
        delays = [_first_message(cloud, f"topic-{index}") for index in range(5)]

        topics = [f"consumer-{index:03}" for index in range(count)]
        begin = time.monotonic()
        cloud.set_external(topics=topics, settings=None)
        cloud.wait_for("Ready", "True", "Exposed", seconds=120)
        operator_time = time.monotonic() - begin
        assert len(cloud.names("Secret", OUTER)) == count

        pid = cloud.processes[0].pid
        time.sleep(5)
        before, begin = _cpu(pid), time.monotonic()
        time.sleep(185)  # three resyncs
        share = (_cpu(pid) - before) / (time.monotonic() - begin)
        memory, peak = resident(pid), resident(pid, "VmHWM")
        cloud.end()
    wipe(broker)
    control = exposure(broker, folder / "peer")
    begin = time.monotonic()
    control.apply(control.plan(deployment(*topics)))
    apply_time = time.monotonic() - begin
    show(
        "operator",
        [
            (
                "a new topic, to its consumer's first message",
                f"median {statistics.median(delays):.2f} s, maximum {max(delays):.2f} s",
            ),
            (f"{count} topics in one resource", f"{operator_time:.1f} s"),
            (
                "the same by `stackbus apply`",
                f"{apply_time:.1f} s (ratio {operator_time / apply_time:.2f})",
            ),
            (
                f"idle with {count} topics",
                f"{share:.2%} of a core, {memory:.0f} MB (peak {peak:.0f})",
            ),
        ],
    )


def _first_message(cloud: Cloud, topic: str) -> float:
    """Add a topic while Nova publishes; return the seconds to its consumer's first message."""
    credentials = cloud.get("Secret", "stackbus", "stackbus-relay")
    assert credentials is not None
    urls = {
        key: base64.b64decode(credentials["data"][key]).decode()
        for key in ("inner_url", "outer_url")
    }
    relay = subprocess.Popen(
        [sys.executable, "-m", "stackbus", "relay"],
        env={
            **os.environ,
            "STACKBUS_INNER_URL": urls["inner_url"],
            "STACKBUS_OUTER_URL": urls["outer_url"],
        },
        stderr=subprocess.DEVNULL,
    )
    sending = threading.Event()
    nova = next(captured for captured in GOLDEN if captured.service == "nova")

    def send() -> None:
        with cloud.broker.channel(INNER) as channel:
            while not sending.wait(0.01):
                channel.basic_publish(nova.exchange, nova.routing_key, nova.body)

    sender = threading.Thread(target=send)
    sender.start()
    try:
        wait_until(lambda: messages(cloud.broker, INNER, "stackbus.intake") == 0, 30)
        time.sleep(2)
        begin = time.monotonic()
        cloud.set_external(topics=["first", topic], settings=None)
        while (secret := cloud.secret(topic)) is None:
            time.sleep(0.01)
        queue = f"{topic}.{nova.routing_key.rpartition('.')[2]}"
        while not _has_message(cloud.broker, secret, queue):
            time.sleep(0.01)  # the Secret comes before the user, the user before the queue
        return time.monotonic() - begin
    finally:
        sending.set()
        sender.join()
        relay.terminate()
        relay.wait()


def _has_message(broker: Broker, secret: Mapping[str, str], queue: str) -> bool:
    try:
        connection = broker.connect(secret["vhost"], secret["username"], secret["password"])
        try:
            return connection.channel().basic_get(queue, auto_ack=True)[0] is not None
        finally:
            connection.close()
    except pika.exceptions.AMQPError:
        return False


def _cpu(pid: int) -> float:
    """Return the CPU time of a process in seconds."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def main() -> None:
    """Run the parts given on the command line, or all."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("parts", nargs="*", help="the parts to run (default: all)")
    parser.add_argument("--backlog", type=int, default=100_000)
    parser.add_argument("--messages", type=int, default=300_000, help="of the part record")
    parser.add_argument("--events", type=int, default=5_000_000, help="of the part questions")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, node(Path(folder)) as broker:
        control = exposure(broker, broker.state / "store")
        parts = {
            "start": lambda: bench_start(broker),
            "apply": lambda: bench_apply(broker, control),
            "relay": lambda: bench_relay(broker, control),
            "latency": lambda: bench_latency(broker, control),
            "backlog": lambda: bench_backlog(broker, control, arguments.backlog),
            "exposure": lambda: bench_exposure(broker, control),
            "operator": lambda: bench_operator(broker),
            "record": lambda: show(
                "record", record.record(broker, broker.state / "record", arguments.messages)
            ),
            "search": lambda: show("search", record.search(broker, broker.state / "search")),
            "hoard": lambda: show(
                "hoard", record.hoard(broker, broker.state / "hoard", arguments.backlog)
            ),
            "questions": lambda: show(
                "questions", record.questions(broker.state / "questions", arguments.events, say)
            ),
        }
        for name in arguments.parts or parts:
            parts[name]()


if __name__ == "__main__":
    main()
