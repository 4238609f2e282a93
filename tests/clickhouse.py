"""ClickHouse's HTTP interface in front of the embedded engine, for tests: no server comes as a package.

The engine is the real one (chDB), and so is the driver that speaks to this; only the HTTP between
them is made here, after "HTTP Interface" in ClickHouse's reference: the statement in ``query`` or in
the body, ``param_*`` and settings in the URL, errors with their code in a header. It has never been
held against a real server's. Run as a process, since one process can open one engine:
``python -m tests.clickhouse FOLDER`` prints its port.
"""

from __future__ import annotations

import base64
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import chdb

USER, PASSWORD = "stackbus", "s3cret&word"
_OF_HTTP = re.compile(
    r"param_\w+|query|database|session_\w+|query_id|(de)?compress|wait_end_of_query|role|"
    r"client_protocol_version|buffer_size|enable_http_compression|send_progress_in_http_headers|"
    r"http_headers_progress_interval_ms|default_format|cancel_http_readonly_queries_on_client_close"
)
_CODE = re.compile(r"Code: (\d+)")
_turn = threading.Lock()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    engine: Any

    def do_GET(self) -> None:
        self._answer(b"")

    def do_POST(self) -> None:
        self._answer(self.rfile.read(int(self.headers.get("Content-Length") or 0)))

    def _answer(self, body: bytes) -> None:
        given = dict(parse_qsl(urlsplit(self.path).query, keep_blank_values=True))
        wanted = "Basic " + base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
        if self.headers.get("Authorization") != wanted:
            self._send(403, b"Code: 516. DB::Exception: Authentication failed.", "516")
            return
        statement = given.get("query", "").encode()
        text = (statement + b"\n" + body if statement else body).decode()
        parameters = {
            name.removeprefix("param_"): value
            for name, value in given.items()
            if name.startswith("param_")
        }
        settings = ", ".join(
            f"{name} = '{value}'" for name, value in given.items() if not _OF_HTTP.fullmatch(name)
        )
        try:
            with _turn:
                self.engine.query(f"USE `{given.get('database', 'default')}`")
                if settings:
                    self.engine.query(f"SET {settings}")
                found = self.engine.query(
                    text, given.get("default_format", "TabSeparated"), params=parameters
                )
                answer = found.bytes() if found is not None else b""
        except RuntimeError as error:
            code = _CODE.search(str(error))
            self._send(500, str(error).encode(), code[1] if code else "0")
            return
        self._send(200, answer, None)

    def _send(self, status: int, body: bytes, code: str | None) -> None:
        self.send_response(status)
        if code is not None:
            self.send_header("X-ClickHouse-Exception-Code", code)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def clickhouse(folder: Path) -> Iterator[str]:
    """Run a server with its data in ``folder``; give the DSN of its database."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.clickhouse", str(folder)], stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        port = int(process.stdout.readline())
        yield f"clickhouse://{USER}:s3cret%26word@127.0.0.1:{port}/default"
    finally:
        process.kill()
        process.communicate()


if __name__ == "__main__":
    _Handler.engine = chdb.connect(sys.argv[1])
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    sys.stdout.write(f"{server.server_port}\n")
    sys.stdout.flush()
    server.serve_forever()
