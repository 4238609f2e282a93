"""Make RabbitMQ and the Secrets as a deployment wants them. The heart of the control plane.

Called by the doors (``stackbus plan``, ``apply``, ``rotate``, ``up``). ``Exposure.plan`` reads
what is kept and what the broker has and gives a Plan, a value that can be printed;
``Exposure.apply`` carries a Plan out, in an order that survives being stopped at any call:

1. the ledger, with every name that is about to be made: what then appears is known to be ours;
2. the Secrets: no password is in the broker before it is in a Secret;
3. what must be replaced or go, users first;
4. one definitions import with everything that is to be there;
5. the Secrets and names of what is gone.

Run again after any stop, it reads anew and does what is left.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Protocol

from stackbus.errors import InputError
from stackbus.expose import credentials as creds
from stackbus.expose.changes import LEDGER, Actual, Change, Ledger, changes, secret_changes
from stackbus.expose.credentials import Credentials, Endpoint, Generations, hash_password
from stackbus.expose.deployment import Deployment
from stackbus.expose.secrets import NAMESPACE, Secret, SecretStore
from stackbus.expose.topology import OWNED_KINDS, Items, Key, topology
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
class Plan:
    """Everything one apply will do: what is printed (``steps``) and what it takes to do it."""

    steps: tuple[Change, ...]
    desired: Items = field(repr=False)
    actual: Actual = field(repr=False)
    credentials: Credentials = field(repr=False)
    ledger: Ledger = field(repr=False)
    secrets: tuple[Secret, ...] = field(repr=False)

    def __bool__(self) -> bool:
        """Tell whether there is anything to do."""
        return bool(self.steps)


@dataclass(frozen=True, slots=True)
class Exposure:
    """The control plane of one bus: its broker, its Secrets, its endpoint, its clock."""

    broker: Broker
    store: SecretStore
    endpoint: Endpoint
    settings: Settings
    clock: Callable[[], datetime]

    def plan(self, deployment: Deployment) -> Plan:
        """Say what ``apply`` would do. Changes nothing.

        Raises Conflict if something in the way is not ours, BrokerError.
        """
        return self._plan(deployment, self._actual())

    def plan_rotation(self, deployment: Deployment, topic: str, *, grace: timedelta) -> Plan:
        """Say what a rotation of ``topic``'s credentials would do; zero ``grace`` revokes.

        Raises InputError for a topic that ``deployment`` does not expose.
        """
        if topic not in {one.name for one in deployment.topics}:
            known = ", ".join(one.name for one in deployment.topics) or "none"
            raise InputError(f"no topic {topic!r} is exposed; exposed: {known}")
        actual = self._actual()
        before = actual.ledger.topics.get(topic, Generations())
        user = actual.items.get(("user", creds.username(topic, before.current)))
        password_hash = str(user["password_hash"]) if user else None
        rotated = before.rotated(self.clock(), grace, password_hash)
        topics = {**actual.ledger.topics, topic: rotated}
        return self._plan(
            deployment, Actual(actual.items, Ledger(actual.ledger.owned, topics)), before=actual
        )

    def apply(self, plan: Plan, progress: Callable[[str], None] = lambda _: None) -> None:
        """Carry ``plan`` out."""
        before, after = plan.actual.ledger, plan.ledger
        # Names that go are still ours until they are gone.
        during = Ledger(before.owned | after.owned, after.topics)
        if during != before:
            progress("writing down what will be ours")
            self.broker.put_global_parameter(LEDGER, during.to_json())
        for secret in plan.secrets:
            progress(f"writing Secret {secret.name}")
            self.store.write(secret)
        self._remove(plan, progress)
        definitions = _definitions(plan)
        if definitions:
            progress("importing definitions")
            self.broker.import_definitions(definitions)
        for step in plan.steps:
            if step.kind == "secret" and step.sign == "-":
                self.store.remove(step.key[1], step.key[2])
        if after != during:
            progress("writing down what is ours")
            self.broker.put_global_parameter(LEDGER, after.to_json())

    def next_expiry(self) -> datetime | None:
        """Tell when the next retiring generation ends, so that an apply removes it then."""
        ledger = Ledger.from_json(self.broker.global_parameter(LEDGER))
        return min(
            (
                retired.until
                for generations in ledger.topics.values()
                for retired in generations.retiring
            ),
            default=None,
        )

    def _actual(self) -> Actual:
        return Actual.from_definitions(self.broker.definitions())

    def _plan(self, deployment: Deployment, actual: Actual, before: Actual | None = None) -> Plan:
        now = self.clock()
        known = actual.ledger.topics
        generations = {
            topic.name: known.get(topic.name, Generations()).without_expired(now)
            for topic in deployment.topics
        }
        credentials = creds.renewed(
            self.store,
            deployment,
            generations,
            self.endpoint,
            now,
            certificate_days=self.settings.certificate_days,
            renew_days=self.settings.renew_days,
        )
        bus = actual.bus(self.settings.inner_vhost, self.settings.outer_vhost)
        desired = topology(deployment, credentials, generations, bus, self.settings)
        wanted = credentials.secrets()
        kept = {
            (secret.namespace, secret.name): self.store.read(secret.namespace, secret.name)
            for secret in wanted
        }
        gone = set(self.store.names(NAMESPACE)) - {secret.name for secret in wanted}
        steps = (*secret_changes(wanted, kept, gone), *changes(desired, actual))
        present = before or actual
        owned = frozenset(
            key
            for key in desired
            if key[0] in OWNED_KINDS
            and (key[0] != "vhost" or key in present.ledger.owned or key not in present.items)
        )
        to_write = {step.key for step in steps if step.kind == "secret" and step.sign != "-"}
        return Plan(
            steps,
            desired,
            present,
            credentials,
            Ledger(owned, generations),
            tuple(s for s in wanted if ("secret", s.namespace, s.name) in to_write),
        )

    def _remove(self, plan: Plan, progress: Callable[[str], None]) -> None:
        removed = {step.key for step in plan.steps if step.sign == "-" or step.replace}
        for step in plan.steps:
            if step.key in removed and step.kind != "secret" and not _goes_along(step.key, removed):
                progress(f"removing {step.kind} {step.key[-1]}")
                self.broker.delete(step.key)


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


def _definitions(plan: Plan) -> dict[str, list[dict[str, object]]]:
    """Give what is to be created or changed as RabbitMQ imports it; {} for nothing."""
    wanted = {step.key for step in plan.steps if step.sign != "-" and step.kind != "secret"}
    replaced = {step.key for step in plan.steps if step.replace}
    # What is replaced loses its bindings with its old self.
    wanted |= {key for key in plan.desired if key[0] == "binding" and _goes_along(key, replaced)}
    definitions: dict[str, list[dict[str, object]]] = {}
    for key in plan.desired:
        if key not in wanted:
            continue
        body = dict(plan.desired[key])
        if key[0] == "user":
            section, entry = "users", _user(key[1], body, plan.actual.items.get(key, {}))
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
