"""The recorder's parts of ``make bench``: ``run.py`` describes and prints them.

The notifications are copies of captured ones. Each copy has a message_id of its own; for the size
on disk and the questions, every id in it is new.
"""

from __future__ import annotations

import json
import os
import random
import re
import shutil
import socket
import statistics
import subprocess
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

import msgspec
import pika
from pika.adapters.blocking_connection import BlockingChannel
from tests.conftest import Broker, backlog, deployment, wait_until
from tests.recording import GOLDEN, OUTER, Recorded, copies, expose_on, relay_label

from stackbus.bus.names import PRIORITIES
from stackbus.events.model import Event
from stackbus.events.normalise import normalise
from stackbus.expose.deployment import Queue, Topic
from stackbus.history.batches import EventRow
from stackbus.history.history import History
from stackbus.history.session import Layout, open_engine
from stackbus.query.audit import Subject, audit_trail
from stackbus.query.events import count_by, list_events
from stackbus.query.filter import EventFilter

CEILOMETER = ("ceilometer==27.0.0", "setuptools<81")
_SAMPLE = 20_000  # notifications for ceilometer, which is slower
_STUCK_SECONDS = 60.0
_LARGE = Queue("quorum", max_bytes=16 * 1024**3)

Rows = list[tuple[str, ...]]


def expose(broker: Broker, folder: Path, *names: str) -> Recorded:
    """Expose topics whose queues drop nothing of a bench; return the first."""
    folder.mkdir(parents=True)
    return expose_on(broker, folder, deployment(*(Topic(name, queue=_LARGE) for name in names)))


def fill(broker: Broker, topics: tuple[str, ...], count: int) -> int:
    """Publish to topics as the relay does; return the total size of the bodies in bytes."""
    total = 0
    with broker.channel(OUTER) as channel:
        for captured, message_id, body in copies(count):
            key, properties = relay_label(captured, message_id)
            for topic in topics:
                channel.basic_publish(topic, key, body, properties)
            total += len(body)
        # Closing the channel too early may lose the last messages.
        for topic in topics:
            wait_until(
                partial(_holds, broker, channel, topic, count), 300, f"{count} messages in {topic}"
            )
    return total


def _holds(broker: Broker, channel: BlockingChannel, topic: str, count: int) -> bool:
    channel.connection.process_data_events(0)
    return backlog(broker, topic) >= count


def measure_bare_consumer(broker: Broker, topic: str, count: int) -> float:
    """Return the rate of a pika consumer that only acknowledges."""
    began, received = 0.0, 0

    def take(channel: object, method: object, _: object, __: bytes) -> None:
        nonlocal began, received
        began = began or time.perf_counter()
        received += 1
        if received % 500 == 0 or received == count:
            channel.basic_ack(method.delivery_tag, multiple=True)  # type: ignore[attr-defined]

    with broker.channel(OUTER) as channel:
        channel.basic_qos(prefetch_count=2000)
        for word in ("info", "error"):
            channel.basic_consume(f"{topic}.{word}", take)
        while received < count:
            channel.connection.process_data_events(1)
    return count / (time.perf_counter() - began)


@contextmanager
def recorder(topic: Recorded) -> Iterator[tuple[subprocess.Popen[str], Callable[[], float]]]:
    """Run a recorder; yield its process, and a function that returns how many it has stored."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = f"127.0.0.1:{free.getsockname()[1]}"
    process = topic.start("--metrics", address)

    def stored() -> float:
        try:
            text = urllib.request.urlopen(f"http://{address}/metrics", timeout=5).read().decode()
        except OSError:
            return 0.0
        return sum(
            float(line.split()[-1])
            for line in text.splitlines()
            if line.startswith("stackbus_record_stored_total{")
        )

    try:
        yield process, stored
    finally:
        process.terminate()
        process.communicate()


def measure_rate(stored: Callable[[], float], count: int) -> float:
    """Return the rate at which notifications are stored, after the first tenth of them."""
    start: tuple[float, float] | None = None
    previous, moved = 0.0, time.perf_counter()
    while True:
        now, number = time.perf_counter(), stored()
        if number != previous:
            previous, moved = number, now
        assert now - moved < _STUCK_SECONDS, f"stuck: {number:.0f} of {count} are stored"
        if start is None and number >= count * 0.1:
            start = now, number
        if start is not None and number >= count:
            return (number - start[1]) / (now - start[0])
        time.sleep(0.25)


def size_on_disk(path: Path) -> int:
    """Return the size of a history's data in bytes."""
    return sum(file.stat().st_size for file in (path / "store").rglob("*") if file.is_file())


def record(broker: Broker, folder: Path, count: int) -> Rows:
    """Compare the recorder's rate with that of a bare consumer and of ceilometer."""
    topic = expose(broker, folder, "record", "bare")
    body = fill(broker, ("record", "bare"), count) / count
    bare = measure_bare_consumer(broker, "bare", count)
    with recorder(topic) as (_, stored):
        recorded = measure_rate(stored, count)
    engine = open_engine(f"chdb://{topic.state}/history")
    wait_until(partial(_is_settled, History(engine, Layout(), "bench")), 300)
    engine.close()
    size = size_on_disk(topic.state / "history") / count
    rows: Rows = [
        ("a consumer that only acknowledges", f"{bare:,.0f}/s"),
        ("the recorder", f"{recorded:,.0f}/s", f"{recorded / bare:.2f} of it"),
    ]
    ceilometer = _measure_ceilometer(broker, folder)
    rows += [
        ("ceilometer-agent-notification", f"{ceilometer:,.0f}/s"),
        ("the recorder", "", f"{recorded / ceilometer:.1f} times as many"),
        ("on disk, an event", f"{size:.0f} bytes", f"{size / body:.1%} of its {body:.0f}"),
    ]
    return rows


def _measure_ceilometer(broker: Broker, folder: Path) -> float:
    """Return the rate of one worker of ceilometer's agent: events to a file, in batches of 100."""
    venv = Path(".cache/ceilometer").absolute()
    uv = shutil.which("uv") or "uv"
    if not (venv / "bin" / "ceilometer-agent-notification").exists():
        subprocess.run([uv, "venv", "--quiet", "--clear", str(venv)], check=True)
        python = str(venv / "bin" / "python")
        install = [uv, "pip", "install", "--quiet", "--python", python, *CEILOMETER]
        subprocess.run(install, check=True)
    workdir = folder / "ceilometer"
    workdir.mkdir()
    output = workdir / "events.out"
    (workdir / "events.yaml").write_text(
        "sources: [{name: s, events: ['*'], sinks: [k]}]\n"
        f"sinks: [{{name: k, publishers: ['file://{output}?json']}}]\n"
    )
    description = broker.description
    url = (
        f"rabbit://{description.username}:{description.password}@127.0.0.1:"
        f"{description.ports.amqp}/ceilometer"
    )
    (workdir / "ceilometer.conf").write_text(
        f"[DEFAULT]\ntransport_url = {url}\nhost = bench\n"
        f"event_pipeline_cfg_file = {workdir}/events.yaml\n"
        "[notification]\nbatch_size = 100\nbatch_timeout = 1\nworkers = 1\npipelines = event\n"
        f"[oslo_concurrency]\nlock_path = {workdir}\n"
    )
    broker.management._request("PUT", "vhosts/ceilometer", {})
    with broker.channel("ceilometer") as channel:
        channel.exchange_declare("nova", "topic", durable=False)
        for word in ("info", "error"):
            channel.queue_declare(f"notifications.{word}", durable=False)
            channel.queue_bind(f"notifications.{word}", "nova", f"notifications.{word}")
        for captured, _, body in copies(_SAMPLE):
            # Ceilometer does not listen on every service's exchange: publish all to one of them.
            word = captured.routing_key.rpartition(".")[2]
            channel.basic_publish(
                "nova",
                f"notifications.{word}",
                body,
                pika.BasicProperties(content_type="application/json", delivery_mode=2),
            )
    program = str(venv / "bin" / "ceilometer-agent-notification")
    with (workdir / "log").open("wb") as log:
        process = subprocess.Popen(
            [program, "--config-file", str(workdir / "ceilometer.conf")],
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        return measure_rate(lambda: _count_lines(workdir), _SAMPLE)
    finally:
        os.killpg(process.pid, 15)
        process.wait()
        broker.management._request("DELETE", "vhosts/ceilometer")


def _count_lines(folder: Path) -> float:
    return sum(file.read_bytes().count(b"\n") for file in folder.glob("events.out*"))


def search(broker: Broker, folder: Path, *, seconds: int = 30, each_second: int = 1000) -> Rows:
    """Measure the time from a publish to the topic until a query finds the event.

    ``each_second`` notifications are published each second meanwhile.
    """
    topic = expose(broker, folder, "search")
    sent: dict[str, float] = {}
    seen: dict[str, float] = {}
    total = seconds * each_second

    def query() -> None:
        engine = open_engine(f"chdb://{topic.state}/history")
        since = "2000-01-01 00:00:00"
        end = time.monotonic() + seconds + 60
        while len(seen) < total and time.monotonic() < end:
            sql = "SELECT id, toString(received) AS r FROM events WHERE received > {since:String}"
            answer = engine.select(f"{sql} - INTERVAL 3 SECOND", {"since": since})
            now = time.perf_counter()
            for line in answer.splitlines():
                row = json.loads(line)
                if row["id"] in sent:
                    seen.setdefault(row["id"], now)
                since = max(since, row["r"])
            time.sleep(0.02)
        engine.close()

    with recorder(topic) as (_, stored):
        wait_until(lambda: _count_consumers(broker) >= len(PRIORITIES), 30)
        topic.publish(200)  # to warm up
        wait_until(lambda: stored() >= 200, 30)
        reader = threading.Thread(target=query)
        reader.start()
        with broker.channel(OUTER) as channel:
            began = time.perf_counter()
            for number, (captured, message_id, body) in enumerate(copies(total)):
                pause = began + number / each_second - time.perf_counter()
                if pause > 0:
                    channel.connection.process_data_events(pause)
                key, properties = relay_label(captured, message_id)
                sent[message_id] = time.perf_counter()
                channel.basic_publish("search", key, body, properties)
        reader.join()
    milliseconds = sorted(
        (seen[message_id] - time_sent) * 1000
        for message_id, time_sent in sent.items()
        if message_id in seen
    )
    points = statistics.quantiles(milliseconds, n=100)
    lost = total - len(milliseconds)
    return [
        (f"{each_second}/s for {seconds} s, to an answer", f"p50 {points[49]:.0f} ms",
         f"p99 {points[98]:.0f} ms", f"{lost} not found"),
    ]  # fmt: skip


def _count_consumers(broker: Broker) -> int:
    return sum(int(str(queue.get("consumers", 0))) for queue in broker.management.queues(OUTER))


def hoard(broker: Broker, folder: Path, count: int) -> Rows:
    """Measure the memory of all processes of a recorder, over a tenth of a backlog and all of it.

    Compare the medians: they show whether memory grows with the backlog. The peak depends on
    chance: the engine merges parts while both storing processes read.
    """
    rows: Rows = [("", "in the middle", "at its peak")]
    for number in (count // 10, count):
        topic = expose(broker, folder / str(number), f"hoard-{number}")
        fill(broker, (topic.topic,), number)
        samples: list[float] = []
        with recorder(topic) as (process, stored):
            while stored() < number:
                samples.append(_measure_memory(process.pid, topic.state))
                time.sleep(0.2)
        middle, peak = statistics.median(samples), max(samples)
        rows.append((f"a backlog of {number:,}", f"{middle:.0f} MB", f"{peak:.0f} MB"))
    return rows


def _measure_memory(pid: int, state: Path) -> float:
    return sum(_read_memory(process) for process in _list_processes(pid, state))


def _list_processes(pid: int, state: Path) -> Iterator[int]:
    """Yield a recorder's processes: itself, the storing ones, and the one with the history."""
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            command = (entry / "cmdline").read_bytes()
            parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue
        if int(entry.name) == pid or parent == pid or str(state / "history").encode() in command:
            yield int(entry.name)


def _read_memory(pid: int) -> float:
    """Return a process' share of the memory in MB, with its files in memory."""
    try:
        text = Path(f"/proc/{pid}/smaps_rollup").read_text()
        handles = Path(f"/proc/{pid}/fd").iterdir()
        files = [handle.stat() for handle in handles if _is_in_memory(handle)]
    except OSError:
        return 0.0
    pages = int(re.search(r"^Pss:\s+(\d+)", text, re.MULTILINE)[1]) * 1024  # type: ignore[index]
    return (pages + sum(file.st_blocks for file in files) * 512) / 1024**2


def _is_in_memory(handle: Path) -> bool:
    try:
        return str(handle.readlink()).startswith("/memfd:")
    except OSError:
        return False  # closed meanwhile


# The auditors' questions, and how their time grows with the history

_ID = re.compile(rb"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}|\b[0-9a-f]{32}\b")
_USERS, _PROJECTS = 2000, 300


def simulate_month(count: int, days: int = 30) -> Iterator[Event]:
    """Yield events as a cloud makes them in a month: every id is new in each round."""
    chance = random.Random(1)
    end = datetime(2026, 11, 1, tzinfo=UTC)
    step = timedelta(days=days) / count
    templates = [
        (captured.service, _ID.split(captured.body), _ID.findall(captured.body))
        for captured in GOLDEN
    ]
    number = 0
    while number < count:
        new_ids: dict[bytes, bytes] = {}
        user = f"{chance.randrange(_USERS):032x}"
        project = f"{0xBEEF << 64 | chance.randrange(_PROJECTS):032x}"
        for service, texts, ids in templates:
            body = texts[0]
            for old, text in zip(ids, texts[1:], strict=True):
                if old not in new_ids:
                    new_ids[old] = _make_id(chance, with_dashes=len(old) == 36)
                body += new_ids[old] + text
            for event in normalise(body, "bus", end, service):
                moment = end - timedelta(days=days) + number * step
                yield msgspec.structs.replace(
                    event,
                    id=str(event.id) if event.index == 0 else event.id,
                    time=moment,
                    received=moment,
                    user_id=user,
                    project_id=project,
                )
                number += 1
                if number >= count:
                    return


def _make_id(chance: random.Random, *, with_dashes: bool) -> bytes:
    digits = b"%032x" % chance.getrandbits(128)
    if not with_dashes:
        return digits
    return b"-".join((digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:]))


def questions(folder: Path, count: int, say: Callable[[str], None]) -> Rows:
    """Measure the time of each question over a tenth of the events, and over all of them."""
    engine = open_engine(f"chdb://{folder}/history")
    history = History(engine, Layout(), "bench")
    history.migrate()
    rows: dict[str, list[float]] = {}
    stored, batch = 0, []
    sample: list[Event] = []
    bodies = 0
    for event in simulate_month(count):
        batch.append(EventRow.from_event(event))
        bodies += len(batch[-1].line)
        if len(batch) == 10_000 or stored + len(batch) in (count // 10, count):
            history.events.store(batch)
            stored += len(batch)
            sample.append(event)
            batch = []
            if stored in (count // 10, count):
                say(f"asking a history of {stored:,} events")
                wait_until(partial(_is_settled, history), 300)
                for question, seconds in _measure_questions(history, sample).items():
                    rows.setdefault(question, []).append(seconds)
    size = size_on_disk(folder / "history") / stored
    engine.close()
    shown: Rows = [
        (question, *(f"{seconds * 1000:.0f} ms" for seconds in row))
        for question, row in rows.items()
    ]
    return [
        ("", f"{count // 10:,} events", f"{count:,} events"),
        *shown,
        ("on disk, an event with new ids", "", f"{size:.0f} bytes",
         f"{size / (bodies / stored):.1%} of its JSON"),
    ]  # fmt: skip


def _is_settled(history: History) -> bool:
    """Wait a while; return whether the engine has merged all parts and removed the old ones."""
    time.sleep(5)
    sql = "SELECT (SELECT count() FROM system.merges) + countIf(NOT active) AS count "
    sql += "FROM system.parts WHERE table = 'events'"
    return next(history.session.select(sql, _Count, {})).count == 0


class _Count(msgspec.Struct):
    count: int


def _measure_questions(history: History, sample: list[Event]) -> dict[str, float]:
    """Ask about the resources and users of five events; return the median time by question."""
    subjects = [event for event in sample if event.resource_id and event.user_id][-5:]
    month = EventFilter(
        since=datetime(2026, 10, 2, tzinfo=UTC), until=datetime(2026, 11, 1, tzinfo=UTC)
    )

    def day(event: Event) -> EventFilter:
        begin = event.time.replace(hour=0, minute=0, second=0, microsecond=0)
        return EventFilter(
            {"user_id": (event.user_id,)}, since=begin, until=begin + timedelta(days=1)
        )

    stories = [
        partial(audit_trail, history, Subject(resource=event.resource_id), None, None)
        for event in subjects
    ]
    days = [partial(_list_events, history, day(event)) for event in subjects]
    months = [partial(_count_events, history, month, ["type", "project_id"])] * 3
    return {
        "one resource's story": _median(stories),
        "one user's day": _median(days),
        "a month's counts by type and project": _median(months),
    }


def _count_events(history: History, condition: EventFilter, fields: list[str]) -> None:
    for _ in count_by(history, condition, fields):
        pass


def _list_events(history: History, condition: EventFilter) -> list[Event]:
    return list(list_events(history, condition, with_payload=False))


def _median(questions: Sequence[Callable[[], object]]) -> float:
    seconds = []
    for ask in questions:
        began = time.perf_counter()
        ask()
        seconds.append(time.perf_counter() - began)
    return statistics.median(seconds)
