"""The credentials of consumers and of the bus' own users, and the server's certificate.

``prepare_credentials`` reads the Secrets, keeps the good credentials, and replaces the missing,
the broken and those about to expire, with ``certificates.py``. Of the result, ``topology.py`` puts
users and passwords into RabbitMQ, ``apply.py`` writes the Secrets, and the doors install the
server's certificate. The clock is an argument; passwords and keys come from the system's random
source.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from stackbus.bus.names import OWN_USERS, consumer_user
from stackbus.expose import certificates
from stackbus.expose.certificates import Pair
from stackbus.expose.deployment import Deployment
from stackbus.expose.secrets import NAMESPACE, OWN_NAMESPACE, Secret, SecretStore

CA_SECRET = "stackbus-ca"  # noqa: S105 -- the name of a Secret
SERVER_SECRET = "stackbus-server"  # noqa: S105 -- the same
USERS_SECRET = "stackbus-users"  # noqa: S105 -- the same


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where consumers connect, as their Secrets say it.

    ``names``: further host names of the broker, inside the cloud, for the server's certificate.
    """

    hosts: tuple[str, ...]
    port_amqp: int
    port_amqps: int
    vhost: str
    names: tuple[str, ...] = ()

    @property
    def certificate_names(self) -> tuple[str, ...]:
        """Return every host name and address that the server's certificate must carry."""
        return tuple(dict.fromkeys((*self.hosts, *self.names)))


@dataclass(frozen=True, slots=True)
class Retiring:
    """A generation of credentials that works until its grace time is over."""

    generation: int
    until: datetime
    password_hash: str


@dataclass(frozen=True, slots=True)
class Generations:
    """The current generation of a topic's credentials, and those in their grace time.

    ``rotated_at``: when the current generation began, None for the first.
    """

    current: int = 1
    retiring: tuple[Retiring, ...] = ()
    rotated_at: datetime | None = None

    def without_expired(self, now: datetime) -> Generations:
        """Return these generations without those whose grace time is over."""
        return replace(self, retiring=tuple(old for old in self.retiring if old.until > now))

    def rotate(self, now: datetime, grace: timedelta, password_hash: str | None) -> Generations:
        """Return the generations after a rotation.

        The current one, whose password has ``password_hash``, works for ``grace``. With zero, it
        and all older ones end at once.
        """
        retiring = self.without_expired(now).retiring if grace else ()
        if grace and password_hash is not None:
            retiring = (*retiring, Retiring(self.current, now + grace, password_hash))
        return Generations(self.current + 1, retiring, now)


@dataclass(frozen=True, slots=True)
class Consumer:
    """One topic's current credentials."""

    topic: str
    username: str
    password: str = field(repr=False)
    client: Pair = field(repr=False)


@dataclass(frozen=True, slots=True)
class Credentials:
    """Everything that Secrets hold, as it should be after an apply."""

    ca: Pair = field(repr=False)
    server: Pair = field(repr=False)
    own_passwords: Mapping[str, str] = field(repr=False)
    consumers: tuple[Consumer, ...]
    endpoint: Endpoint

    def secrets(self) -> tuple[Secret, ...]:
        """Return the Secrets that hold these credentials, the administrator's first.

        Each topic has two: the original among the administrator's, and the copy that the consumer
        reads. If the copy is edited or deleted, the next apply restores it.
        """
        own_secrets = (
            Secret(OWN_NAMESPACE, CA_SECRET, _pair_data(self.ca)),
            Secret(
                OWN_NAMESPACE,
                SERVER_SECRET,
                {**_pair_data(self.server), "ca.crt": self.ca.certificate},
            ),
            Secret(OWN_NAMESPACE, USERS_SECRET, self.own_passwords),
        )
        return own_secrets + tuple(
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
    """Return the name of a topic's Secret."""
    return f"openstack-{topic}-notifications"


def topic_of_secret(name: str) -> str | None:
    """Return the topic whose Secret has this name, None if no topic's has."""
    topic = name.removeprefix("openstack-").removesuffix("-notifications")
    return topic if topic and secret_name(topic) == name else None


def is_topic_secret(name: str) -> bool:
    """Return whether a Secret has the name of a topic's."""
    return topic_of_secret(name) is not None


def prepare_credentials(
    store: SecretStore,
    deployment: Deployment,
    generations: Mapping[str, Generations],
    endpoint: Endpoint,
    now: datetime,
    *,
    certificate_days: float,
    renew_days: float,
) -> Credentials:
    """Return the credentials for ``deployment``: those in ``store``, and new ones where needed.

    ``generations``: those of the topics that are exposed already. Only for these may a missing
    original be restored from the consumer's copy: a copy that was there before its topic could
    hold anybody's credentials. Writes nothing: ``apply.py`` does.
    """
    ca = _pair(store.read(OWN_NAMESPACE, CA_SECRET))
    if not certificates.is_ca_good(ca, now, renew_days):
        ca = certificates.new_ca(now, ca if certificates.can_sign(ca) else None)
    hosts = endpoint.certificate_names
    server = _pair(store.read(OWN_NAMESPACE, SERVER_SECRET))
    if not certificates.is_server_good(server, ca, hosts, now, renew_days):
        server = certificates.issue_server(ca, hosts, now, certificate_days)
    consumers = []
    for topic in deployment.topics:
        username = consumer_user(topic.name, generations.get(topic.name, Generations()).current)
        secret = store.read(OWN_NAMESPACE, secret_name(topic.name))
        if secret is None and topic.name in generations:
            secret = store.read(NAMESPACE, secret_name(topic.name))
        is_current = secret is not None and secret.data.get("username") == username
        data = secret.data if secret and is_current else {}
        client = Pair(data.get("client_cert", ""), data.get("client_key", ""))
        if not certificates.is_client_good(client, ca, username, now, renew_days):
            client = certificates.issue_client(ca, username, now, certificate_days)
        password = data.get("password") or _new_password()
        consumers.append(Consumer(topic.name, username, password, client))
    own_passwords = {user: read_own_password(store, user) or _new_password() for user in OWN_USERS}
    return Credentials(ca, server, own_passwords, tuple(consumers), endpoint)


def read_own_password(store: SecretStore, user: str) -> str | None:
    """Return the password of one of the bus' own users; None before the first apply."""
    secret = store.read(OWN_NAMESPACE, USERS_SECRET)
    return secret.data.get(user) if secret else None


def _new_password() -> str:
    return secrets.token_urlsafe(32)


def _pair(secret: Secret | None) -> Pair:
    data = secret.data if secret else {}
    return Pair(data.get("tls.crt", ""), data.get("tls.key", ""))


def _pair_data(pair: Pair) -> dict[str, str]:
    return {"tls.crt": pair.certificate, "tls.key": pair.key}
