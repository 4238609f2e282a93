"""Make RabbitMQ and the Secrets match a deployment. The heart of the control plane.

``Exposure.plan`` reads the Secrets and the broker and returns a ``Plan``, a value that can be
printed. ``Exposure.apply`` carries it out in an order that survives a stop at any call:

1. the ledger, with every name that is about to be created: from then on it is known as ours;
2. the Secrets: no password is in the broker before it is in a Secret;
3. deletions of the removed and replaced items, users first;
4. one import of definitions, with everything that is to be created or changed;
5. deletions of the Secrets, and of the names in the ledger, that are gone.

Where the outer bus has a broker of its own, steps 1, 3, 4 and the ledger of step 5 run for both
brokers in turn. After a stop, the next run reads everything again and does the rest.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from types import MappingProxyType

from stackbus.bus.names import LEDGER_PARAMETER, consumer_user
from stackbus.errors import InputError
from stackbus.expose.api import BrokerApi
from stackbus.expose.changes import (
    Actual,
    Change,
    Ledger,
    changes,
    secret_changes,
    secret_key,
    withdrawal,
)
from stackbus.expose.credentials import (
    Credentials,
    Endpoint,
    Generations,
    is_topic_secret,
    prepare_credentials,
)
from stackbus.expose.deployment import Deployment, Topic
from stackbus.expose.kinds import kind_of, user, vhost
from stackbus.expose.kinds.kind import ItemKeys, Items
from stackbus.expose.secrets import NAMESPACE, OWN_NAMESPACE, Secret, SecretStore
from stackbus.expose.topology import select_vhosts, topology
from stackbus.settings import Settings


@dataclass(frozen=True, slots=True)
class Side:
    """One broker and our vhosts on it: both, or one each where there are two brokers."""

    broker: BrokerApi
    vhosts: frozenset[str]


@dataclass(frozen=True, slots=True)
class Part:
    """The share of one apply on one side. ``ledger`` is the one that holds afterwards."""

    side: Side = field(repr=False)
    steps: tuple[Change, ...]
    desired: Items = field(repr=False)
    actual: Actual = field(repr=False)
    ledger: Ledger = field(repr=False)

    @property
    def interim_ledger(self) -> Ledger:
        """Return the ledger while the part is carried out: old names are ours until they go."""
        return Ledger(self.actual.ledger.owned | self.ledger.owned, self.ledger.topics)


@dataclass(frozen=True, slots=True)
class Plan:
    """Everything that one apply does: its ``steps``, which are printed, and their data.

    ``credentials`` are those that hold afterwards, None if nothing is to be left.
    """

    secret_steps: tuple[Change, ...]
    parts: tuple[Part, ...]
    credentials: Credentials | None = field(repr=False)
    secrets: tuple[Secret, ...] = field(repr=False)

    @property
    def steps(self) -> tuple[Change, ...]:
        """Return every step: the Secrets', then RabbitMQ's."""
        return (*self.secret_steps, *(step for part in self.parts for step in part.steps))

    def __bool__(self) -> bool:
        """Return whether there is anything to do."""
        return bool(self.steps)

    def to_json(self) -> list[dict[str, object]]:
        """Return the steps as ``stackbus plan -o json`` shows them."""
        return [step.to_json() for step in self.steps]


@dataclass(frozen=True, slots=True)
class Exposure:
    """The control plane of one bus: its broker, its Secrets, its endpoint, its clock.

    ``outer``: the broker of the outer bus, if the inner bus is on another one.
    """

    broker: BrokerApi
    store: SecretStore
    endpoint: Endpoint
    settings: Settings
    clock: Callable[[], datetime]
    outer: BrokerApi | None = None
    own_topics: tuple[Topic, ...] = ()
    """Topics that no deployment lists: the recorder's."""

    def plan(self, deployment: Deployment) -> Plan:
        """Return what ``apply`` would do. Changes nothing.

        Raises Conflict if an item that should exist belongs to somebody else, or BrokerError.
        """
        return self._plan(deployment, self._read_brokers())

    def plan_rotation(self, deployment: Deployment, topic: str, *, grace: timedelta) -> Plan:
        """Return the plan of a rotation of ``topic``'s credentials.

        The old credentials work for ``grace``; zero revokes them. Raises InputError for a topic
        that ``deployment`` does not expose.
        """
        exposed = [listed.name for listed in self._with_own_topics(deployment).topics]
        if topic not in exposed:
            names = ", ".join(exposed) or "none"
            raise InputError(f"topic {topic!r} is not exposed; exposed: {names}")
        actuals = self._read_brokers()
        outer = actuals[-1]
        generations = outer.ledger.topics.get(topic, Generations())
        present = outer.items.get((user.NAME, consumer_user(topic, generations.current)))
        password_hash = str(present["password_hash"]) if present else None
        rotated = generations.rotate(self.clock(), grace, password_hash)
        return self._plan(deployment, actuals, {topic: rotated})

    def plan_withdrawal(self) -> Plan:
        """Return the plan to remove everything that is ours: topics, Secrets and users.

        A vhost goes only if nobody else has anything in it. Raises BrokerError.
        """
        parts = tuple(
            Part(side, tuple(withdrawal(actual)), {}, actual, Ledger())
            for side, actual in zip(self._sides, self._read_brokers(), strict=True)
        )
        return Plan(tuple(secret_changes((), {}, self._stored_names())), parts, None, ())

    def apply(self, plan: Plan, progress: Callable[[str], None] = lambda _: None) -> None:
        """Carry ``plan`` out, in the order that this file's first lines give."""
        for part in plan.parts:
            if part.interim_ledger != part.actual.ledger:
                progress("writing the ledger of new names")
                _write_ledger(part.side, part.interim_ledger)
        for secret in plan.secrets:
            progress(f"writing Secret {secret.name}")
            self.store.write(secret)
        for part in plan.parts:
            _delete_items(part, progress)
            definitions = _definitions(part)
            if definitions:
                progress("importing definitions")
                part.side.broker.import_definitions(definitions)
        for step in plan.secret_steps:
            if step.sign == "-":
                _, namespace, name = step.key
                self.store.remove(namespace, name)
        for part in plan.parts:
            if part.ledger != part.interim_ledger:
                progress("writing the ledger")
                _write_ledger(part.side, part.ledger)

    def generations(self) -> Mapping[str, Generations]:
        """Return the exposed topics and their generations, from the broker's ledger."""
        outer = self._sides[-1].broker
        return Ledger.from_json(outer.global_parameter(LEDGER_PARAMETER)).topics

    def next_expiry(self) -> datetime | None:
        """Return when the next grace time ends: an apply then removes that generation."""
        return min(
            (
                retiring.until
                for generations in self.generations().values()
                for retiring in generations.retiring
            ),
            default=None,
        )

    @property
    def _sides(self) -> tuple[Side, ...]:
        """Return the inner side first and the outer side last; they may be one."""
        inner, outer = self.settings.inner_vhost, self.settings.outer_vhost
        if self.outer is None:
            return (Side(self.broker, frozenset((inner, outer))),)
        return (Side(self.broker, frozenset((inner,))), Side(self.outer, frozenset((outer,))))

    def _with_own_topics(self, deployment: Deployment) -> Deployment:
        return replace(deployment, topics=(*deployment.topics, *self.own_topics))

    def _read_brokers(self) -> list[Actual]:
        return [Actual.from_definitions(side.broker.definitions()) for side in self._sides]

    def _stored_names(self) -> set[tuple[str, str]]:
        """Return (namespace, name) of every Secret in the store."""
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
        deployment = self._with_own_topics(deployment)
        now = self.clock()
        exposed = {**actuals[-1].ledger.topics, **rotated}
        generations = {
            topic.name: exposed.get(topic.name, Generations()).without_expired(now)
            for topic in deployment.topics
        }
        credentials = prepare_credentials(
            self.store,
            deployment,
            {topic: value for topic, value in generations.items() if topic in exposed},
            self.endpoint,
            now,
            certificate_days=self.settings.certificate_days,
            renew_days=self.settings.renew_days,
        )
        bus = actuals[0].bus_state(self.settings.inner_vhost, self.settings.outer_vhost)
        items = topology(deployment, credentials, generations, bus, self.settings)
        parts = tuple(
            _part(side, select_vhosts(items, side.vhosts), actual, generations)
            for side, actual in zip(self._sides, actuals, strict=True)
        )
        secrets = credentials.secrets()
        secret_steps = self._plan_secrets(secrets)
        written = {step.key for step in secret_steps if step.sign != "-"}
        return Plan(
            secret_steps,
            parts,
            credentials,
            tuple(s for s in secrets if secret_key(s.namespace, s.name) in written),
        )

    def _plan_secrets(self, desired: tuple[Secret, ...]) -> tuple[Change, ...]:
        present = {
            (secret.namespace, secret.name): self.store.read(secret.namespace, secret.name)
            for secret in desired
        }
        removed = {
            (namespace, name)
            for namespace, name in self._stored_names()
            if is_topic_secret(name) and (namespace, name) not in present
        }
        return tuple(secret_changes(desired, present, removed))


def _part(
    side: Side, desired: Items, actual: Actual, generations: Mapping[str, Generations]
) -> Part:
    # A vhost that was there before stackbus is not ours.
    owned = frozenset(
        key
        for key in desired
        if kind_of(key).IS_OWNED
        and (key[0] != vhost.NAME or key in actual.ledger.owned or key not in actual.items)
    )
    return Part(side, tuple(changes(desired, actual)), desired, actual, Ledger(owned, generations))


def _write_ledger(side: Side, ledger: Ledger) -> None:
    if ledger == Ledger():
        side.broker.delete("global-parameters", LEDGER_PARAMETER)
    else:
        side.broker.put_global_parameter(LEDGER_PARAMETER, ledger.to_json())


def _delete_items(part: Part, progress: Callable[[str], None]) -> None:
    """Delete the removed and replaced items, less those that RabbitMQ deletes along."""
    removed = {step.key for step in part.steps if step.sign == "-" or step.replace}
    for step in part.steps:
        kind = kind_of(step.key)
        if step.key in removed and not kind.vanishes_with(step.key, removed):
            progress(f"removing {step.kind} {step.key[-1]}")
            kind.delete(part.side.broker, step.key)


def _definitions(part: Part) -> dict[str, list[dict[str, object]]]:
    """Return the created and changed items as RabbitMQ imports them; {} for none."""
    written = {step.key for step in part.steps if step.sign != "-"}
    written |= _lost_bindings(part)
    definitions: dict[str, list[dict[str, object]]] = {}
    for key, body in part.desired.items():
        if key in written:
            kind = kind_of(key)
            entry = kind.definition(key, body, part.actual.items.get(key, {}))
            definitions.setdefault(kind.SECTION, []).append(entry)
    return definitions


def _lost_bindings(part: Part) -> ItemKeys:
    """Return the bindings that go when an exchange or a queue is replaced."""
    replaced = {step.key for step in part.steps if step.replace}
    return {key for key in part.desired if kind_of(key).vanishes_with(key, replaced)}
