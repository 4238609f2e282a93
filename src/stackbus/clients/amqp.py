"""Connect to RabbitMQ over AMQP 0-9-1 with pika, and translate its errors into stackbus' own.

A connection is described by a URL with a password, or by a topic's Secret with a password or a
client certificate. The relay and the consumers of a topic publish and consume on it themselves.
"""

from __future__ import annotations

import os
import ssl
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import pika
import pika.connection
import pika.exceptions
import structlog
from pika.credentials import ExternalCredentials

from stackbus.errors import BrokerError, BrokerUnreachable, InputError, StackbusError

_TIMEOUT = 10.0  # seconds to open a connection
_LAST_PORT = 65535
HEARTBEAT = 30  # seconds: the default of the setting amqp_heartbeat

log = structlog.get_logger()

Parameters = pika.connection.Parameters
"""How to connect to one host of RabbitMQ."""

P = TypeVar("P", bound=Parameters)


class BatchingConnection(pika.SelectConnection):
    """A pika connection that writes to its socket once per turn of the event loop.

    pika makes three system calls for a publish (method, header, body) and one for each
    acknowledgement. This class collects the frames of a turn and writes them together at its end,
    which makes the relay a fifth faster (``make bench``).
    """

    def __init__(self, *arguments: Any, **named: Any) -> None:
        self._unsent: list[bytes] = []
        super().__init__(*arguments, **named)

    def _adapter_emit_data(self, data: bytes) -> None:
        """Collect ``data`` until the end of this turn (pika's hook for adapters)."""
        if not self._unsent:
            self.ioloop.call_later(0, self._emit)
        self._unsent.append(data)

    def _emit(self) -> None:
        data = b"".join(self._unsent)
        self._unsent.clear()
        if self._transport is not None:  # type: ignore[attr-defined] # None once closed
            super()._adapter_emit_data(data)  # type: ignore[misc] # the stubs know no hooks

    def drop(self) -> None:
        """Close the socket without the closing handshake of AMQP.

        ``close`` cancels the consumers first, and RabbitMQ 4.3 then requeues their unacknowledged
        messages out of order. After a lost connection it requeues them in order.
        """
        if not self.is_closed:
            reason = pika.exceptions.AMQPConnectionError("dropped")
            self._terminate_stream(reason)  # type: ignore[attr-defined]


def url_parameters(
    url: str, name: str, ca: Path | None = None, *, heartbeat: int = HEARTBEAT
) -> Parameters:
    """Parse ``amqp[s]://user:password@host:port/vhost``.

    ``name`` identifies the connection in RabbitMQ's lists. Raises InputError, which does not quote
    the URL: its password is a secret.
    """
    if not url.startswith(("amqp://", "amqps://")):
        raise InputError(f"{name}: an AMQP URL begins with amqp:// or amqps://")
    try:
        parameters = pika.URLParameters(url)
        if url.startswith("amqps://"):
            context = ssl.create_default_context(cafile=str(ca) if ca else None)
            parameters.ssl_options = pika.SSLOptions(context, parameters.host)
    except (ValueError, TypeError, OSError) as error:
        raise InputError(f"{name}: this AMQP URL cannot be used: {type(error).__name__}") from None
    return _set_common(parameters, name, heartbeat)


def consumer_parameters(
    secret: Mapping[str, str],
    name: str,
    *,
    by_password: bool,
    plain: bool,
    heartbeat: int = HEARTBEAT,
) -> list[Parameters]:
    """Build the parameters of a topic's consumer from its Secret, one for each host.

    ``plain`` connects without TLS, and so by password. Raises InputError for a Secret in which a
    key is missing or has an unusable value.
    """
    try:
        port = _parse_port(secret, "port_amqp" if plain else "port_amqp-tls")
        context = None if plain else _create_context(secret, with_certificate=not by_password)
        credentials = (
            pika.PlainCredentials(secret["username"], secret["password"])
            if by_password or plain
            else ExternalCredentials()
        )
        return [
            _set_common(
                pika.ConnectionParameters(
                    host=host.strip(),
                    port=port,
                    virtual_host=secret["vhost"],
                    credentials=credentials,
                    ssl_options=pika.SSLOptions(context, host) if context else None,
                ),
                name,
                heartbeat,
            )
            for host in secret["hosts"].split(",")
        ]
    except KeyError as error:
        raise InputError(f"the Secret has no key {error}") from None


@contextmanager
def open_connection(parameters: list[Parameters]) -> Iterator[pika.BlockingConnection]:
    """Connect to the first host that answers, and close the connection at the end.

    pika's errors are translated. An OSError after connecting is the caller's own (a full disk, a
    closed pipe) and is not translated: pika reports a lost connection by an AMQPError.
    """
    try:
        connection = _connect_to_any(parameters)
    except (pika.exceptions.AMQPError, OSError) as error:
        raise translate_error(error) from error
    try:
        try:
            yield connection
        finally:
            if connection.is_open:
                connection.close()
    except pika.exceptions.AMQPError as error:
        raise translate_error(error) from error


def _connect_to_any(hosts: list[Parameters]) -> pika.BlockingConnection:
    *first_hosts, last_host = hosts
    for parameters in first_hosts:
        try:
            return pika.BlockingConnection(parameters)
        except (pika.exceptions.AMQPError, OSError) as error:
            log.warning("amqp.next_host", host=parameters.host, reason=str(translate_error(error)))
    return pika.BlockingConnection(last_host)


def translate_error(error: BaseException) -> StackbusError:
    """Return the error of stackbus that corresponds to pika's, with a sentence for the user."""
    cause = _find_cause(error)
    if cause is not None:
        return translate_error(cause)
    if type(error) is pika.exceptions.AMQPConnectionError and error.args:
        return BrokerUnreachable(str(error.args[0]))
    if isinstance(error, pika.exceptions.ChannelClosedByBroker):
        return BrokerError(f"RabbitMQ refused: {error.reply_text}")
    if isinstance(error, pika.exceptions.ProbableAuthenticationError):
        return BrokerError("RabbitMQ refused the login: wrong password, or revoked credentials")
    if isinstance(error, pika.exceptions.AuthenticationError):
        return BrokerError("RabbitMQ does not support this authentication mechanism")
    if isinstance(error, pika.exceptions.ProbableAccessDeniedError):
        return BrokerError("RabbitMQ refused this user access to the vhost")
    if isinstance(error, ssl.SSLError):
        return BrokerError(f"TLS: {error.reason or error}")
    if isinstance(error, OSError):
        return BrokerUnreachable(f"RabbitMQ does not answer: {error}")
    return BrokerError(f"RabbitMQ closed the connection: {error!r}")


def _find_cause(error: BaseException) -> BaseException | None:
    """Return the exception that pika's connection workflow put into its own, None if none."""
    cause = getattr(error, "exceptions", None) or getattr(error, "exception", None)
    if cause is None and type(error) is pika.exceptions.AMQPConnectionError and error.args:
        cause = error.args[0]
    if isinstance(cause, list | tuple) and cause:
        cause = cause[-1]
    return cause if isinstance(cause, BaseException) else None


def _parse_port(secret: Mapping[str, str], key: str) -> int:
    text = secret[key]
    if not text.isdecimal() or not 0 < int(text) <= _LAST_PORT:
        raise InputError(f"the Secret's {key} is not a port number: {text!r}")
    return int(text)


def _set_common(parameters: P, name: str, heartbeat: int) -> P:
    parameters.heartbeat = heartbeat
    parameters.socket_timeout = _TIMEOUT
    parameters.blocked_connection_timeout = None  # wait for a blocked bus
    parameters.client_properties = {"connection_name": name}
    return parameters


def _create_context(secret: Mapping[str, str], *, with_certificate: bool) -> ssl.SSLContext:
    ca_cert = secret["ca_cert"]
    try:
        context = ssl.create_default_context(cadata=ca_cert)
    except (ValueError, ssl.SSLError) as error:
        raise InputError(f"the Secret's ca_cert is not a certificate: {error}") from None
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if with_certificate:
        _load_certificate(context, secret["client_cert"], secret["client_key"])
    return context


def _load_certificate(context: ssl.SSLContext, certificate: str, key: str) -> None:
    """Load a client certificate through a temporary file: the ssl module reads only files."""
    handle, path = tempfile.mkstemp(prefix="stackbus-")  # readable by this user only
    try:
        with os.fdopen(handle, "w", encoding="ascii") as file:
            file.write(certificate + key)
        context.load_cert_chain(path)
    except (ValueError, ssl.SSLError) as error:
        raise InputError(
            f"the Secret's client_cert and client_key are not a certificate and its key: {error}"
        ) from None
    finally:
        Path(path).unlink()
