"""Who may log in, with what: the consumers' and the bus' own users, and the certificates.

Called by ``apply.py``: ``renewed`` reads what is kept, keeps what is good and makes what is
missing, ending or broken. The result goes to ``topology.py`` (users) and to the Secrets. The
clock is an argument; passwords and keys are drawn from the system's random source.
"""

from __future__ import annotations

import base64
import hashlib
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from stackbus.expose import certificates
from stackbus.expose.certificates import Pair
from stackbus.expose.deployment import Deployment
from stackbus.expose.secrets import NAMESPACE, OWN_NAMESPACE, Secret, SecretStore
from stackbus.services import SERVICES

RELAY = "stackbus.relay"
TAIL = "stackbus.tail"
OWN_USERS = (RELAY, TAIL, *(f"stackbus.service.{service.name}" for service in SERVICES))
"""The bus' own users: the relay, the temporary queues of ``tail``, and one for each service."""

_MAX_USERNAME = 64
"""Characters of a certificate's CN at most (X.520, ub-common-name)."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where consumers connect: what the Secret says and the server's certificate names.

    ``names``: by which the broker is known inside the cloud; the certificate bears them too.
    """

    hosts: tuple[str, ...]
    port_amqp: int
    port_amqps: int
    vhost: str
    names: tuple[str, ...] = ()

    @property
    def certified(self) -> tuple[str, ...]:
        """Give every name and address that the server's certificate bears."""
        return tuple(dict.fromkeys((*self.hosts, *self.names)))


@dataclass(frozen=True, slots=True)
class Retiring:
    """A generation that still works until its grace time is over."""

    generation: int
    until: datetime
    password_hash: str


@dataclass(frozen=True, slots=True)
class Generations:
    """The current generation of a topic's credentials, and the ones in their grace time.

    ``rotated_at``: when the current one began, None for the first.
    """

    current: int = 1
    retiring: tuple[Retiring, ...] = ()
    rotated_at: datetime | None = None

    def without_expired(self, now: datetime) -> Generations:
        """Drop what is past its grace time."""
        return replace(
            self, retiring=tuple(retired for retired in self.retiring if retired.until > now)
        )

    def rotated(self, now: datetime, grace: timedelta, password_hash: str | None) -> Generations:
        """Begin the next generation; this one stays for ``grace`` (zero: it goes at once)."""
        kept = self.without_expired(now).retiring if grace else ()
        if grace and password_hash is not None:
            kept = (*kept, Retiring(self.current, now + grace, password_hash))
        return Generations(self.current + 1, kept, now)


@dataclass(frozen=True, slots=True)
class Consumer:
    """One topic's current credentials."""

    topic: str
    username: str
    password: str = field(repr=False)
    client: Pair = field(repr=False)


@dataclass(frozen=True, slots=True)
class Credentials:
    """Everything that is kept in Secrets, as it should be after an apply."""

    ca: Pair = field(repr=False)
    server: Pair = field(repr=False)
    own_passwords: Mapping[str, str] = field(repr=False)
    consumers: tuple[Consumer, ...]
    endpoint: Endpoint

    def secrets(self) -> tuple[Secret, ...]:
        """Give the Secrets that hold it, the administrator's first.

        A consumer's is there twice: the original among the administrator's, and the copy that the
        consumer reads. Whatever becomes of the copy, it can be put back as it was.
        """
        own = (
            Secret(OWN_NAMESPACE, "stackbus-ca", _pair_data(self.ca)),
            Secret(
                OWN_NAMESPACE,
                "stackbus-server",
                {**_pair_data(self.server), "ca.crt": self.ca.certificate},
            ),
            Secret(OWN_NAMESPACE, "stackbus-users", self.own_passwords),
        )
        return own + tuple(
            self._consumer_secret(consumer, namespace)
            for namespace in (OWN_NAMESPACE, NAMESPACE)
            for consumer in self.consumers
        )

    def _consumer_secret(self, consumer: Consumer, namespace: str) -> Secret:
        return Secret(
            namespace,
            secret_name(consumer.topic),
            {
                "hosts": ",".join(self.endpoint.hosts),
                "port_amqp": str(self.endpoint.port_amqp),
                "port_amqp-tls": str(self.endpoint.port_amqps),
                "vhost": self.endpoint.vhost,
                "username": consumer.username,
                "password": consumer.password,
                "ca_cert": self.ca.certificate,
                "client_cert": consumer.client.certificate,
                "client_key": consumer.client.key,
            },
        )


def secret_name(topic: str) -> str:
    """Name the Secret of a topic."""
    return f"openstack-{topic}-notifications"


def topic_of(name: str) -> str | None:
    """Give the topic whose Secret is named so, None if it is none's."""
    topic = name.removeprefix("openstack-").removesuffix("-notifications")
    return topic if topic and secret_name(topic) == name else None


def is_of_topic(name: str) -> bool:
    """Tell whether a Secret is named as a topic's."""
    return topic_of(name) is not None


def username(topic: str, generation: int) -> str:
    """Name a topic's user; a name too long for a certificate's CN ends in its own digest."""
    name = f"{topic}.g{generation}"
    if len(name) <= _MAX_USERNAME:
        return name
    digest = hashlib.sha256(topic.encode()).hexdigest()[:16]
    tail = f"-{digest}.g{generation}"
    return topic[: _MAX_USERNAME - len(tail)] + tail


def hash_password(password: str) -> str:
    """Hash as RabbitMQ does: base64 of a 4-byte salt and SHA-256 of salt and password.

    Source: rabbit_password_hashing_sha256.erl, and "Password Hashing" in RabbitMQ's guides.
    """
    return _hash(secrets.token_bytes(4), password)


def is_password(password: str, password_hash: str) -> bool:
    """Tell whether RabbitMQ's ``password_hash`` is of ``password``."""
    try:
        salt = base64.b64decode(password_hash)[:4]
    except ValueError:
        return False
    return secrets.compare_digest(_hash(salt, password), password_hash)


def renewed(
    store: SecretStore,
    deployment: Deployment,
    generations: Mapping[str, Generations],
    endpoint: Endpoint,
    now: datetime,
    *,
    certificate_days: float,
    renew_days: float,
) -> Credentials:
    """Read what ``store`` keeps for ``deployment``, and make anew what is missing or ending.

    ``generations``: of the topics that are exposed already. Only theirs are taken from what the
    consumers read, where there is no original yet: a Secret that was there before its topic is
    nobody's credentials. Nothing is written: that is ``apply.py``'s.
    """
    ca = _pair(store.read(OWN_NAMESPACE, "stackbus-ca"))
    if not certificates.is_ca_good(ca, now, renew_days):
        ca = certificates.new_ca(now, ca if certificates.can_sign(ca) else None)
    server = _pair(store.read(OWN_NAMESPACE, "stackbus-server"))
    if not certificates.is_server_good(server, ca, endpoint.certified, now, renew_days):
        server = certificates.issue_server(ca, endpoint.certified, now, certificate_days)
    consumers = []
    for topic in deployment.topics:
        name = username(topic.name, generations.get(topic.name, Generations()).current)
        kept = store.read(OWN_NAMESPACE, secret_name(topic.name))
        if kept is None and topic.name in generations:
            kept = store.read(NAMESPACE, secret_name(topic.name))
        data = kept.data if kept and kept.data.get("username") == name else {}
        client = Pair(data.get("client_cert", ""), data.get("client_key", ""))
        if not certificates.is_client_good(client, ca, name, now, renew_days):
            client = certificates.issue_client(ca, name, now, certificate_days)
        consumers.append(Consumer(topic.name, name, data.get("password") or _password(), client))
    return Credentials(ca, server, own_passwords(store), tuple(consumers), endpoint)


def own_passwords(store: SecretStore) -> dict[str, str]:
    """Give the passwords of the bus' own users, with new ones for those that have none."""
    return {name: kept_password(store, name) or _password() for name in OWN_USERS}


def kept_password(store: SecretStore, user: str) -> str | None:
    """Give the kept password of one of the bus' own users; None if none was made yet."""
    kept = store.read(OWN_NAMESPACE, "stackbus-users")
    return kept.data.get(user) if kept else None


def _password() -> str:
    return secrets.token_urlsafe(32)


def _hash(salt: bytes, password: str) -> str:
    return base64.b64encode(salt + hashlib.sha256(salt + password.encode()).digest()).decode()


def _pair(secret: Secret | None) -> Pair:
    data = secret.data if secret else {}
    return Pair(data.get("tls.crt", ""), data.get("tls.key", ""))


def _pair_data(pair: Pair) -> dict[str, str]:
    return {"tls.crt": pair.certificate, "tls.key": pair.key}
