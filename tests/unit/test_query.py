"""Questions to the history, on the embedded engine: filters, order, limits, following, coverage."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import msgspec
import pytest
from tests.conftest import golden, wait_until

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
CAPTURED = [
    event
    for captured in golden()
    for event in normalise(captured.body, "bus", NOW, captured.service)
]


@pytest.fixture(scope="module")
def history(tmp_path_factory: pytest.TempPathFactory) -> Iterator[History]:
    """Yield a history of everything captured, which no test of this file changes."""
    engine = open_engine(f"chdb://{tmp_path_factory.mktemp('query')}/history")
    history = History(engine, Layout(), "r1")
    history.migrate()
    history.events.store([EventRow.from_event(event) for event in CAPTURED])
    logged = [msgspec.structs.replace(event, channels=("log",)) for event in CAPTURED[:10]]
    history.events.store([EventRow.from_event(event) for event in logged])
    yield history
    history.close()


@pytest.fixture
def empty(tmp_path_factory: pytest.TempPathFactory) -> Iterator[History]:
    engine = open_engine(f"chdb://{tmp_path_factory.mktemp('empty')}/history")
    history = History(engine, Layout(), "r1")
    history.migrate()
    yield history
    history.close()


def keys(events: list[Event] | Iterator[Event]) -> list[tuple[datetime, str, int]]:
    return [(event.time, event.id, event.index) for event in events]


IN_ORDER = sorted(CAPTURED, key=lambda event: (event.time, event.id, event.index))


def find(history: History, event_filter: EventFilter) -> list[tuple[datetime, str, int]]:
    listed_keys = keys(list_events(history, event_filter))
    assert count_events(history, event_filter) == len(listed_keys)
    return listed_keys


def keys_that_pass(passes: list[bool]) -> list[tuple[datetime, str, int]]:
    by_key = dict(zip(keys(CAPTURED), passes, strict=True))
    return [key for key in keys(IN_ORDER) if by_key[key]]


@pytest.mark.parametrize("field", TEXT_FIELDS)
def test_every_field_is_a_filter(history: History, field: str) -> None:
    counts = Counter(getattr(event, field) for event in CAPTURED)
    for value in sorted(counts)[:: max(1, len(counts) // 5)]:
        event_filter = EventFilter({field: (value,)})
        if "*" not in value and "?" not in value:
            passes = [getattr(event, field) == value for event in CAPTURED]
            assert find(history, event_filter) == keys_that_pass(passes)


def test_several_values_are_any_of_them_and_several_fields_all(history: History) -> None:
    event_filter = EventFilter({"service": ("nova", "glance"), "outcome": ("failure",)})
    passes = [
        event.service in {"nova", "glance"} and event.outcome == "failure" for event in CAPTURED
    ]
    assert any(passes)
    assert find(history, event_filter) == keys_that_pass(passes)


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
def test_only_star_and_question_mark_are_patterns(
    history: History, pattern: str, fits: object
) -> None:
    assert callable(fits)
    passes = [fits(event.type) for event in CAPTURED]
    assert find(history, EventFilter({"type": (pattern,)})) == keys_that_pass(passes)


def test_times_attributes_payload_index_and_channels(history: History) -> None:
    middle = IN_ORDER[len(IN_ORDER) // 2].time
    for event_filter, passes in (
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
        assert find(history, event_filter) == keys_that_pass(passes)


@pytest.mark.parametrize("value", ["'zz", "\\zz", "') OR 1=1 --", "{x:String}", "\x00", "é\u2028"])
def test_a_value_is_never_sql(history: History, value: str) -> None:
    for field in ("resource_name", "type", "id"):
        assert find(history, EventFilter({field: (value, f"*{value}*")})) == []
    assert find(history, EventFilter(payload=value + "no such text")) == []
    assert find(history, EventFilter(attributes=((value, value),))) == []


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
def test_a_value_that_a_field_never_has_is_refused(field: str, value: str, words: str) -> None:
    with pytest.raises(InputError, match=f"^{field}: '{value}' is not one of {words}$"):
        EventFilter({field: (value,)}).conditions()
    EventFilter({field: ("*",)}).conditions()


def test_a_service_is_named_by_its_type_too(history: History) -> None:
    by_type = find(history, EventFilter({"service": ("compute", "block-storage")}))
    assert by_type == keys_that_pass([event.service in {"nova", "cinder"} for event in CAPTURED])


@pytest.mark.parametrize("limit", [1, 7, 500, 100_000])
def test_a_limit_selects_the_newest(history: History, limit: int) -> None:
    assert keys(list_events(history, EventFilter(), limit)) == keys(IN_ORDER[-limit:])


def test_events_are_counted_by_their_fields(history: History) -> None:
    groups = list(
        asking.count_by(history, EventFilter({"service": ("nova",)}), ["type", "outcome"])
    )
    expected = Counter((e.type, e.outcome) for e in CAPTURED if e.service == "nova")
    assert {group.values: group.count for group in groups} == expected
    assert [group.count for group in groups] == sorted(expected.values(), reverse=True)
    assert not list(asking.count_by(history, EventFilter({"type": ("none",)}), ["type", "outcome"]))
    with pytest.raises(
        InputError, match="'payload' is not a text field of an event: give one of id, service"
    ):
        asking.count_by(history, EventFilter(), ["payload"])


def test_exchanged_values_are_counted_apart(empty: History) -> None:
    pairs = [("p1", "p2"), ("p2", "p1"), ("p1", "p1"), ("p2", "p2"), ("p1", ""), ("", "p1")]
    events = [
        msgspec.structs.replace(
            CAPTURED[0], id=f"{n} {m}", project_id=owner, actor_project_id=actor
        )
        for n, (owner, actor) in enumerate(pairs)
        for m in range(n + 1)
    ]
    empty.events.store([EventRow.from_event(event) for event in events])
    groups = asking.count_by(empty, EventFilter(), ["project_id", "actor_project_id"])
    assert {group.values: group.count for group in groups} == {
        pair: n + 1 for n, pair in enumerate(pairs)
    }


def test_pages_neither_overlap_nor_leave_gaps(
    history: History, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(asking, "_PAGE_WITH_PAYLOAD", 7)
    monkeypatch.setattr(asking, "_PAGE", 7)
    assert keys(list_events(history, EventFilter())) == keys(IN_ORDER)
    lean = list(list_events(history, EventFilter(), with_payload=False))
    assert keys(lean) == keys(IN_ORDER)
    assert {bytes(event.payload) for event in lean} == {b"null"}


def test_new_events_are_followed_once_whatever_their_time(empty: History) -> None:
    followed: list[Event] = []
    is_stopped = threading.Event()

    def follow() -> None:
        event_filter = EventFilter({"service": ("nova",)})
        followed.extend(follow_events(empty, event_filter, start, is_stopped.is_set))

    start = datetime.now(UTC)
    thread = threading.Thread(target=follow)
    thread.start()
    nova = [event for event in CAPTURED if event.service == "nova"][:30]
    for number, event in enumerate(nova):
        now = msgspec.structs.replace(
            event, received=datetime.now(UTC), time=event.time - timedelta(days=number)
        )
        glance = msgspec.structs.replace(now, id=f"x{number}", service="glance")
        empty.events.store([EventRow.from_event(now), EventRow.from_event(glance)])
    try:
        wait_until(lambda: len(followed) >= len(nova))
    finally:
        is_stopped.set()
        thread.join()
    assert [event.id for event in followed if event.service != "nova"] == []
    assert sorted(event.id for event in followed) == sorted(event.id for event in nova)


@pytest.mark.parametrize(
    ("text", "expected"),
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
def test_a_time_is_parsed(text: str, expected: datetime) -> None:
    assert parse_time(text, "--since", NOW) == expected


@pytest.mark.parametrize("text", ["", "2h", "yesterday", "-2", "-h", "-999999999w", "2026-13-01", "0001-01-01T00:00:00+23:00"])  # fmt: skip
def test_a_text_that_is_not_a_time_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="--since: "):
        parse_time(text, "--since", NOW)


def test_an_event_lists_every_channel_that_carried_it(history: History) -> None:
    channels = {event.id: event.channels for event in list_events(history, EventFilter())}
    logged = {event.id for event in CAPTURED[:10]}
    assert channels == {
        event.id: ("bus", "log") if event.id in logged else ("bus",) for event in CAPTURED
    }


def test_coverage_counts_each_channel_and_lists_missed_notifications(empty: History) -> None:
    def store(channel: str, service: str, numbers: range) -> None:
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

    store("bus", "nova", range(8))
    store("log", "nova", range(5, 10))
    store("log", "nova", range(5, 10))
    store("opensearch", "nova", range(4))
    store("bus", "glance", range(3))
    coverage = covering.compare_channels(empty, None, None)
    assert [(row.channel, row.service, row.told, row.only, row.missed) for row in coverage] == [
        ("bus", "glance", 3, 3, 0),
        ("bus", "nova", 8, 1, 2),
        ("log", "nova", 5, 2, 5),
        ("opensearch", "nova", 4, 0, 6),
    ]
    missed = list(covering.list_missed(empty, coverage, None, None, "bus"))
    assert [(entry.id, entry.channels) for entry in missed] == [
        ("nova8", ("log",)),
        ("nova9", ("log",)),
    ]
    assert {entry.id for entry in covering.list_missed(empty, coverage, None, None)} == {
        f"nova{n}" for n in range(10)
    }
    assert list(covering.list_missed(empty, coverage, NOW, None)) == []
