"""An OpenSearch index as a channel: every document once, by pages, and what comes late too."""

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
from stackbus.record.channel import Delivery, Source
from stackbus.record.channels import opensearch as channel_module
from stackbus.record.channels.documents import is_notification, notification_in_document
from stackbus.record.channels.opensearch import OpenSearchChannel

BEGAN = datetime(2026, 11, 24, tzinfo=UTC)


class Kept:
    """Positions in memory."""

    def __init__(self) -> None:
        self.saved: dict[str, str] = {}

    def positions(self, channel: str) -> dict[str, str]:
        assert channel == "opensearch"
        return dict(self.saved)

    def save_positions(self, channel: str, positions: Mapping[str, str]) -> None:
        assert channel == "opensearch"
        self.saved.update(positions)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setattr(channel_module, "_PAGE", 10)
    monkeypatch.setattr(channel_module, "_LOOK", 0.02)
    with opensearch() as found:
        yield found


def channel(server: Server, kept: Kept, index: str = "notification-*") -> OpenSearchChannel:
    return OpenSearchChannel(OpenSearch(server.url), index, kept)


def document(number: int, at: timedelta) -> dict[str, Any]:
    return {
        "@timestamp": (BEGAN + at).isoformat(),
        "message_id": f"m{number}",
        "event_type": "image.update",
        "priority": "INFO",
        "payload": '{"id": "i"}',
        "timestamp": "2026-11-24 00:00:00",
    }


def taken(source: Source, seconds: float = 0.3) -> list[str]:
    found: list[Delivery] = []
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        found += source.receive(0.02)
    if found:
        source.commit(found[-1].mark)
    return [json.loads(notification_in_document(one.body))["message_id"] for one in found]


def ids(*numbers: int) -> list[str]:
    return [f"m{number}" for number in numbers]


def test_all_pages_are_read_once_in_order_and_then_what_comes(server: Server) -> None:
    for number in range(57):
        server.add("notification-1", document(number, timedelta(seconds=10 * number)))
    server.add("other", document(99, timedelta()))
    server.add("notification-2", {"@timestamp": BEGAN.isoformat(), "message": "no notification"})
    with channel(server, Kept()).opened() as source:
        assert taken(source) == ids(*range(57))
        server.add("notification-2", document(57, timedelta(seconds=600)))
        assert taken(source) == ids(57)


def test_many_of_one_time_are_read_over_pages(server: Server) -> None:
    for number in range(35):
        server.add("notification-1", document(number, timedelta(seconds=number // 32)))
    with channel(server, Kept()).opened() as source:
        assert sorted(taken(source)) == sorted(ids(*range(35)))


def test_too_many_of_one_time_are_an_error_that_says_so(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(channel_module, "_MOST_OF_ONE_TIME", 30)
    for number in range(35):
        server.add("notification-1", document(number, timedelta()))
    with channel(server, Kept()).opened() as source:
        with pytest.raises(OpenSearchError, match="documents have one @timestamp"):
            taken(source)


def test_what_comes_late_is_read_and_a_restart_begins_a_minute_before(server: Server) -> None:
    kept = Kept()
    for number in range(3):
        server.add("notification-1", document(number, timedelta(minutes=10 * number)))
    with channel(server, kept).opened() as source:
        assert taken(source) == ids(0, 1, 2)
        server.add("notification-1", document(3, timedelta(minutes=20, seconds=-50)))
        assert taken(source) == ids(3)
    with channel(server, kept).opened() as source:
        # Read again, and recognised by the history.
        assert taken(source) == ids(3, 2)


def test_a_server_that_is_away_is_told(server: Server) -> None:
    server.fail_with = 503
    with channel(server, Kept()).opened() as source:
        with pytest.raises(OpenSearchError, match="refuses: 503"):
            source.receive(0)
    away = OpenSearch("http://127.0.0.1:1")
    with OpenSearchChannel(away, "x", Kept()).opened() as source:
        with pytest.raises(OpenSearchError, match="does not answer"):
            source.receive(0)


def test_it_is_logged_in_to_and_a_password_in_a_url_is_refused(server: Server) -> None:
    server.credentials = ("reader", "s3cret:with:colons")
    server.add("notification-1", document(1, timedelta()))
    named = OpenSearch(server.url, "reader", "s3cret:with:colons")
    with OpenSearchChannel(named, "notification-*", Kept()).opened() as source:
        assert taken(source) == ids(1)
    with channel(server, Kept()).opened() as source:
        with pytest.raises(OpenSearchError, match="401"):
            source.receive(0)
    with pytest.raises(InputError) as caught:
        OpenSearch(server.url.replace("://", "://reader:s3cret@"))
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize("url", ["", "ftp://host", "http://", "localhost:9200"])
def test_what_is_no_url_is_refused(url: str) -> None:
    with pytest.raises(InputError, match="--opensearch"):
        OpenSearch(url)


def test_a_ca_that_is_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no CA certificate"):
        OpenSearch("https://host", ca=tmp_path / "none.pem")


ONE = next(one for one in golden() if one.service == "nova")
MESSAGE = ONE.message()
BARE = json.dumps(MESSAGE)
LINE = f"2026 INFO oslo.messaging.notification.x [None req-1 u1 p1 - - -] {BARE}"


@pytest.mark.parametrize(
    "source",
    [
        MESSAGE,
        {**MESSAGE, "payload": json.dumps(MESSAGE["payload"])},
        json.loads(ONE.body),
        {"message": ONE.body.decode()},
        {"log": BARE},
        {"log": LINE + "\n", "stream": "stderr"},
        {"message": BARE, "name": "oslo.messaging.notification.x", "context": {"user_id": "u1"}},
    ],
)
def test_each_shape_in_which_a_notification_is_kept(source: dict[str, Any]) -> None:
    stored = {"@timestamp": "2026-11-24T00:00:00Z", **source}
    assert is_notification(stored)
    event = normalise(notification_in_document(json.dumps(stored).encode()), "opensearch", BEGAN)[0]
    assert event.id == MESSAGE["message_id"]
    assert json.loads(bytes(event.payload)) == MESSAGE["payload"]


def test_the_context_beside_a_logged_message_tells_who_did_it() -> None:
    message = {name: value for name, value in MESSAGE.items() if not name.startswith("_context")}
    stored = {"message": json.dumps(message), "context": {"user_id": "u1", "project_id": "p1"}}
    event = normalise(notification_in_document(json.dumps(stored).encode()), "opensearch", BEGAN)[0]
    assert (event.user_id, event.actor_project_id) == ("u1", "p1")


@pytest.mark.parametrize(
    "source", [b"", b"[]", b"3", b"{}", b'{"message": 3}', b'{"message_id": 1}', b'{"log": "{"}']
)
def test_what_holds_none_is_unreadable(source: bytes) -> None:
    with pytest.raises(Unreadable):
        normalise(notification_in_document(source), "opensearch", BEGAN)
