"""Questions to the history, on the embedded engine: filters, order, limits, what comes, coverage."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import msgspec
import pytest
from tests.conftest import golden

from stackbus.errors import InputError
from stackbus.events.model import TEXT_FIELDS, Event
from stackbus.events.normalise import normalise
from stackbus.history.batches import EventRow
from stackbus.history.history import History
from stackbus.history.session import Layout, open_engine
from stackbus.query import coverage as covering
from stackbus.query import events as asking
from stackbus.query.events import count_events, follow_events, list_events
from stackbus.query.filter import EventFilter, parse_time

NOW = datetime(2026, 11, 24, tzinfo=UTC)
CAPTURED = [event for one in golden() for event in normalise(one.body, "bus", NOW, one.service)]


@pytest.fixture(scope="module")
def history(tmp_path_factory: pytest.TempPathFactory) -> Iterator[History]:
    """Give a history of everything captured, which no test of this file changes."""
    engine = open_engine(f"chdb://{tmp_path_factory.mktemp('query')}/history")
    made = History(engine, Layout(), "r1")
    made.migrate()
    made.events.store([EventRow.from_event(event) for event in CAPTURED])
    logged = [msgspec.structs.replace(one, channels=("log",)) for one in CAPTURED[:10]]
    made.events.store([EventRow.from_event(event) for event in logged])
    yield made
    made.close()


@pytest.fixture
def empty(tmp_path_factory: pytest.TempPathFactory) -> Iterator[History]:
    engine = open_engine(f"chdb://{tmp_path_factory.mktemp('empty')}/history")
    made = History(engine, Layout(), "r1")
    made.migrate()
    yield made
    made.close()


def keys(events: list[Event] | Iterator[Event]) -> list[tuple[datetime, str, int]]:
    return [(event.time, event.id, event.index) for event in events]


IN_ORDER = sorted(CAPTURED, key=lambda event: (event.time, event.id, event.index))


def found(history: History, wanted: EventFilter) -> list[tuple[datetime, str, int]]:
    listed_keys = keys(list_events(history, wanted))
    assert count_events(history, wanted) == len(listed_keys)
    return listed_keys


def expected(passes: list[bool]) -> list[tuple[datetime, str, int]]:
    by_key = dict(zip(keys(CAPTURED), passes, strict=True))
    return [key for key in keys(IN_ORDER) if by_key[key]]


@pytest.mark.parametrize("field", TEXT_FIELDS)
def test_every_field_is_a_filter(history: History, field: str) -> None:
    told = Counter(getattr(event, field) for event in CAPTURED)
    for value in sorted(told)[:: max(1, len(told) // 5)]:
        wanted = EventFilter({field: (value,)})
        if "*" not in value and "?" not in value:
            passes = [getattr(event, field) == value for event in CAPTURED]
            assert found(history, wanted) == expected(passes)


def test_several_values_are_any_of_them_and_several_fields_all(history: History) -> None:
    wanted = EventFilter({"service": ("nova", "glance"), "outcome": ("failure",)})
    passes = [
        event.service in {"nova", "glance"} and event.outcome == "failure" for event in CAPTURED
    ]
    assert any(passes)
    assert found(history, wanted) == expected(passes)


@pytest.mark.parametrize(
    ("pattern", "fits"),
    [
        ("compute.instance.*", lambda text: text.startswith("compute.instance.")),
        ("*.start", lambda text: text.endswith(".start")),
        ("image.????te", lambda text: text.startswith("image.") and len(text) == 12 and text[-2:] == "te"),
        ("volume_type.*", lambda text: text.startswith("volume_type.")),
        ("*%*", lambda _: False),
        ("*\\*", lambda _: False),
    ],
)  # fmt: skip
def test_a_glob_is_no_like_pattern(history: History, pattern: str, fits: object) -> None:
    assert callable(fits)
    passes = [fits(event.type) for event in CAPTURED]
    assert found(history, EventFilter({"type": (pattern,)})) == expected(passes)


def test_times_attributes_payload_index_and_channels(history: History) -> None:
    middle = IN_ORDER[len(IN_ORDER) // 2].time
    for wanted, passes in (
        (EventFilter(since=middle), [event.time >= middle for event in CAPTURED]),
        (EventFilter(until=middle), [event.time < middle for event in CAPTURED]),
        (EventFilter(received_since=NOW), [True for _ in CAPTURED]),
        (EventFilter(received_since=NOW + timedelta(microseconds=1)), [False for _ in CAPTURED]),
        (EventFilter(indices=(1, 2)), [event.index in {1, 2} for event in CAPTURED]),
        (
            EventFilter(attributes=(("vcpus", "1"), ("flavor", "m1.tiny"))),
            [
                event.attributes.get("vcpus") == 1 and event.attributes.get("flavor") == "m1.tiny"
                for event in CAPTURED
            ],
        ),
        (
            EventFilter(payload='"display_name"'),
            [b'"display_name"' in bytes(event.payload) for event in CAPTURED],
        ),
        (EventFilter(channels=("log",)), [n < 10 for n in range(len(CAPTURED))]),
        (EventFilter(channels=("bus", "log")), [True for _ in CAPTURED]),
        (EventFilter(channels=("opensearch",)), [False for _ in CAPTURED]),
    ):
        assert found(history, wanted) == expected(passes)


@pytest.mark.parametrize("value", ["'zz", "\\zz", "') OR 1=1 --", "{x:String}", "\x00", "é\u2028"])
def test_a_value_is_never_sql(history: History, value: str) -> None:
    for field in ("resource_name", "type", "id"):
        assert found(history, EventFilter({field: (value, f"*{value}*")})) == []
    assert found(history, EventFilter(payload=value + "no such text")) == []
    assert found(history, EventFilter(attributes=((value, value),))) == []


def test_a_field_that_no_event_has_is_refused() -> None:
    with pytest.raises(
        InputError, match="'nonsense' is not a text field of an event: give one of id, "
    ):
        EventFilter({"nonsense": ("x",)}).conditions()


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("outcome", "fail", "success, failure, unknown"),
        ("phase", "begin", "start, end, error, none"),
        ("priority", "WARN", "audit, critical, debug, error, info, sample, warn"),
        ("service", "swift", "cinder, designate, glance, heat, ironic, keystone, manila, .*"),
    ],
)
def test_a_word_that_a_field_never_has_is_refused(field: str, value: str, words: str) -> None:
    with pytest.raises(InputError, match=f"^{field}: '{value}' is not one of {words}$"):
        EventFilter({field: (value,)}).conditions()
    EventFilter({field: ("*",)}).conditions()


def test_a_service_is_named_by_its_type_too(history: History) -> None:
    by_type = found(history, EventFilter({"service": ("compute", "block-storage")}))
    assert by_type == expected([event.service in {"nova", "cinder"} for event in CAPTURED])


@pytest.mark.parametrize("limit", [1, 7, 500, 100_000])
def test_a_limit_gives_the_newest(history: History, limit: int) -> None:
    assert keys(list_events(history, EventFilter(), limit)) == keys(IN_ORDER[-limit:])


def test_events_are_counted_by_their_fields(history: History) -> None:
    told = list(asking.count_by(history, EventFilter({"service": ("nova",)}), ["type", "outcome"]))
    wanted = Counter((e.type, e.outcome) for e in CAPTURED if e.service == "nova")
    assert {group.values: group.count for group in told} == wanted
    assert [group.count for group in told] == sorted(wanted.values(), reverse=True)
    assert not list(asking.count_by(history, EventFilter({"type": ("none",)}), ["type", "outcome"]))
    with pytest.raises(
        InputError, match="'payload' is not a text field of an event: give one of id, service"
    ):
        asking.count_by(history, EventFilter(), ["payload"])


def test_values_that_change_places_are_counted_apart(empty: History) -> None:
    pairs = [("p1", "p2"), ("p2", "p1"), ("p1", "p1"), ("p2", "p2"), ("p1", ""), ("", "p1")]
    told = [
        msgspec.structs.replace(
            CAPTURED[0], id=f"{n} {m}", project_id=owner, actor_project_id=actor
        )
        for n, (owner, actor) in enumerate(pairs)
        for m in range(n + 1)
    ]
    empty.events.store([EventRow.from_event(event) for event in told])
    groups = asking.count_by(empty, EventFilter(), ["project_id", "actor_project_id"])
    assert {group.values: group.count for group in groups} == {
        pair: n + 1 for n, pair in enumerate(pairs)
    }


def test_pages_are_joined_without_a_seam(history: History, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asking, "_PAGE_WITH_PAYLOAD", 7)
    monkeypatch.setattr(asking, "_PAGE", 7)
    assert keys(list_events(history, EventFilter())) == keys(IN_ORDER)
    lean = list(list_events(history, EventFilter(), with_payload=False))
    assert keys(lean) == keys(IN_ORDER)
    assert {bytes(event.payload) for event in lean} == {b"null"}


def test_what_comes_is_followed_once_whatever_its_time(empty: History) -> None:
    came: list[Event] = []
    ended = threading.Event()

    def follow() -> None:
        came.extend(follow_events(empty, EventFilter({"service": ("nova",)}), began, ended.is_set))

    began = datetime.now(UTC)
    thread = threading.Thread(target=follow)
    thread.start()
    nova = [event for event in CAPTURED if event.service == "nova"][:30]
    for number, event in enumerate(nova):
        now = msgspec.structs.replace(
            event, received=datetime.now(UTC), time=event.time - timedelta(days=number)
        )
        other = msgspec.structs.replace(now, id=f"x{number}", service="glance")
        empty.events.store([EventRow.from_event(now), EventRow.from_event(other)])
    end = time.monotonic() + 10
    while len(came) < len(nova) and time.monotonic() < end:
        time.sleep(0.1)
    ended.set()
    thread.join()
    assert [event.id for event in came if event.service != "nova"] == []
    assert sorted(event.id for event in came) == sorted(event.id for event in nova)


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("-2h", NOW - timedelta(hours=2)),
        ("-1.5d", NOW - timedelta(hours=36)),
        ("-30s", NOW - timedelta(seconds=30)),
        ("2026-11-23", datetime(2026, 11, 23, tzinfo=UTC)),
        ("2026-11-23T12:30:00", datetime(2026, 11, 23, 12, 30, tzinfo=UTC)),
        ("2026-11-23T12:30:00.25+02:00", datetime(2026, 11, 23, 10, 30, 0, 250_000, tzinfo=UTC)),
        ("2026-11-23 12:30Z", datetime(2026, 11, 23, 12, 30, tzinfo=UTC)),
        ("9999-12-31", datetime(2200, 1, 1, tzinfo=UTC)),
    ],
)
def test_a_time_is_read(text: str, wanted: datetime) -> None:
    assert parse_time(text, "--since", NOW) == wanted


@pytest.mark.parametrize("text", ["", "2h", "yesterday", "-2", "-h", "-999999999w", "2026-13-01", "0001-01-01T00:00:00+23:00"])  # fmt: skip
def test_what_is_no_time_is_named(text: str) -> None:
    with pytest.raises(InputError, match="--since: "):
        parse_time(text, "--since", NOW)


def test_an_event_lists_every_channel_that_told_it(history: History) -> None:
    told = {event.id: event.channels for event in list_events(history, EventFilter())}
    logged = {event.id for event in CAPTURED[:10]}
    assert told == {
        event.id: ("bus", "log") if event.id in logged else ("bus",) for event in CAPTURED
    }


def test_coverage_counts_each_channel_and_lists_what_one_missed(empty: History) -> None:
    def stored(channel: str, service: str, numbers: range) -> None:
        empty.events.store(
            [
                EventRow.from_event(
                    msgspec.structs.replace(
                        CAPTURED[0], id=f"{service}{n}", service=service, channels=(channel,)
                    )
                )
                for n in numbers
            ],
        )

    stored("bus", "nova", range(8))
    stored("log", "nova", range(5, 10))
    stored("log", "nova", range(5, 10))
    stored("opensearch", "nova", range(4))
    stored("bus", "glance", range(3))
    told = covering.compare_channels(empty, None, None)
    assert [(one.channel, one.service, one.told, one.only, one.missed) for one in told] == [
        ("bus", "glance", 3, 3, 0),
        ("bus", "nova", 8, 1, 2),
        ("log", "nova", 5, 2, 5),
        ("opensearch", "nova", 4, 0, 6),
    ]
    missed = list(covering.list_missed(empty, told, None, None, "bus"))
    assert [(one.id, one.channels) for one in missed] == [
        ("nova8", ("log",)),
        ("nova9", ("log",)),
    ]
    assert {one.id for one in covering.list_missed(empty, told, None, None)} == {
        f"nova{n}" for n in range(10)
    }
    assert list(covering.list_missed(empty, told, NOW, None)) == []
