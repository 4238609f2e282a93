"""OpenSearch's search API: the only code that speaks to it, and where its errors become ours.

Called by ``record/channels/opensearch.py``. Source of the request: OpenSearch's reference of
``_search`` ("Sort results", "Paginate results").
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
_MOST_ERROR = 300
_TIME = "@timestamp"


class OpenSearch:
    """One OpenSearch server or cluster."""

    def __init__(
        self, url: str, user: str | None = None, password: str = "", *, ca: Path | None = None
    ) -> None:
        """Speak to ``url``, as ``user`` if one is given; ``ca`` verifies a private CA's server.

        Raises InputError for a URL or a CA file that cannot be used, without quoting a password.
        """
        try:
            parsed = httpx.URL(url)
            if parsed.scheme not in ("http", "https") or not parsed.host or parsed.userinfo:
                raise InputError(
                    "--opensearch: http:// or https:// and a host, without user and password, were "
                    "expected: give those as STACKBUS_OPENSEARCH_USER and "
                    "STACKBUS_OPENSEARCH_PASSWORD_FILE"
                )
            verify = ssl.create_default_context(cafile=str(ca)) if ca else True
            self._http = httpx.Client(
                base_url=url,
                auth=(user, password) if user else None,
                timeout=_TIMEOUT,
                verify=verify,
            )
        except httpx.InvalidURL as error:
            raise InputError(f"--opensearch: {error}") from None
        except (OSError, ssl.SSLError) as error:
            raise InputError(f"{ca}: no CA certificate: {error}") from None
        self.name = f"{parsed.host}:{parsed.port or parsed.scheme}"

    def search(
        self, index: str, since: int | None, skip: int, count: int
    ) -> list[Mapping[str, Any]]:
        """Give ``count`` documents in the order of ``@timestamp`` (epoch milliseconds).

        Those from ``since`` on, less the first ``skip``; each with ``_index``, ``_id``,
        ``_source`` and ``sort``. Raises OpenSearchError.
        """
        from_then_on = {"gte": since, "format": "epoch_millis"}
        question = {
            "size": count,
            "from": skip,
            "sort": [{_TIME: {"order": "asc", "unmapped_type": "date"}}],
            "query": {"exists": {"field": _TIME}}
            if since is None
            else {"range": {_TIME: from_then_on}},
            "track_total_hits": False,
        }
        try:
            answer = self._http.post(f"/{quote(index, safe='*,-.')}/_search", json=question)
            answer.raise_for_status()
            hits = answer.json()["hits"]["hits"]
            if all({"_index", "_id", "_source", "sort"} <= hit.keys() for hit in hits):
                return list(hits)
        except httpx.HTTPStatusError as error:
            raise OpenSearchError(
                f"OpenSearch {self.name} refuses: {error.response.status_code}: "
                f"{error.response.text[:_MOST_ERROR]}"
            ) from error
        except httpx.HTTPError as error:
            raise OpenSearchError(f"OpenSearch {self.name} does not answer: {error}") from error
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise OpenSearchError(f"what answers at {self.name} is no OpenSearch") from error
        raise OpenSearchError(f"OpenSearch {self.name} gives documents without their source")

    def close(self) -> None:
        """Close the connection."""
        self._http.close()
