"""The client of RabbitMQ's management API, which translates its errors into stackbus' own.

``expose/`` applies changes and reads the status with it; ``stackbus up`` waits with it until the
node is ready. The management plugin serves the documentation of the paths at ``/api/``.
"""

from __future__ import annotations

import base64
import json
import ssl
from collections.abc import Mapping
from http import HTTPStatus
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.parse import quote, urlsplit

from stackbus.clients.http import ConnectError, HttpTransport, Response, TransportError
from stackbus.errors import BrokerError, BrokerUnreachable, InputError

_MAX_REASON = 300  # characters of RabbitMQ's reason in an error


class Management:
    """One broker's management API, over one pooled connection."""

    def __init__(
        self,
        url: str,
        user: str,
        password: str,
        *,
        ca: Path | str | None = None,
        transport: HttpTransport | None = None,
    ) -> None:
        """Use the management API at ``url`` (``https://host:15671``) as ``user``.

        ``ca``, a file or the PEM text itself, is the CA of a server that no public CA certified.
        ``transport`` replaces the connection to the server.

        Raises InputError for an unusable URL or CA certificate.
        """
        _check_url(url)
        try:
            self._transport = transport or HttpTransport(_create_context(ca) if ca else None)
        except (OSError, ssl.SSLError) as error:
            origin = ca if isinstance(ca, Path) else "ca_cert"
            raise InputError(f"{origin}: not a CA certificate (PEM): {error}") from None
        credentials = base64.b64encode(f"{user}:{password}".encode()).decode()
        self._headers = {
            "Accept": "*/*",  # user-limits offers no JSON
            "Authorization": f"Basic {credentials}",
            "Content-Type": "application/json",
        }
        self.url = url

    def __enter__(self) -> Self:
        """Return this client."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close the connection."""
        self._transport.close()

    def definitions(self) -> Mapping[str, object]:
        """Return all definitions of the broker, as ``GET /api/definitions``."""
        value = self._json("definitions")
        if not isinstance(value, dict) or "vhosts" not in value:
            raise BrokerError(
                f"{self.url}: the answer to GET definitions is not RabbitMQ's: check the URL"
            )
        return value

    def import_definitions(self, definitions: Mapping[str, object]) -> None:
        """Create and change everything in ``definitions``, in one request."""
        self._request("POST", "definitions", definitions)

    def global_parameter(self, name: str) -> Mapping[str, object] | None:
        """Return the value of a global parameter, None if it does not exist."""
        for parameter in self._list("global-parameters"):
            value = parameter.get("value")
            if parameter.get("name") == name and isinstance(value, dict):
                return value
        return None

    def put_global_parameter(self, name: str, value: Mapping[str, object]) -> None:
        """Create or replace a global parameter."""
        self._request("PUT", _path("global-parameters", name), {"name": name, "value": value})

    def delete(self, *path: str) -> None:
        """Send DELETE to ``path``: ``queues``, vhost, name. A missing object is no error."""
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

        RabbitMQ closes them when a user is deleted, but not a connection that is being opened at
        that moment. It answers 500 for a connection that is just ending; after any refusal the
        list is read again and the rest is closed.
        """
        import stamina  # noqa: PLC0415 -- 40 ms that most commands do not need

        for attempt in stamina.retry_context(on=_is_refusal, attempts=6, wait_max=2.0):
            with attempt:
                for connection in self._list("connections?columns=name,user"):
                    if connection.get("user") == user:
                        self._request("DELETE", _path("connections", str(connection["name"])))

    def overview(self) -> Mapping[str, object]:
        """Return ``GET /api/overview``: version and listeners."""
        value = self._json("overview")
        if not isinstance(value, dict) or "rabbitmq_version" not in value:
            raise BrokerError(f"{self.url}: not RabbitMQ's management API: check the URL")
        return value

    def listener(self, protocol: str) -> int | None:
        """Return the port of a listener (``amqp``, ``amqp/ssl``), None if it does not exist."""
        listeners = self.overview().get("listeners")
        for listener in listeners if isinstance(listeners, list) else []:
            if listener.get("protocol") == protocol:
                return int(listener["port"])
        return None

    def queues(self, vhost: str) -> list[dict[str, object]]:
        """Return the queues of a vhost with their counts, which are a few seconds old."""
        return self._list(_path("queues", vhost))

    def queue(self, vhost: str, name: str) -> dict[str, object] | None:
        """Return one queue with its counts and consumers, None if it does not exist."""
        response = self._request("GET", _path("queues", vhost, name), may_be_missing=True)
        if response.status == HTTPStatus.NOT_FOUND:
            return None
        return _check_objects([_decode(response, self.url)], self.url)[0]

    def peek(self, vhost: str, queue: str, count: int) -> list[dict[str, object]]:
        """Return up to ``count`` messages of a queue and leave them in it."""
        options = {
            "count": count,
            "ackmode": "ack_requeue_true",
            "encoding": "auto",
            "truncate": 1,
        }
        response = self._request("POST", _path("queues", vhost, queue, "get"), options)
        return _check_objects(_decode(response, self.url), self.url)

    def _list(self, path: str) -> list[dict[str, object]]:
        return _check_objects(self._json(path), self.url)

    def _json(self, path: str) -> object:
        return _decode(self._request("GET", path), self.url)

    def _request(
        self, method: str, path: str, body: object = None, *, may_be_missing: bool = False
    ) -> Response:
        """Send a request. 404 is an error, except for DELETE and with ``may_be_missing``."""
        url = f"{self.url.rstrip('/')}/api/{path}"
        content = None if body is None else json.dumps(body).encode()
        try:
            response = self._transport.send(method, url, self._headers, content)
        except ConnectError as error:
            raise BrokerUnreachable(
                f"{self.url}: RabbitMQ's management API does not answer ({error}): check that the "
                "broker is running and that the URL is right"
            ) from error
        except TransportError as error:
            raise BrokerUnreachable(
                f"{self.url}: the connection to RabbitMQ's management API was lost: {error}"
            ) from error
        if response.status == HTTPStatus.NOT_FOUND and (may_be_missing or method == "DELETE"):
            return response
        if response.status == HTTPStatus.UNAUTHORIZED:
            raise BrokerError(f"{self.url}: RabbitMQ refused the administrator's name or password")
        if response.status >= HTTPStatus.BAD_REQUEST:
            raise BrokerError(
                f"{self.url}: RabbitMQ answered {response.status} to {method} "
                f"{path.partition('?')[0]}: {_reason(response)}"
            )
        return response


def _is_refusal(error: Exception) -> bool:
    return isinstance(error, BrokerError) and not isinstance(error, BrokerUnreachable)


def _check_url(url: str) -> None:
    try:
        parts = urlsplit(url)
        is_usable = (
            parts.scheme in ("http", "https")
            and bool(parts.hostname)
            and parts.password is None
            and parts.port != 0
        )
    except ValueError:  # not a port, or not an IPv6 address
        is_usable = False
    if not is_usable:
        raise InputError(
            f"management URL {_mask_password(url)}: must be http:// or https:// and a host, "
            "without a password"
        )


def _create_context(ca: Path | str) -> ssl.SSLContext:
    if isinstance(ca, Path):
        return ssl.create_default_context(cafile=str(ca))
    return ssl.create_default_context(cadata=ca)


def _path(*parts: str) -> str:
    return "/".join(quote(part, safe="") for part in parts)


def _decode(response: Response, url: str) -> object:
    try:
        return json.loads(response.body)
    except ValueError as error:
        raise BrokerError(
            f"{url}: RabbitMQ's answer is not JSON, or incomplete: try again"
        ) from error


def _check_objects(value: object, url: str) -> list[dict[str, object]]:
    if not isinstance(value, list) or not all(isinstance(member, dict) for member in value):
        raise BrokerError(f"{url}: RabbitMQ's answer is not a list of objects: check the URL")
    return value


def _reason(response: Response) -> str:
    try:
        value = json.loads(response.body)
        reason = value.get("reason") or value.get("error") if isinstance(value, dict) else value
    except ValueError:
        reason = response.reason
    return str(reason)[:_MAX_REASON]


def _mask_password(url: str) -> str:
    head, at, tail = url.rpartition("@")
    return f"{head.split('://')[0]}://***@{tail}" if at else url
