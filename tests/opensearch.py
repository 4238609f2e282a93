"""An OpenSearch that answers ``_search``, for tests: no server of it comes as a package.

It answers as OpenSearch's reference of the search API says, for the few members of a request that
stackbus sends, and refuses any other with 400, so that a request that a real one would not
understand does not pass here. It has never been held against a real server.
"""

from __future__ import annotations

import base64
import fnmatch
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote

_MEMBERS = {"size", "from", "sort", "query", "track_total_hits"}
_MOST = 10_000  # index.max_result_window


class Server:
    """Documents by index; ``user`` and ``password`` where it wants to be logged in to."""

    def __init__(self) -> None:
        self.documents: list[tuple[str, str, dict[str, Any]]] = []
        self.requests = 0
        self.fail_with: int | None = None
        self.credentials: tuple[str, str] | None = None
        self.url = ""

    def add(self, index: str, source: dict[str, Any]) -> None:
        self.documents.append((index, f"id{len(self.documents)}", source))

    def search(self, pattern: str, request: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        if unknown := request.keys() - _MEMBERS:
            return 400, {"error": f"unknown key {unknown}"}
        if request["sort"] != [{"@timestamp": {"order": "asc", "unmapped_type": "date"}}]:
            return 400, {"error": "sort"}
        if request["from"] + request["size"] > _MOST:
            return 400, {"error": "Result window is too large"}
        since = None
        if "range" in request["query"]:
            told = request["query"]["range"]["@timestamp"]
            if told["format"] != "epoch_millis" or told.keys() != {"gte", "format"}:
                return 400, {"error": "range"}
            since = told["gte"]
        elif request["query"] != {"exists": {"field": "@timestamp"}}:
            return 400, {"error": "query"}
        hits: list[dict[str, Any]] = [
            {
                "_index": index,
                "_id": name,
                "_score": None,
                "_source": source,
                "sort": [_milliseconds(source["@timestamp"])],
            }
            for index, name, source in self.documents
            if fnmatch.fnmatch(index, pattern) and "@timestamp" in source
        ]
        hits = [hit for hit in hits if since is None or hit["sort"][0] >= since]
        hits.sort(key=lambda hit: hit["sort"][0])
        page = hits[request["from"] : request["from"] + request["size"]]
        return 200, {"took": 1, "timed_out": False, "hits": {"max_score": None, "hits": page}}


@contextmanager
def opensearch() -> Iterator[Server]:
    server = Server()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            server.requests += 1
            length = int(self.headers["Content-Length"])
            request = json.loads(self.rfile.read(length))
            path = unquote(self.path).strip("/").split("/")
            code, answer = 404, {"error": "no such path"}
            if server.fail_with is not None:
                code, answer = server.fail_with, {"error": "unavailable"}
            elif server.credentials is not None and self._credentials() != server.credentials:
                code, answer = 401, {"error": "unauthorized"}
            elif len(path) == 2 and path[1] == "_search":
                code, answer = server.search(path[0], request)
            body = json.dumps(answer).encode()
            self.send_response(code)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def _credentials(self) -> tuple[str, str] | None:
            given = self.headers.get("Authorization", "").removeprefix("Basic ")
            user, _, password = base64.b64decode(given).decode().partition(":")
            return (user, password) if user else None

        def log_message(self, *_: object) -> None:
            pass

    httpd = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.url = f"http://127.0.0.1:{httpd.server_port}"
    threading.Thread(target=httpd.serve_forever, daemon=True).start()
    try:
        yield server
    finally:
        httpd.shutdown()
        httpd.server_close()


def _milliseconds(text: str) -> int:
    return int(datetime.fromisoformat(text).timestamp() * 1000)
