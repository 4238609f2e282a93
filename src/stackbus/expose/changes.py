"""The changes that lead from the actual items to the desired ones: a value. Pure.

``Actual.from_definitions`` reads ``GET /api/definitions``, ``changes`` compares it with the
topology, and ``apply.py`` carries the result out: ``stackbus plan`` prints what ``stackbus apply``
does. An item that is not in the ledger belongs to somebody else, and no change touches it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal

import msgspec

from stackbus.bus.names import CONTROL_EXCHANGES, LEDGER_PARAMETER
from stackbus.errors import BrokerError, Conflict
from stackbus.expose.credentials import Generations, Retiring
from stackbus.expose.kinds import (
    KINDS,
    binding,
    control_exchange,
    exchange,
    kind_of,
    permission,
    policy,
    queue,
    user,
    vhost,
)
from stackbus.expose.kinds.kind import Body, Definitions, ItemKey, ItemKeys, Items
from stackbus.expose.secrets import Secret
from stackbus.expose.topology import BusState

_SECRET = "secret"  # noqa: S105 -- the kind of a Secret's change
_ACTIONS = {"+": "create", "~": "update", "-": "delete"}


@dataclass(frozen=True, slots=True)
class Ledger:
    """The names that stackbus owns, and each topic's generations of credentials.

    RabbitMQ keeps it, as the global parameter ``stackbus``.
    """

    owned: frozenset[ItemKey] = frozenset()
    topics: Mapping[str, Generations] = field(default_factory=dict)

    def to_json(self) -> dict[str, object]:
        """Return the value of the global parameter."""
        owned: dict[str, list[list[str]]] = {}
        for kind, *name in sorted(self.owned):
            owned.setdefault(kind, []).append(name)
        return {
            "version": 1,
            "owned": owned,
            "topics": {
                topic: {
                    "generation": generations.current,
                    "rotated": generations.rotated_at and generations.rotated_at.isoformat(),
                    "retiring": [
                        {
                            "generation": retiring.generation,
                            "until": retiring.until.isoformat(),
                            "password_hash": retiring.password_hash,
                        }
                        for retiring in generations.retiring
                    ],
                }
                for topic, generations in sorted(self.topics.items())
            },
        }

    @staticmethod
    def from_json(value: object) -> Ledger:
        """Read the global parameter; None means that stackbus owns nothing on this broker.

        Raises BrokerError for a value that ``to_json`` does not write.
        """
        if value is None:
            return Ledger()
        try:
            return msgspec.convert(value, _LedgerValue).to_ledger()
        except msgspec.ValidationError as error:
            raise BrokerError(
                f"RabbitMQ's global parameter {LEDGER_PARAMETER!r}: not as stackbus wrote it "
                f"({error}): restore it from a backup of the broker's definitions"
            ) from error


@dataclass(frozen=True, slots=True)
class Actual:
    """The items that the broker has, and which of them are ours."""

    items: Items
    ledger: Ledger

    @staticmethod
    def from_definitions(definitions: Definitions) -> Actual:
        """Read ``GET /api/definitions``.

        Raises BrokerError for definitions that do not have RabbitMQ's form.
        """
        try:
            items = {key: body for kind in KINDS.values() for key, body in kind.read(definitions)}
            parameters = msgspec.convert(
                definitions.get("global_parameters", []), list[_ParameterEntry]
            )
        except msgspec.ValidationError as error:
            raise BrokerError(
                f"RabbitMQ's definitions do not have the expected form: {error}: does the "
                "management URL lead to a RabbitMQ between 3.10 and 4.3?"
            ) from error
        values = (entry.value for entry in parameters if entry.name == LEDGER_PARAMETER)
        return Actual(items, Ledger.from_json(next(values, None)))

    def bus_state(self, inner: str, outer: str) -> BusState:
        """Return the state on which the topology of these two vhosts depends."""
        key, _ = vhost.item(inner)
        return BusState(
            inner,
            outer,
            owns_inner=key in self.ledger.owned or key not in self.items,
            control_exchanges=frozenset(
                key[2] for key in self.items if key[:2] == (control_exchange.NAME, inner)
            ),
        )


@dataclass(frozen=True, slots=True)
class Change:
    """One step: ``+`` create, ``~`` change (``replace``: delete and create), ``-`` remove."""

    sign: str
    key: ItemKey
    body: Body = field(repr=False)
    detail: str = ""
    replace: bool = False

    @property
    def kind(self) -> str:
        """Return the name of the kind of the item, or ``secret``."""
        return self.key[0]

    @property
    def name(self) -> str:
        """Return the name of the item as a plan shows it."""
        match self.key:
            case (binding.NAME, vhost_name, source, _, destination, routing_key, _):
                return f"{vhost_name}: {source} -> {destination} [{routing_key}]"
            case (permission.NAME, username, vhost_name):
                return f"{username} in {vhost_name}"
            case (kind, namespace, name) if kind == _SECRET:
                return f"{namespace}/{name}"
            case (_, name):
                return name
            case (_, vhost_name, *words):
                return f"{vhost_name}: {' '.join(words)}"
            case _:
                return " ".join(self.key)

    def to_json(self) -> dict[str, object]:
        """Return the step as ``stackbus plan -o json`` shows it."""
        is_in_vhost = self.kind not in (user.NAME, vhost.NAME, permission.NAME, _SECRET)
        return {
            "action": "replace" if self.replace else _ACTIONS[self.sign],
            "kind": self.kind,
            "name": self.name,
            "vhost": self.key[1] if is_in_vhost else None,
            "detail": self.detail,
        }


def changes(desired: Items, actual: Actual) -> list[Change]:
    """Return every step from ``actual`` to ``desired``, in an order that RabbitMQ accepts.

    Raises Conflict if an item that should exist belongs to somebody else.
    """
    _refuse_conflicts(desired, actual)
    steps: list[Change] = []
    for key, body in desired.items():
        kind, present = kind_of(key), actual.items.get(key)
        if present is None:
            steps.append(Change("+", key, body))
        elif detail := kind.difference(body, present):
            steps.append(Change("~", key, body, detail, replace=kind.IS_REPLACED))
    for key, present in actual.items.items():
        if key not in desired and kind_of(key).is_ours(key, actual.ledger.owned):
            steps.append(Change("-", key, present))
    return sorted(steps, key=_order)


def withdrawal(actual: Actual) -> list[Change]:
    """Return every step that removes our items; a vhost goes if nobody else uses it."""
    steps = changes({}, actual)
    removed = {step.key for step in steps}
    for key in sorted(actual.ledger.owned):
        if key[0] == vhost.NAME and key in actual.items and _is_deserted(key[1], actual, removed):
            steps.append(Change("-", key, {}))
    return steps


def secret_changes(
    desired: Iterable[Secret],
    present: Mapping[tuple[str, str], Secret | None],
    removed: Iterable[tuple[str, str]],
) -> list[Change]:
    """Return the steps for the Secrets, without their values.

    ``present`` and ``removed`` go by (namespace, name).
    """
    steps = []
    for secret in desired:
        key = secret_key(secret.namespace, secret.name)
        old = present.get((secret.namespace, secret.name))
        if old is None:
            steps.append(Change("+", key, {}))
        elif changed := [
            name
            for name in sorted({*secret.data, *old.data})
            if secret.data.get(name) != old.data.get(name)
        ]:
            steps.append(Change("~", key, {}, ", ".join(changed)))
    steps += [Change("-", secret_key(namespace, name), {}) for namespace, name in sorted(removed)]
    return steps


def secret_key(namespace: str, name: str) -> ItemKey:
    """Return the key by which the steps of a plan name a Secret."""
    return (_SECRET, namespace, name)


def _refuse_conflicts(desired: Items, actual: Actual) -> None:
    foreign = [
        f"{key[0]} {' / '.join(key[1:])}"
        for key in desired
        if kind_of(key).IS_OWNED
        and key[0] != vhost.NAME
        and key in actual.items
        and key not in actual.ledger.owned
    ]
    if foreign:
        raise Conflict(
            f"RabbitMQ already has, and stackbus did not create: {'; '.join(foreign)}. Give the "
            "topic another name, or delete these items; nothing was changed"
        )


def _is_deserted(name: str, actual: Actual, removed: ItemKeys) -> bool:
    """Return whether a vhost will hold nothing but control exchanges, which services left behind.

    Queues, policies and users that may enter it are signs of use. Bindings go with their ends.
    """
    return not any(
        name in kind_of(key).vhosts(key)
        and key not in removed
        and not (key[0] == exchange.NAME and key[2] in CONTROL_EXCHANGES)
        for key in actual.items
        if key[0] in (permission.NAME, policy.NAME, exchange.NAME, queue.NAME)
    )


def _order(step: Change) -> tuple[bool, int, ItemKey]:
    """Sort creations before removals, and each so that RabbitMQ accepts it."""
    rank = list(KINDS).index(step.kind)
    is_removal = step.sign == "-"
    if is_removal:
        # Users go first: from then on nobody has a credential for the rest.
        rank = -1 if step.kind == user.NAME else len(KINDS) - rank
    return is_removal, rank, step.key


# The JSON forms of the global parameters


class _ParameterEntry(msgspec.Struct, frozen=True):
    name: str
    value: object


class _RetiringValue(msgspec.Struct, frozen=True):
    generation: int
    until: datetime
    password_hash: str


class _TopicValue(msgspec.Struct, frozen=True):
    generation: int
    retiring: list[_RetiringValue]
    rotated: datetime | None = None

    def to_generations(self) -> Generations:
        retiring = (Retiring(old.generation, old.until, old.password_hash) for old in self.retiring)
        return Generations(self.generation, tuple(retiring), self.rotated)


class _LedgerValue(msgspec.Struct, frozen=True):
    version: Literal[1]
    owned: dict[str, list[list[str]]]
    topics: dict[str, _TopicValue]

    def to_ledger(self) -> Ledger:
        return Ledger(
            frozenset((kind, *name) for kind, keys in self.owned.items() for name in keys),
            {topic: value.to_generations() for topic, value in self.topics.items()},
        )
