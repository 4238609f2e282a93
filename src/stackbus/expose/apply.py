"""Make RabbitMQ and the Secrets as a deployment wants them. The heart of the control plane.

Called by the doors (``stackbus plan``, ``apply``, ``rotate``, ``up``) and by ``cluster/`` for the
operator. ``Exposure.plan`` reads what is kept and what the broker has and gives a Plan, a value
that can be printed; ``Exposure.apply`` carries a Plan out, in an order that survives being
stopped at any call:

1. the ledger, with every name that is about to be made: what then appears is known to be ours;
2. the Secrets: no password is in the broker before it is in a Secret;
3. what must be replaced or go, users first;
4. one definitions import with everything that is to be there;
5. the Secrets and names of what is gone.

Where the outer bus has a broker of its own, 1, 3, 4 and the names are done for one after the other.
Run again after any stop, it reads anew and does what is left.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from types import MappingProxyType
from typing import Protocol

from stackbus.errors import InputError
from stackbus.expose import credentials as creds
from stackbus.expose.changes import (
    LEDGER,
    Actual,
    Change,
    Ledger,
    changes,
    secret_changes,
    withdrawal,
)
from stackbus.expose.credentials import Credentials, Endpoint, Generations, hash_password
from stackbus.expose.deployment import Deployment, Topic
from stackbus.expose.secrets import NAMESPACE, OWN_NAMESPACE, Secret, SecretStore
from stackbus.expose.topology import OWNED_KINDS, Items, Key, on_vhosts, topology
from stackbus.settings import Settings


class Broker(Protocol):
    """What the control plane needs of RabbitMQ; ``clients/management.py`` is the real one."""

    def definitions(self) -> Mapping[str, object]:
        """Give everything that the broker has."""

    def import_definitions(self, definitions: Mapping[str, object]) -> None:
        """Create and change what ``definitions`` holds; nothing else."""

    def global_parameter(self, name: str) -> Mapping[str, object] | None:
        """Give the value of a global parameter, None if there is none."""

    def put_global_parameter(self, name: str, value: Mapping[str, object]) -> None:
        """Write a global parameter."""

    def delete(self, key: Key) -> None:
        """Delete one thing; none is no error. Deleting a user closes its connections."""


@dataclass(frozen=True, slots=True)
class Side:
    """One broker, and which vhosts of ours are on it: both, or one where there are two brokers."""

    broker: Broker
    vhosts: frozenset[str]


@dataclass(frozen=True, slots=True)
class Part:
    """What one apply will do on one side."""

    side: Side = field(repr=False)
    steps: tuple[Change, ...]
    desired: Items = field(repr=False)
    actual: Actual = field(repr=False)
    ledger: Ledger = field(repr=False)


@dataclass(frozen=True, slots=True)
class Plan:
    """Everything one apply will do: what is printed (``steps``) and what it takes to do it.

    ``credentials`` are what holds afterwards, None when nothing is to be left.
    """

    secret_steps: tuple[Change, ...]
    parts: tuple[Part, ...]
    credentials: Credentials | None = field(repr=False)
    secrets: tuple[Secret, ...] = field(repr=False)

    @property
    def steps(self) -> tuple[Change, ...]:
        """Give every step: the Secrets', then RabbitMQ's."""
        return (*self.secret_steps, *(step for part in self.parts for step in part.steps))

    def __bool__(self) -> bool:
        """Tell whether there is anything to do."""
        return bool(self.steps)

    def to_json(self) -> list[dict[str, object]]:
        """Return the steps as ``plan -o json`` prints them."""
        return [step.to_json() for step in self.steps]


@dataclass(frozen=True, slots=True)
class Exposure:
    """The control plane of one bus: its broker, its Secrets, its endpoint, its clock.

    ``outer``: the broker of the outer bus, where that is another one than the inner bus'.
    """

    broker: Broker
    store: SecretStore
    endpoint: Endpoint
    settings: Settings
    clock: Callable[[], datetime]
    outer: Broker | None = None
    own_topics: tuple[Topic, ...] = ()
    """Topics of stackbus' own, which no deployment lists: the recorder's."""

    def plan(self, deployment: Deployment) -> Plan:
        """Say what ``apply`` would do. Changes nothing.

        Raises Conflict if something in the way is not ours, BrokerError.
        """
        return self._plan(deployment, self._actuals())

    def plan_rotation(self, deployment: Deployment, topic: str, *, grace: timedelta) -> Plan:
        """Say what a rotation of ``topic``'s credentials would do; zero ``grace`` revokes.

        Raises InputError for a topic that ``deployment`` does not expose.
        """
        topics = self._whole(deployment).topics
        if topic not in {one.name for one in topics}:
            known = ", ".join(one.name for one in topics) or "none"
            raise InputError(f"no topic {topic!r} is exposed; exposed: {known}")
        *before, actual = self._actuals()
        known_as = actual.ledger.topics.get(topic, Generations())
        user = actual.items.get(("user", creds.username(topic, known_as.current)))
        password_hash = str(user["password_hash"]) if user else None
        rotated = known_as.rotated(self.clock(), grace, password_hash)
        return self._plan(deployment, [*before, actual], {topic: rotated})

    def plan_withdrawal(self) -> Plan:
        """Say what taking everything of ours away would do: topics, Secrets, users, the relay's.

        A vhost goes only if nobody else has anything in it. Raises BrokerError.
        """
        parts = tuple(
            Part(side, tuple(withdrawal(actual)), {}, actual, Ledger())
            for side, actual in zip(self._sides, self._actuals(), strict=True)
        )
        return Plan(tuple(secret_changes((), {}, self._kept())), parts, None, ())

    def apply(self, plan: Plan, progress: Callable[[str], None] = lambda _: None) -> None:
        """Carry ``plan`` out."""
        for part in plan.parts:
            during = _during(part)
            if during != part.actual.ledger:
                progress("writing down what will be ours")
                part.side.broker.put_global_parameter(LEDGER, during.to_json())
        for secret in plan.secrets:
            progress(f"writing Secret {secret.name}")
            self.store.write(secret)
        for part in plan.parts:
            _remove(part, progress)
            definitions = _definitions(part)
            if definitions:
                progress("importing definitions")
                part.side.broker.import_definitions(definitions)
        for step in plan.secret_steps:
            if step.sign == "-":
                self.store.remove(step.key[1], step.key[2])
        for part in plan.parts:
            if part.ledger == _during(part):
                continue
            progress("writing down what is ours")
            if part.ledger == Ledger():
                part.side.broker.delete(("global parameter", LEDGER))
            else:
                part.side.broker.put_global_parameter(LEDGER, part.ledger.to_json())

    def generations(self) -> Mapping[str, Generations]:
        """Tell which topics are exposed, and with which credentials, as the broker remembers."""
        return Ledger.from_json(self._sides[-1].broker.global_parameter(LEDGER)).topics

    def next_expiry(self) -> datetime | None:
        """Tell when the next retiring generation ends, so that an apply removes it then."""
        return min(
            (
                retired.until
                for generations in self.generations().values()
                for retired in generations.retiring
            ),
            default=None,
        )

    @property
    def _sides(self) -> tuple[Side, ...]:
        inner, outer = self.settings.inner_vhost, self.settings.outer_vhost
        if self.outer is None:
            return (Side(self.broker, frozenset((inner, outer))),)
        return (Side(self.broker, frozenset((inner,))), Side(self.outer, frozenset((outer,))))

    def _whole(self, deployment: Deployment) -> Deployment:
        return replace(deployment, topics=(*deployment.topics, *self.own_topics))

    def _actuals(self) -> list[Actual]:
        return [Actual.from_definitions(side.broker.definitions()) for side in self._sides]

    def _kept(self) -> set[tuple[str, str]]:
        return {
            (namespace, name)
            for namespace in (NAMESPACE, OWN_NAMESPACE)
            for name in self.store.names(namespace)
        }

    def _plan(
        self,
        deployment: Deployment,
        actuals: list[Actual],
        rotated: Mapping[str, Generations] = MappingProxyType({}),
    ) -> Plan:
        deployment = self._whole(deployment)
        now = self.clock()
        known = {**actuals[-1].ledger.topics, **rotated}
        generations = {
            topic.name: known.get(topic.name, Generations()).without_expired(now)
            for topic in deployment.topics
        }
        credentials = creds.renewed(
            self.store,
            deployment,
            {topic: one for topic, one in generations.items() if topic in known},
            self.endpoint,
            now,
            certificate_days=self.settings.certificate_days,
            renew_days=self.settings.renew_days,
        )
        bus = actuals[0].bus(self.settings.inner_vhost, self.settings.outer_vhost)
        desired = topology(deployment, credentials, generations, bus, self.settings)
        wanted = credentials.secrets()
        kept = {
            (secret.namespace, secret.name): self.store.read(secret.namespace, secret.name)
            for secret in wanted
        }
        gone = {one for one in self._kept() if creds.is_of_topic(one[1])} - kept.keys()
        secret_steps = tuple(secret_changes(wanted, kept, gone))
        to_write = {step.key for step in secret_steps if step.sign != "-"}
        parts = tuple(
            _part(side, on_vhosts(desired, side.vhosts), actual, generations)
            for side, actual in zip(self._sides, actuals, strict=True)
        )
        return Plan(
            secret_steps,
            parts,
            credentials,
            tuple(s for s in wanted if ("secret", s.namespace, s.name) in to_write),
        )


def _part(
    side: Side, desired: Items, actual: Actual, generations: Mapping[str, Generations]
) -> Part:
    owned = frozenset(
        key
        for key in desired
        if key[0] in OWNED_KINDS
        and (key[0] != "vhost" or key in actual.ledger.owned or key not in actual.items)
    )
    return Part(side, tuple(changes(desired, actual)), desired, actual, Ledger(owned, generations))


def _during(part: Part) -> Ledger:
    """Give the ledger while a part is carried out: names that go are ours until they are gone."""
    return Ledger(part.actual.ledger.owned | part.ledger.owned, part.ledger.topics)


def _remove(part: Part, progress: Callable[[str], None]) -> None:
    removed = {step.key for step in part.steps if step.sign == "-" or step.replace}
    for step in part.steps:
        if step.key in removed and not _goes_along(step.key, removed):
            progress(f"removing {step.kind} {step.key[-1]}")
            part.side.broker.delete(step.key)


def _goes_along(key: Key, removed: set[Key]) -> bool:
    """Tell whether the broker itself removes ``key`` when something else in ``removed`` goes."""
    match key:
        case ("permission", user, _):
            return ("user", user) in removed
        case ("binding", vhost, source, kind, destination, _, _):
            return (kind, vhost, destination) in removed or ("exchange", vhost, source) in removed
        case _:
            return False


_SECTIONS = {
    "vhost": ("vhosts", ("name",)),
    "permission": ("permissions", ("user", "vhost")),
    "policy": ("policies", ("vhost", "name")),
    "exchange": ("exchanges", ("vhost", "name")),
    "control exchange": ("exchanges", ("vhost", "name")),
    "queue": ("queues", ("vhost", "name")),
}


def _definitions(part: Part) -> dict[str, list[dict[str, object]]]:
    """Give what is to be created or changed as RabbitMQ imports it; {} for nothing."""
    wanted = {step.key for step in part.steps if step.sign != "-"}
    replaced = {step.key for step in part.steps if step.replace}
    # What is replaced loses its bindings with its old self.
    wanted |= {key for key in part.desired if key[0] == "binding" and _goes_along(key, replaced)}
    definitions: dict[str, list[dict[str, object]]] = {}
    for key in part.desired:
        if key not in wanted:
            continue
        body = dict(part.desired[key])
        if key[0] == "user":
            section, entry = "users", _user(key[1], body, part.actual.items.get(key, {}))
        elif key[0] == "binding":
            section, entry = "bindings", _binding(key)
        else:
            section, names = _SECTIONS[key[0]]
            entry = {**dict(zip(names, key[1:], strict=True)), **body}
        definitions.setdefault(section, []).append(entry)
    return definitions


def _user(
    name: str, body: Mapping[str, object], present: Mapping[str, object]
) -> dict[str, object]:
    password_hash = body.get("password_hash")
    if password_hash is None:
        password = str(body["password"])
        kept = str(present.get("password_hash", ""))
        password_hash = kept if creds.is_password(password, kept) else hash_password(password)
    tags = body["tags"]
    return {
        "name": name,
        "password_hash": password_hash,
        "hashing_algorithm": "rabbit_password_hashing_sha256",
        "tags": ",".join(tags) if isinstance(tags, list) else "",
        "limits": body["limits"],
    }


def _binding(key: Key) -> dict[str, object]:
    _, vhost, source, kind, destination, routing_key, _ = key
    return {
        "vhost": vhost,
        "source": source,
        "destination_type": kind,
        "destination": destination,
        "routing_key": routing_key,
        "arguments": {},
    }
