"""An OpenSearch index as a channel, in which a cloud's own logging keeps notifications.

Opened by ``recorder.py``. Documents are read in the order of their ``@timestamp``, a page at a
time; the time reached is kept in the history. A collector delivers late, so each look begins a
minute before where the last one ended: what is read twice is recognised by its message_id. Source
of the requests: OpenSearch's reference of ``_search`` (Elasticsearch answers the same ones).
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
from stackbus.record.channel import Delivery
from stackbus.record.channels.documents import OPENSEARCH, is_notification
from stackbus.record.channels.log import Positions

_LOOK = 5.0  # seconds between two looks, once all has been read
_PAGE = 1000  # documents
_LATE = 60_000
"""How many milliseconds late a document may come into the index."""
_MOST_SEEN = 100_000
"""Documents of which is remembered that they were read; more come in no minute that is read."""
_FIRST_NANOSECONDS = 1 << 53
_MOST_OF_ONE_TIME = 10_000
"""index.max_result_window's default: so many documents of one timestamp can be paged through."""


class OpenSearchChannel:
    """The documents of an index, or of a pattern of indices."""

    name = OPENSEARCH

    def __init__(self, server: OpenSearch, index: str, positions: Positions) -> None:
        """Read ``index``, which may be a pattern, of ``server``."""
        self._server = server
        self._index = index
        self._positions = positions

    @contextmanager
    def opened(self) -> Iterator[_Documents]:
        """Begin where the last one has ended."""
        yield _Documents(self._server, self._index, self._positions)


class _Documents:
    def __init__(self, server: OpenSearch, index: str, positions: Positions) -> None:
        self._server = server
        self._index = index
        self._positions = positions
        self._source = f"{server.name}/{index}"
        kept = positions.positions(OPENSEARCH).get(self._source, "")
        self._from = int(kept) if kept.isdecimal() else None  # milliseconds since 1970
        self._skip = 0  # documents of exactly that time that have been read
        self._next_look = 0.0
        self._seen: dict[str, None] = {}  # the last documents that were read, oldest first

    def receive(self, seconds: float) -> list[Delivery]:
        """Take a page, or wait for the next look."""
        rest = self._next_look - time.monotonic()
        if rest > 0:
            time.sleep(min(rest, seconds))
            return []
        hits = self._server.search(self._index, self._from, self._skip, _PAGE)
        received = datetime.now(UTC)
        deliveries = []
        for hit in hits:
            origin = f"{hit['_index']}/{hit['_id']}"
            if origin not in self._seen and is_notification(hit["_source"]):
                body = msgspec.json.encode(hit["_source"])
                deliveries.append(
                    Delivery(
                        channel=OPENSEARCH,
                        origin=origin,
                        body=body,
                        received=received,
                        mark=_time(hit),
                    )
                )
            self._seen[origin] = None
        if hits:
            last = _time(hits[-1])
            self._move_on(last, sum(_time(hit) == last for hit in hits))
        if len(hits) < _PAGE:
            self._next_look = time.monotonic() + _LOOK
            if self._from is not None:
                self._from, self._skip = self._from - _LATE, 0
            for origin in list(self._seen)[:-_MOST_SEEN]:
                del self._seen[origin]
        return deliveries

    def commit(self, mark: int) -> None:
        """Write down the time that has been reached, less what may come late."""
        self._positions.save_positions(OPENSEARCH, {self._source: str(max(0, mark - _LATE))})

    def _move_on(self, last: int, count: int) -> None:
        self._skip = self._skip + count if last == self._from else count
        self._from = last
        if self._skip + _PAGE > _MOST_OF_ONE_TIME:
            raise OpenSearchError(
                f"{self._source}: more than {_MOST_OF_ONE_TIME - _PAGE} documents have one "
                f"@timestamp, {last}: they cannot be read by pages"
            )


def _time(hit: Mapping[str, Any]) -> int:
    """Give a document's time in milliseconds; a field of type date_nanos sorts by nanoseconds."""
    told = int(hit["sort"][0])
    return told // 1_000_000 if told > _FIRST_NANOSECONDS else told
