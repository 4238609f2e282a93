"""One HTTP connection, with the standard library's client; ``management.py`` sends through it.

RabbitMQ's management API needs no more: one server, one request at a time, small bodies. A larger
client library costs a command 0.1 s and more before it has sent a byte. No proxy is used, and a
server's certificate is verified by the system's CAs or by the given one.
"""

from __future__ import annotations

import http.client
import ssl
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

_CONNECT_SECONDS = 10.0
_READ_SECONDS = 300.0
"""Importing 100 topics takes RabbitMQ a while."""
_IDLE_SECONDS = 5.0
"""Age at which an idle connection is replaced: the server may be about to close it."""


class ConnectError(Exception):
    """No connection to the server; nothing was sent."""


class TransportError(Exception):
    """The connection ended before the whole response had been received."""


@dataclass(frozen=True, slots=True)
class Response:
    """The response to one request."""

    status: int
    reason: str = ""
    body: bytes = b""


class HttpTransport:
    """A connection that is opened at the first request and kept for the next ones. Thread-safe."""

    def __init__(self, context: ssl.SSLContext | None = None) -> None:
        """Verify an ``https`` server by ``context``; None: by the CAs of the system."""
        self._context = context
        self._connection: http.client.HTTPConnection | None = None
        self._last_used = 0.0
        self._lock = threading.Lock()

    def send(
        self, method: str, url: str, headers: Mapping[str, str], body: bytes | None
    ) -> Response:
        """Send a request and return its response. Raises ConnectError or TransportError."""
        with self._lock:
            if time.monotonic() - self._last_used > _IDLE_SECONDS:
                self._close()
            connection = self._connect(url)
            parts = urlsplit(url)
            target = f"{parts.path}?{parts.query}" if parts.query else parts.path
            try:
                connection.request(method, target, body, dict(headers))
                answer = connection.getresponse()
                response = Response(answer.status, answer.reason, answer.read())
            except (OSError, http.client.HTTPException) as error:
                self._close()
                raise TransportError(str(error) or type(error).__name__) from error
            except BaseException:
                self._close()
                raise
            self._last_used = time.monotonic()
            if connection.sock is None:  # the server asked for that
                self._close()
            return response

    def close(self) -> None:
        """Close the connection; the next request opens another."""
        with self._lock:
            self._close()

    def _connect(self, url: str) -> http.client.HTTPConnection:
        if self._connection is not None:
            return self._connection
        parts = urlsplit(url)
        host = parts.hostname or ""
        connection = (
            http.client.HTTPSConnection(
                host, parts.port, timeout=_CONNECT_SECONDS, context=self._context
            )
            if parts.scheme == "https"
            else http.client.HTTPConnection(host, parts.port, timeout=_CONNECT_SECONDS)
        )
        try:
            connection.connect()
        except OSError as error:
            connection.close()
            raise ConnectError(str(error) or type(error).__name__) from error
        connection.sock.settimeout(_READ_SECONDS)
        self._connection = connection
        return connection

    def _close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None
