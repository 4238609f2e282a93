"""RabbitMQ's management API: the only code that speaks to it, and where its errors become ours.

Called by ``expose/apply.py`` (as its Broker), by ``expose/status.py``, and by ``broker/node.py``
to see whether the node is ready. Source of the paths: the HTTP API page that the management
plugin itself serves at ``/api/``.
"""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.parse import quote

import httpx
import stamina

from stackbus.errors import BrokerError, BrokerUnreachable, InputError

_TIMEOUT = httpx.Timeout(10.0, read=300.0)  # seconds; importing 100 topics takes a while
_MOST_ERROR = 300


class Management:
    """One broker's management API, over one pooled connection."""

    def __init__(
        self,
        url: str,
        user: str,
        password: str,
        *,
        ca: Path | str | None = None,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        """Speak to ``url`` (``https://host:15671``).

        ``ca``, a file or the PEM text itself, verifies a private CA's server.

        Raises InputError for a URL or a CA file that cannot be used.
        """
        try:
            parsed = httpx.URL(url)
            if parsed.scheme not in ("http", "https") or not parsed.host or parsed.password:
                raise InputError(
                    f"management URL {_without_password(url)}: http:// or https:// and a host, "
                    "without a password, were expected"
                )
            verify = _verifying(ca) if ca else True
            self._http = httpx.Client(
                base_url=parsed.join("api/") if parsed.path.endswith("/") else url + "/api/",
                auth=(user, password),
                timeout=_TIMEOUT,
                verify=verify,
                transport=transport,
            )
        except httpx.InvalidURL as error:
            raise InputError(f"management URL: {error}") from None
        except (OSError, ssl.SSLError) as error:
            place = ca if isinstance(ca, Path) else "ca_cert"
            raise InputError(f"{place}: no CA certificate: {error}") from None
        self.url = url

    def __enter__(self) -> Self:
        """Give itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close the connection."""
        self._http.close()

    def definitions(self) -> Mapping[str, object]:
        """Give everything that the broker has, as ``GET /api/definitions``."""
        value = self._json("definitions")
        if not isinstance(value, dict) or "vhosts" not in value:
            raise BrokerError(f"{self.url}: its definitions are no RabbitMQ's")
        return value

    def import_definitions(self, definitions: Mapping[str, object]) -> None:
        """Create and change what ``definitions`` holds, in one call."""
        self._request("POST", "definitions", definitions)

    def global_parameter(self, name: str) -> Mapping[str, object] | None:
        """Give the value of a global parameter, None if there is none."""
        for one in self._list("global-parameters"):
            value = one.get("value")
            if one.get("name") == name and isinstance(value, dict):
                return value
        return None

    def put_global_parameter(self, name: str, value: Mapping[str, object]) -> None:
        """Write a global parameter."""
        self._request("PUT", _path("global-parameters", name), {"name": name, "value": value})

    def delete(self, *path: str) -> None:
        """Send DELETE to ``path``, such as ``queues``, vhost, name. 404 is no error."""
        self._request("DELETE", _path(*path))

    def delete_binding(
        self,
        vhost: str,
        source: str,
        destination_type: str,
        destination: str,
        routing_key: str,
        arguments: Mapping[str, object],
    ) -> None:
        """Delete one binding. Its path holds a key that only RabbitMQ can compute."""
        path = _path("bindings", vhost, "e", source, destination_type[0], destination)
        for binding in self._list(path):
            if (binding["routing_key"], binding["arguments"]) == (routing_key, arguments):
                self._request("DELETE", f"{path}/{quote(str(binding['properties_key']), safe='')}")

    def close_connections(self, user: str) -> None:
        """Close every connection of ``user``.

        RabbitMQ does so itself when a user is deleted; here it is done again, so that it also
        holds for a connection that was being opened at that moment. It answers 500 for one that
        is just ending; so whatever it refuses, it is asked again which are left.
        """
        for attempt in stamina.retry_context(on=_may_be_ending, attempts=6, wait_max=2.0):
            with attempt:
                for connection in self._list("connections?columns=name,user"):
                    if connection.get("user") == user:
                        self._request("DELETE", _path("connections", str(connection["name"])))

    def overview(self) -> Mapping[str, object]:
        """Give ``GET /api/overview``: version, listeners."""
        value = self._json("overview")
        if not isinstance(value, dict) or "rabbitmq_version" not in value:
            raise BrokerError(f"{self.url}: no RabbitMQ management API answers there")
        return value

    def listener(self, protocol: str) -> int | None:
        """Tell the port of a listener (``amqp``, ``amqp/ssl``), None if there is none."""
        listeners = self.overview().get("listeners")
        for one in listeners if isinstance(listeners, list) else []:
            if one.get("protocol") == protocol:
                return int(one["port"])
        return None

    def queues(self, vhost: str) -> list[dict[str, object]]:
        """List a vhost's queues with their counts (a few seconds old)."""
        return self._list(_path("queues", vhost))

    def queue(self, vhost: str, name: str) -> dict[str, object] | None:
        """Give one queue with its counts and its consumers, None if there is none."""
        response = self._request("GET", _path("queues", vhost, name), absent=True)
        if response.status_code == httpx.codes.NOT_FOUND:
            return None
        return _objects([_decoded(response, self.url)], self.url)[0]

    def peek(self, vhost: str, queue: str, count: int) -> list[dict[str, object]]:
        """Look at up to ``count`` messages of a queue without taking them."""
        options = {
            "count": count,
            "ackmode": "ack_requeue_true",
            "encoding": "auto",
            "truncate": 1,
        }
        response = self._request("POST", _path("queues", vhost, queue, "get"), options)
        return _objects(_decoded(response, self.url), self.url)

    def _list(self, path: str) -> list[dict[str, object]]:
        return _objects(self._json(path), self.url)

    def _json(self, path: str) -> object:
        return _decoded(self._request("GET", path), self.url)

    def _request(
        self, method: str, path: str, body: object = None, *, absent: bool = False
    ) -> httpx.Response:
        """Send a request; 404 is an answer to DELETE, and with ``absent`` to others too."""
        try:
            response = self._http.request(method, path, json=body)
        except httpx.ConnectError as error:
            raise BrokerUnreachable(
                f"{self.url}: RabbitMQ's management API does not answer ({error}); is the broker "
                "up, and is the URL right?"
            ) from error
        except httpx.HTTPError as error:
            raise BrokerUnreachable(
                f"{self.url}: RabbitMQ's management API broke off: {type(error).__name__}: {error}"
            ) from error
        if response.status_code == httpx.codes.NOT_FOUND and (absent or method == "DELETE"):
            return response
        if response.status_code == httpx.codes.UNAUTHORIZED:
            raise BrokerError(f"{self.url}: RabbitMQ refuses this administrator's name or password")
        if response.is_error:
            raise BrokerError(
                f"{self.url}: RabbitMQ answered {response.status_code} to {method} "
                f"{path.partition('?')[0]}: {_reason(response)}"
            )
        return response


def _may_be_ending(error: Exception) -> bool:
    return isinstance(error, BrokerError) and not isinstance(error, BrokerUnreachable)


def _verifying(ca: Path | str) -> ssl.SSLContext:
    if isinstance(ca, Path):
        return ssl.create_default_context(cafile=str(ca))
    return ssl.create_default_context(cadata=ca)


def _path(*parts: str) -> str:
    return "/".join(quote(part, safe="") for part in parts)


def _decoded(response: httpx.Response, url: str) -> object:
    try:
        return response.json()
    except ValueError as error:
        raise BrokerError(
            f"{url}: RabbitMQ's answer is no JSON, or half of one; try again"
        ) from error


def _objects(value: object, url: str) -> list[dict[str, object]]:
    if not isinstance(value, list) or not all(isinstance(one, dict) for one in value):
        raise BrokerError(f"{url}: a list was expected of RabbitMQ")
    return value


def _reason(response: httpx.Response) -> str:
    try:
        value = response.json()
        reason = value.get("reason") or value.get("error") if isinstance(value, dict) else value
    except ValueError:
        reason = response.reason_phrase
    return str(reason)[:_MOST_ERROR]


def _without_password(url: str) -> str:
    head, at, tail = url.rpartition("@")
    return f"{head.split('://')[0]}://***@{tail}" if at else url
