"""The record's parts of ``make bench``; ``run.py`` says what each is and prints it.

Notifications are the captured ones, again and again: with a message_id of their own where they
travel, and with every id made anew where it is the size on disk and the questions that count.
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
from tests.recording import GOLDEN, OUTER, Recorded, copies, expose_on, relayed

from stackbus.bus.names import PRIORITIES
from stackbus.events.model import Event
from stackbus.events.normalise import normalise
from stackbus.expose.deployment import Queue, Topic
from stackbus.history.engine import opened
from stackbus.history.history import History, Layout, Prepared
from stackbus.query.audit import Subject, story
from stackbus.query.events import counts, listed
from stackbus.query.filter import Filter

CEILOMETER = ("ceilometer==27.0.0", "setuptools<81")
_SAMPLE = 20_000  # notifications for ceilometer, which takes its time
_STUCK = 60.0  # seconds
_LARGE = Queue("quorum", max_bytes=16 * 1024**3)

Rows = list[tuple[str, ...]]


def exposed(broker: Broker, folder: Path, *topics: str) -> Recorded:
    """Expose topics whose queues hold all that a bench puts in."""
    folder.mkdir(parents=True)
    return expose_on(broker, folder, deployment(*(Topic(one, queue=_LARGE) for one in topics)))


def fill(broker: Broker, topics: tuple[str, ...], count: int) -> int:
    """Publish to topics as the relay does; give the bytes of the bodies."""
    total = 0
    with broker.channel(OUTER) as channel:
        for one, message_id, body in copies(count):
            key, properties = relayed(one, message_id, body)
            for topic in topics:
                channel.basic_publish(topic, key, body, properties)
            total += len(body)
        # An open channel delivers the rest; one that closes may take it along.
        for topic in topics:
            wait_until(partial(_holds, broker, channel, topic, count), 300, f"{topic} is not full")
    return total


def _holds(broker: Broker, channel: BlockingChannel, topic: str, count: int) -> bool:
    channel.connection.process_data_events(0)
    return backlog(broker, topic) >= count


def consumed(broker: Broker, topic: str, count: int) -> float:
    """Consume and acknowledge, nothing else: the rate of a bare pika consumer."""
    began, got = 0.0, 0

    def take(channel: object, method: object, _: object, __: bytes) -> None:
        nonlocal began, got
        began = began or time.perf_counter()
        got += 1
        if got % 500 == 0 or got == count:
            channel.basic_ack(method.delivery_tag, multiple=True)  # type: ignore[attr-defined]

    with broker.channel(OUTER) as channel:
        channel.basic_qos(prefetch_count=2000)
        for word in ("info", "error"):
            channel.basic_consume(f"{topic}.{word}", take)
        while got < count:
            channel.connection.process_data_events(1)
    return count / (time.perf_counter() - began)


@contextmanager
def recorder(topic: Recorded) -> Iterator[tuple[subprocess.Popen[str], Callable[[], float]]]:
    """Run a recorder; give its process, and what tells how many it has stored."""
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


def rate(stored: Callable[[], float], count: int) -> float:
    """Measure the rate at which notifications are stored, from the first tenth to the last."""
    first: tuple[float, float] | None = None
    last, moved = 0.0, time.perf_counter()
    while True:
        now, number = time.perf_counter(), stored()
        if number != last:
            last, moved = number, now
        assert now - moved < _STUCK, f"{number:.0f} of {count} were stored, and no more come"
        if first is None and number >= count * 0.1:
            first = now, number
        if first is not None and number >= count:
            return (number - first[1]) / (now - first[0])
        time.sleep(0.25)


def on_disk(path: Path) -> int:
    """Count the bytes of a history's data."""
    return sum(one.stat().st_size for one in (path / "store").rglob("*") if one.is_file())


def record(broker: Broker, folder: Path, count: int) -> Rows:
    """Give the recorder's rate against a bare consumer's and ceilometer's."""
    topic = exposed(broker, folder, "record", "bare")
    body = fill(broker, ("record", "bare"), count) / count
    bare = consumed(broker, "bare", count)
    with recorder(topic) as (_, stored):
        recorded = rate(stored, count)
    engine = opened(f"chdb://{topic.state}/history")
    wait_until(partial(_is_settled, History(engine, Layout(), "bench")), 300)
    engine.close()
    size = on_disk(topic.state / "history") / count
    rows: Rows = [
        ("a consumer that only acknowledges", f"{bare:,.0f}/s"),
        ("the recorder", f"{recorded:,.0f}/s", f"{recorded / bare:.2f} of it"),
    ]
    ceilometer = _ceilometer(broker, folder)
    rows += [
        ("ceilometer-agent-notification", f"{ceilometer:,.0f}/s"),
        ("the recorder", "", f"{recorded / ceilometer:.1f} times as many"),
        ("on disk, an event", f"{size:.0f} bytes", f"{size / body:.1%} of its {body:.0f}"),
    ]
    return rows


def _ceilometer(broker: Broker, folder: Path) -> float:
    """Measure one worker of ceilometer's agent: events to a file, in batches of 100."""
    venv = Path(".cache/ceilometer").absolute()
    uv = shutil.which("uv") or "uv"
    if not (venv / "bin" / "ceilometer-agent-notification").exists():
        subprocess.run([uv, "venv", "--quiet", "--clear", str(venv)], check=True)
        python = str(venv / "bin" / "python")
        install = [uv, "pip", "install", "--quiet", "--python", python, *CEILOMETER]
        subprocess.run(install, check=True)
    place = folder / "ceilometer"
    place.mkdir()
    output = place / "events.out"
    (place / "events.yaml").write_text(
        "sources: [{name: s, events: ['*'], sinks: [k]}]\n"
        f"sinks: [{{name: k, publishers: ['file://{output}?json']}}]\n"
    )
    description = broker.description
    url = (
        f"rabbit://{description.username}:{description.password}@127.0.0.1:"
        f"{description.ports.amqp}/ceilometer"
    )
    (place / "ceilometer.conf").write_text(
        f"[DEFAULT]\ntransport_url = {url}\nhost = bench\n"
        f"event_pipeline_cfg_file = {place}/events.yaml\n"
        "[notification]\nbatch_size = 100\nbatch_timeout = 1\nworkers = 1\npipelines = event\n"
        f"[oslo_concurrency]\nlock_path = {place}\n"
    )
    broker.management._request("PUT", "vhosts/ceilometer", {})
    with broker.channel("ceilometer") as channel:
        channel.exchange_declare("nova", "topic", durable=False)
        for word in ("info", "error"):
            channel.queue_declare(f"notifications.{word}", durable=False)
            channel.queue_bind(f"notifications.{word}", "nova", f"notifications.{word}")
        for one, _, body in copies(_SAMPLE):
            # All of them where it listens by default: it does not know every service's exchange.
            word = one.routing_key.rpartition(".")[2]
            channel.basic_publish(
                "nova",
                f"notifications.{word}",
                body,
                pika.BasicProperties(content_type="application/json", delivery_mode=2),
            )
    program = str(venv / "bin" / "ceilometer-agent-notification")
    with (place / "log").open("wb") as log:
        process = subprocess.Popen(
            [program, "--config-file", str(place / "ceilometer.conf")],
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        return rate(lambda: _lines(place), _SAMPLE)
    finally:
        os.killpg(process.pid, 15)
        process.wait()
        broker.management._request("DELETE", "vhosts/ceilometer")


def _lines(place: Path) -> float:
    return sum(one.read_bytes().count(b"\n") for one in place.glob("events.out*"))


def search(broker: Broker, folder: Path, *, seconds: int = 30, each_second: int = 1000) -> Rows:
    """Give the time from the topic's exchange to an answer, while so many come each second."""
    topic = exposed(broker, folder, "search")
    sent: dict[str, float] = {}
    found: dict[str, float] = {}
    total = seconds * each_second

    def look() -> None:
        engine = opened(f"chdb://{topic.state}/history")
        since = "2000-01-01 00:00:00"
        end = time.monotonic() + seconds + 60
        while len(found) < total and time.monotonic() < end:
            sql = "SELECT id, toString(received) AS r FROM events WHERE received > {since:String}"
            answer = engine.read(f"{sql} - INTERVAL 3 SECOND", {"since": since})
            now = time.perf_counter()
            for line in answer.splitlines():
                row = json.loads(line)
                if row["id"] in sent:
                    found.setdefault(row["id"], now)
                since = max(since, row["r"])
            time.sleep(0.02)
        engine.close()

    with recorder(topic) as (_, stored):
        wait_until(lambda: _consumers(broker) >= len(PRIORITIES), 30)
        topic.publish(200)  # so that everything is warm
        wait_until(lambda: stored() >= 200, 30)
        looker = threading.Thread(target=look)
        looker.start()
        with broker.channel(OUTER) as channel:
            began = time.perf_counter()
            for number, (one, message_id, body) in enumerate(copies(total)):
                rest = began + number / each_second - time.perf_counter()
                if rest > 0:
                    channel.connection.process_data_events(rest)
                key, properties = relayed(one, message_id, body)
                sent[message_id] = time.perf_counter()
                channel.basic_publish("search", key, body, properties)
        looker.join()
    took = sorted((found[one] - at) * 1000 for one, at in sent.items() if one in found)
    points = statistics.quantiles(took, n=100)
    lost = total - len(took)
    return [
        (f"{each_second}/s for {seconds} s, to an answer", f"p50 {points[49]:.0f} ms",
         f"p99 {points[98]:.0f} ms", f"{lost} not found"),
    ]  # fmt: skip


def _consumers(broker: Broker) -> int:
    return sum(int(str(one.get("consumers", 0))) for one in broker.management.queues(OUTER))


def hoard(broker: Broker, folder: Path, count: int) -> Rows:
    """Give the memory of all of the recorder's processes over a tenth and all of a backlog.

    Its middle says whether it grows with the backlog; its peak is the more, the more often one
    looks, since the engine merges and the storing processes read at the same moment now and then.
    """
    rows: Rows = [("", "in the middle", "at its peak")]
    for number in (count // 10, count):
        topic = exposed(broker, folder / str(number), f"hoard-{number}")
        fill(broker, (topic.topic,), number)
        seen: list[float] = []
        with recorder(topic) as (process, stored):
            while stored() < number:
                seen.append(sum(_resident(pid) for pid in _family(process.pid, topic.state)))
                time.sleep(0.2)
        middle, peak = statistics.median(seen), max(seen)
        rows.append((f"a backlog of {number:,}", f"{middle:.0f} MB", f"{peak:.0f} MB"))
    return rows


def _family(pid: int, state: Path) -> Iterator[int]:
    """Give a recorder's processes: itself, those that store, and the one with the history."""
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            words = (entry / "cmdline").read_bytes()
            parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue
        if int(entry.name) == pid or parent == pid or str(state / "history").encode() in words:
            yield int(entry.name)


def _resident(pid: int) -> float:
    """Give a process' part of the memory in MB, and what it holds in files in memory."""
    try:
        text = Path(f"/proc/{pid}/smaps_rollup").read_text()
        files = [one.stat() for one in Path(f"/proc/{pid}/fd").iterdir() if _is_in_memory(one)]
    except OSError:
        return 0.0
    pages = int(re.search(r"^Pss:\s+(\d+)", text, re.MULTILINE)[1]) * 1024  # type: ignore[index]
    return (pages + sum(one.st_blocks for one in files) * 512) / 1024**2


def _is_in_memory(handle: Path) -> bool:
    try:
        return str(handle.readlink()).startswith("/memfd:")
    except OSError:
        return False  # closed since


# The questions, and how their time grows

_ID = re.compile(rb"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}|\b[0-9a-f]{32}\b")
_USERS, _PROJECTS = 2000, 300


def lives(count: int, days: int = 30) -> Iterator[Event]:
    """Give events as a cloud makes them in a month: every id is new with each round."""
    chance = random.Random(1)
    end = datetime(2026, 11, 1, tzinfo=UTC)
    step = timedelta(days=days) / count
    parts = [(one, _ID.split(one.body), _ID.findall(one.body)) for one in GOLDEN]
    number = 0
    while number < count:
        made: dict[bytes, bytes] = {}
        user = f"{chance.randrange(_USERS):032x}"
        project = f"{0xBEEF << 64 | chance.randrange(_PROJECTS):032x}"
        for one, texts, ids in parts:
            body = texts[0]
            for known, text in zip(ids, texts[1:], strict=True):
                if known not in made:
                    made[known] = b"%032x" % chance.getrandbits(128)
                    if len(known) == 36:
                        new = made[known]
                        made[known] = b"-".join(
                            (new[:8], new[8:12], new[12:16], new[16:20], new[20:])
                        )
                body += made[known] + text
            for event in normalise(body, "bus", end, one.service):
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


def questions(folder: Path, count: int, say: Callable[[str], None]) -> Rows:
    """Give the time of each question with a tenth of the events, and with all of them."""
    engine = opened(f"chdb://{folder}/history")
    history = History(engine, Layout(), "bench")
    history.migrate()
    rows: dict[str, list[float]] = {}
    stored, batch = 0, []
    sample: list[Event] = []
    bodies = 0
    for event in lives(count):
        batch.append(Prepared.of(event))
        bodies += len(batch[-1].line)
        if len(batch) == 10_000 or stored + len(batch) in (count // 10, count):
            history.store(batch, [])
            stored += len(batch)
            sample.append(event)
            batch = []
            if stored in (count // 10, count):
                say(f"asking a history of {stored:,} events")
                wait_until(partial(_is_settled, history), 300)
                for question, took in _asked(history, sample).items():
                    rows.setdefault(question, []).append(took)
    size = on_disk(folder / "history") / stored
    engine.close()
    shown: Rows = [
        (question, *(f"{took * 1000:.0f} ms" for took in took_each))
        for question, took_each in rows.items()
    ]
    return [
        ("", f"{count // 10:,} events", f"{count:,} events"),
        *shown,
        ("on disk, an event all of whose ids are new", "", f"{size:.0f} bytes",
         f"{size / (bodies / stored):.1%} of its JSON"),
    ]  # fmt: skip


def _is_settled(history: History) -> bool:
    """Wait a while, and tell whether the engine has merged what it will, and removed the rest."""
    time.sleep(5)
    sql = "SELECT (SELECT count() FROM system.merges) + countIf(NOT active) AS count "
    sql += "FROM system.parts WHERE table = 'events'"
    return next(history.rows(sql, _Count, {})).count == 0


class _Count(msgspec.Struct):
    count: int


def _asked(history: History, sample: list[Event]) -> dict[str, float]:
    """Ask each question of five events' resources and users; give the median times."""
    chosen = [event for event in sample if event.resource_id and event.user_id][-5:]
    month = Filter(since=datetime(2026, 10, 2, tzinfo=UTC), until=datetime(2026, 11, 1, tzinfo=UTC))

    def day(event: Event) -> Filter:
        begin = event.time.replace(hour=0, minute=0, second=0, microsecond=0)
        return Filter({"user_id": (event.user_id,)}, since=begin, until=begin + timedelta(days=1))

    stories = [
        partial(story, history, Subject(resource=one.resource_id), None, None) for one in chosen
    ]
    days = [partial(_all, history, day(one)) for one in chosen]
    months = [partial(_read, history, month, ["type", "project_id"])] * 3
    return {
        "one resource's story": _median(stories),
        "one user's day": _median(days),
        "a month's counts by type and project": _median(months),
    }


def _read(history: History, wanted: Filter, fields: list[str]) -> None:
    for _ in counts(history, wanted, fields):
        pass


def _all(history: History, wanted: Filter) -> list[Event]:
    return list(listed(history, wanted, payload=False))


def _median(questions: Sequence[Callable[[], object]]) -> float:
    took = []
    for one in questions:
        began = time.perf_counter()
        one()
        took.append(time.perf_counter() - began)
    return statistics.median(took)
