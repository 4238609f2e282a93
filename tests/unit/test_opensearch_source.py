"""An OpenSearch index as a source: every document once, by pages, and late ones too."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from tests.conftest import golden
from tests.opensearch import Server, opensearch

from stackbus.clients.opensearch import OpenSearch
from stackbus.errors import InputError, OpenSearchError, Unreadable
from stackbus.events.normalise import normalise
from stackbus.flow.stream import Delivery, Subscription
from stackbus.sources import opensearch as source_module
from stackbus.sources.documents import extract_notification, may_hold_notification
from stackbus.sources.opensearch import OpenSearchSource

BEGAN = datetime(2026, 11, 24, tzinfo=UTC)


class MemoryPositions:
    """Positions in memory."""

    def __init__(self) -> None:
        self.saved: dict[str, str] = {}

    def load(self, channel: str) -> dict[str, str]:
        assert channel == "opensearch"
        return dict(self.saved)

    def save(self, channel: str, positions: Mapping[str, str]) -> None:
        assert channel == "opensearch"
        self.saved.update(positions)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setattr(source_module, "_PAGE_SIZE", 10)
    monkeypatch.setattr(source_module, "_SEARCH_SECONDS", 0.02)
    with opensearch() as fake:
        yield fake


def source_of(
    server: Server, positions: MemoryPositions, index: str = "notification-*"
) -> OpenSearchSource:
    return OpenSearchSource(OpenSearch(server.url), index, positions)


def document(number: int, at: timedelta) -> dict[str, Any]:
    return {
        "@timestamp": (BEGAN + at).isoformat(),
        "message_id": f"m{number}",
        "event_type": "image.update",
        "priority": "INFO",
        "payload": '{"id": "i"}',
        "timestamp": "2026-11-24 00:00:00",
    }


def receive_ids(subscription: Subscription, seconds: float = 0.3) -> list[str]:
    deliveries: list[Delivery] = []
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        deliveries += subscription.receive(0.02)
    if deliveries:
        subscription.commit(deliveries[-1].position)
    return [
        json.loads(extract_notification(delivery.body))["message_id"] for delivery in deliveries
    ]


def ids(*numbers: int) -> list[str]:
    return [f"m{number}" for number in numbers]


def test_all_pages_are_read_once_in_order_and_then_new_documents(server: Server) -> None:
    for number in range(57):
        server.add("notification-1", document(number, timedelta(seconds=10 * number)))
    server.add("other", document(99, timedelta()))
    server.add("notification-2", {"@timestamp": BEGAN.isoformat(), "message": "no notification"})
    with source_of(server, MemoryPositions()).subscribe() as subscription:
        assert receive_ids(subscription) == ids(*range(57))
        server.add("notification-2", document(57, timedelta(seconds=600)))
        assert receive_ids(subscription) == ids(57)


def test_documents_of_one_time_may_fill_several_pages(server: Server) -> None:
    for number in range(35):
        server.add("notification-1", document(number, timedelta(seconds=number // 32)))
    with source_of(server, MemoryPositions()).subscribe() as subscription:
        assert sorted(receive_ids(subscription)) == sorted(ids(*range(35)))


def test_too_many_documents_of_one_time_are_an_error(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(source_module, "_RESULT_WINDOW", 30)
    for number in range(35):
        server.add("notification-1", document(number, timedelta()))
    with source_of(server, MemoryPositions()).subscribe() as subscription:
        with pytest.raises(OpenSearchError, match="documents have the @timestamp"):
            receive_ids(subscription)


def test_a_late_document_is_read_and_a_restart_begins_a_minute_before(server: Server) -> None:
    positions = MemoryPositions()
    for number in range(3):
        server.add("notification-1", document(number, timedelta(minutes=10 * number)))
    with source_of(server, positions).subscribe() as subscription:
        assert receive_ids(subscription) == ids(0, 1, 2)
        server.add("notification-1", document(3, timedelta(minutes=20, seconds=-50)))
        assert receive_ids(subscription) == ids(3)
    with source_of(server, positions).subscribe() as subscription:
        # Read again, and recognised by the history.
        assert receive_ids(subscription) == ids(3, 2)


def test_a_server_that_is_away_is_an_error(server: Server) -> None:
    server.fail_with = 503
    with source_of(server, MemoryPositions()).subscribe() as subscription:
        with pytest.raises(OpenSearchError, match="refuses: 503"):
            subscription.receive(0)
    away = OpenSearch("http://127.0.0.1:1")
    with OpenSearchSource(away, "x", MemoryPositions()).subscribe() as subscription:
        with pytest.raises(OpenSearchError, match="does not answer"):
            subscription.receive(0)


def test_the_user_logs_in_and_a_password_in_a_url_is_refused(server: Server) -> None:
    server.credentials = ("reader", "s3cret:with:colons")
    server.add("notification-1", document(1, timedelta()))
    named = OpenSearch(server.url, "reader", "s3cret:with:colons")
    with OpenSearchSource(named, "notification-*", MemoryPositions()).subscribe() as subscription:
        assert receive_ids(subscription) == ids(1)
    with source_of(server, MemoryPositions()).subscribe() as subscription:
        with pytest.raises(OpenSearchError, match="401"):
            subscription.receive(0)
    with pytest.raises(InputError) as caught:
        OpenSearch(server.url.replace("://", "://reader:s3cret@"))
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize("url", ["", "ftp://host", "http://", "localhost:9200"])
def test_an_invalid_url_is_refused(url: str) -> None:
    with pytest.raises(InputError, match="expected https://HOST:PORT"):
        OpenSearch(url)


def test_a_missing_ca_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no CA certificate"):
        OpenSearch("https://host", ca=tmp_path / "none.pem")


ONE = next(one for one in golden() if one.service == "nova")
MESSAGE = ONE.message()
BARE = json.dumps(MESSAGE)
LOGGER = f"oslo.messaging.notification.{MESSAGE['event_type']}"
LINE = f"2026-11-24 10:00:00.123 42 INFO {LOGGER} [None req-1 u1 p1 - - -] {BARE}"


@pytest.mark.parametrize(
    "source",
    [
        MESSAGE,
        {**MESSAGE, "payload": json.dumps(MESSAGE["payload"])},
        json.loads(ONE.body),
        {"message": ONE.body.decode()},
        {"log": BARE},
        {"log": LINE + "\n", "stream": "stderr"},
        {"message": BARE, "name": LOGGER, "context": {"user_id": "u1"}},
    ],
)
def test_each_shape_of_a_document_is_read(source: dict[str, Any]) -> None:
    stored = {"@timestamp": "2026-11-24T00:00:00Z", **source}
    assert may_hold_notification(stored)
    event = normalise(extract_notification(json.dumps(stored).encode()), "opensearch", BEGAN)[0]
    assert event.id == MESSAGE["message_id"]
    assert json.loads(bytes(event.payload)) == MESSAGE["payload"]


def test_the_context_beside_a_logged_message_names_the_actor() -> None:
    message = {name: value for name, value in MESSAGE.items() if not name.startswith("_context")}
    stored = {"message": json.dumps(message), "context": {"user_id": "u1", "project_id": "p1"}}
    event = normalise(extract_notification(json.dumps(stored).encode()), "opensearch", BEGAN)[0]
    assert (event.user_id, event.actor_project_id) == ("u1", "p1")


@pytest.mark.parametrize(
    "source", [b"", b"[]", b"3", b"{}", b'{"message": 3}', b'{"message_id": 1}', b'{"log": "{"}']
)
def test_a_document_without_a_notification_is_unreadable(source: bytes) -> None:
    with pytest.raises(Unreadable):
        normalise(extract_notification(source), "opensearch", BEGAN)
