"""OpenSearch's search API: the only code that speaks to it, and translates its errors.

``sources/opensearch.py`` reads documents with it. Reference: OpenSearch's ``_search`` API ("Sort
results", "Paginate results").
"""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx

from stackbus.errors import InputError, OpenSearchError

_TIMEOUT = httpx.Timeout(10.0, read=60.0)  # seconds
_QUOTED_CHARACTERS = 300  # of an error's body
_TIMESTAMP = "@timestamp"


class OpenSearch:
    """One OpenSearch server or cluster."""

    def __init__(
        self, url: str, user: str | None = None, password: str = "", *, ca: Path | None = None
    ) -> None:
        """Speak to ``url``, as ``user`` if given; ``ca`` is the file of a private CA.

        Raises InputError for an unusable URL or CA file, without quoting a password.
        """
        try:
            parsed: httpx.URL | None = httpx.URL(url)
        except httpx.InvalidURL:
            parsed = None
        if parsed is None or not _is_usable(parsed):
            raise InputError(  # quotes nothing of the URL: a password may be in it
                "OpenSearch URL: expected https://HOST:PORT, without user and password: set "
                "STACKBUS_OPENSEARCH_USER and STACKBUS_OPENSEARCH_PASSWORD_FILE to log in"
            )
        try:
            verify = ssl.create_default_context(cafile=str(ca)) if ca else True
        except (OSError, ssl.SSLError) as error:
            raise InputError(f"{ca}: no CA certificate can be read from it: {error}") from None
        self._http = httpx.Client(
            base_url=url,
            auth=(user, password) if user else None,
            timeout=_TIMEOUT,
            verify=verify,
        )
        self.name = f"{parsed.host}:{parsed.port or parsed.scheme}"

    def search(
        self, index: str, since: int | None, skip: int, count: int
    ) -> list[Mapping[str, Any]]:
        """Return at most ``count`` documents in the order of ``@timestamp``.

        Only documents from ``since`` on (milliseconds since 1970), without the first ``skip``.
        Each has ``_index``, ``_id``, ``_source`` and ``sort``. Raises OpenSearchError.
        """
        query: dict[str, Any] = {"exists": {"field": _TIMESTAMP}}
        if since is not None:
            query = {"range": {_TIMESTAMP: {"gte": since, "format": "epoch_millis"}}}
        request = {
            "size": count,
            "from": skip,
            "sort": [{_TIMESTAMP: {"order": "asc", "unmapped_type": "date"}}],
            "query": query,
            "track_total_hits": False,
        }
        try:
            response = self._http.post(f"/{quote(index, safe='*,-.')}/_search", json=request)
            response.raise_for_status()
            hits = response.json()["hits"]["hits"]
            if all({"_index", "_id", "_source", "sort"} <= hit.keys() for hit in hits):
                return list(hits)
        except httpx.HTTPStatusError as error:
            raise OpenSearchError(
                f"OpenSearch {self.name} refuses: {error.response.status_code}: "
                f"{error.response.text[:_QUOTED_CHARACTERS]}"
            ) from error
        except httpx.HTTPError as error:
            raise OpenSearchError(f"OpenSearch {self.name} does not answer: {error}") from error
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise OpenSearchError(
                f"{self.name} does not answer as OpenSearch does: check the URL"
            ) from error
        raise OpenSearchError(
            f"OpenSearch {self.name}: index {index} does not store _source: enable it"
        )

    def close(self) -> None:
        """Close the connection."""
        self._http.close()


def _is_usable(url: httpx.URL) -> bool:
    return url.scheme in ("http", "https") and bool(url.host) and not url.userinfo
