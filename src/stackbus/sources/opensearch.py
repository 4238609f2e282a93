"""An OpenSearch index as a source, in which a cloud's logging stores notifications.

``_Reader`` reads documents in the order of their ``@timestamp``, a page at a time, and hands those
that may hold a notification to ``flow/loop.py`` (``documents.py`` extracts it). The position of a
delivery is its timestamp. A collector may index a document late, so each search begins a minute
before the end of the last one; documents read twice are recognised in the history by message_id.
Reference: OpenSearch's ``_search`` API. Elasticsearch answers the same requests.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

import msgspec

from stackbus.clients.opensearch import OpenSearch
from stackbus.errors import OpenSearchError
from stackbus.flow.stream import Delivery
from stackbus.sources import documents
from stackbus.sources.positions import Positions

OPENSEARCH = "opensearch"

_SEARCH_SECONDS = 5.0  # between two searches when there are no more pages
_PAGE_SIZE = 1000  # documents
_LATENESS = 60_000  # milliseconds by which a document may be indexed late
_MOST_SEEN = 100_000  # documents remembered as read: more than a minute brings
_LEAST_NANOSECONDS = 1 << 53  # a larger timestamp is one in nanoseconds
_RESULT_WINDOW = 10_000  # index.max_result_window's default: a search returns no documents beyond


class OpenSearchSource:
    """The documents of an index, or of a pattern of indices."""

    name = OPENSEARCH

    def __init__(self, server: OpenSearch, index: str, positions: Positions) -> None:
        """Read ``index``, which may be a pattern, of ``server``."""
        self._server = server
        self._index = index
        self._positions = positions

    @staticmethod
    def extract(body: bytes) -> bytes:
        """Return the notification in the document that a delivery brought. Raises Unreadable."""
        return documents.extract_notification(body)

    @contextmanager
    def subscribe(self) -> Iterator[_Reader]:
        """Read from the position saved last. Raises HistoryError."""
        yield _Reader(self._server, self._index, self._positions)


class _Reader:
    """An index that is being read, up to ``_since``: milliseconds since 1970."""

    def __init__(self, server: OpenSearch, index: str, positions: Positions) -> None:
        self._server = server
        self._index = index
        self._positions = positions
        self._origin = f"{server.name}/{index}"
        saved = positions.load(OPENSEARCH).get(self._origin, "")
        self._since = int(saved) if saved.isdecimal() else None
        self._skip = 0  # documents of exactly that time that were read
        self._next_search = 0.0
        self._seen: dict[str, None] = {}  # documents that were read, oldest first

    def receive(self, seconds: float) -> list[Delivery]:
        """Return the deliveries of a page, or wait for the next search."""
        pause = self._next_search - time.monotonic()
        if pause > 0:
            time.sleep(min(pause, seconds))
            return []
        hits = self._server.search(self._index, self._since, self._skip, _PAGE_SIZE)
        received = datetime.now(UTC)
        deliveries = []
        for hit in hits:
            origin = f"{hit['_index']}/{hit['_id']}"
            if origin not in self._seen and documents.may_hold_notification(hit["_source"]):
                deliveries.append(
                    Delivery(
                        channel=OPENSEARCH,
                        origin=origin,
                        body=msgspec.json.encode(hit["_source"]),
                        received=received,
                        position=_timestamp(hit),
                    )
                )
            self._seen[origin] = None
        if hits:
            newest = _timestamp(hits[-1])
            self._advance(newest, sum(_timestamp(hit) == newest for hit in hits))
        if len(hits) < _PAGE_SIZE:
            self._next_search = time.monotonic() + _SEARCH_SECONDS
            if self._since is not None:
                self._since, self._skip = self._since - _LATENESS, 0
            for origin in list(self._seen)[:-_MOST_SEEN]:
                del self._seen[origin]
        return deliveries

    def commit(self, position: int) -> None:
        """Save the position, less the time by which a document may be late."""
        saved = str(max(0, position - _LATENESS))
        self._positions.save(OPENSEARCH, {self._origin: saved})

    def _advance(self, newest: int, count: int) -> None:
        """Move on to ``newest``, of which the page holds ``count`` documents."""
        self._skip = self._skip + count if newest == self._since else count
        self._since = newest
        if self._skip + _PAGE_SIZE > _RESULT_WINDOW:
            raise OpenSearchError(
                f"{self._origin}: more than {_RESULT_WINDOW - _PAGE_SIZE} documents have the "
                f"@timestamp {newest}: OpenSearch returns no page beyond them; spread their "
                "timestamps, or read a narrower index"
            )


def _timestamp(hit: Mapping[str, Any]) -> int:
    """Return a document's time in milliseconds; a field of type date_nanos sorts by nanoseconds."""
    value = int(hit["sort"][0])
    return value // 1_000_000 if value > _LEAST_NANOSECONDS else value
