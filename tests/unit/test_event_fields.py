"""Event is the only list of fields: columns, filters, options, output and pages follow from it."""

from __future__ import annotations

import csv
import inspect
import io
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import pytest
from tests.conftest import golden

from stackbus.cli import events as command
from stackbus.events.model import FIELD_INFO, FIELDS, HASHED_FIELDS, TEXT_FIELDS, Event
from stackbus.events.normalise import normalise
from stackbus.history.batches import EventRow
from stackbus.history.events import Link
from stackbus.history.history import History
from stackbus.history.session import Layout, open_engine
from stackbus.query.events import count_by, list_events
from stackbus.query.filter import EventFilter

NOW = datetime(2026, 11, 24, 10, 30, tzinfo=UTC)
EVENT = normalise(golden()[0].body, "bus", NOW, golden()[0].service)[0]
REGIONS = ("RegionOne", "RegionTwo", "RegionTwo", "")
COLUMN_TYPES = {str: "String", int: "UInt32", datetime: "DateTime64(6, 'UTC')"}
AS_TEXT = {"attributes": "String", "payload": "String", "channels": "Array(String)"}


class Column(msgspec.Struct):
    name: str
    type: str


@pytest.fixture(scope="module")
def history(tmp_path_factory: pytest.TempPathFactory) -> Iterator[History]:
    engine = open_engine(f"chdb://{tmp_path_factory.mktemp('fields')}/history")
    history = History(engine, Layout(), "r1")
    history.migrate()
    events = [
        msgspec.structs.replace(EVENT, id=f"n{number}", region=region)
        for number, region in enumerate(REGIONS)
    ]
    history.events.store([EventRow.from_event(event) for event in events])
    yield history
    history.close()


def test_a_new_field_is_appended() -> None:
    """So the CSV output stays readable by position, and each hashed form begins the next."""
    assert Event.__struct_fields__ == FIELDS
    for fields in HASHED_FIELDS.values():
        assert FIELDS[: len(fields)] == fields


def test_every_field_is_described() -> None:
    assert all(info.description for info in FIELD_INFO.values())


def test_the_table_has_a_column_of_the_right_type_for_each_field(history: History) -> None:
    sql = "SELECT name, type FROM system.columns WHERE table = 'events' AND database = 'default'"
    columns = {
        column.name: re.sub(r"LowCardinality\((\w+)\)", r"\1", column.type)
        for column in history.session.select(sql, Column, {})
    }
    for name, info in FIELD_INFO.items():
        expected = AS_TEXT.get(name) or COLUMN_TYPES[info.type]
        assert columns.pop(name) == expected, name
    assert set(columns) == set(Link.__struct_fields__)


def test_every_text_field_is_an_option_of_events() -> None:
    assert set(inspect.signature(command.events).parameters) >= set(TEXT_FIELDS)


def test_every_field_is_on_the_reference_page() -> None:
    page = Path("docs/reference/history.md").read_text()
    rows = re.findall(r"^\| `(\w+)` \| (.*) \|$", page, re.MULTILINE)
    described = {name: info.description for name, info in FIELD_INFO.items()}
    assert rows[: len(FIELDS)] == list(described.items())


def test_a_region_is_stored_filtered_and_counted(history: History) -> None:
    assert {event.region for event in list_events(history, EventFilter())} == set(REGIONS)
    event_filter = EventFilter({"region": ("*Two",)})
    assert [event.id for event in list_events(history, event_filter)] == ["n1", "n2"]
    counts = {group.values: group.count for group in count_by(history, EventFilter(), ["region"])}
    assert counts == {("RegionTwo",): 2, ("RegionOne",): 1, ("",): 1}


def test_the_output_has_every_field_in_order(history: History) -> None:
    (event,) = list_events(history, EventFilter({"id": ("n0",)}))
    assert tuple(msgspec.json.decode(event.encode_json())) == FIELDS
    row = io.StringIO()
    csv.writer(row).writerow(command._csv_row(event))
    assert row.getvalue().strip().endswith(",bus,RegionOne")
