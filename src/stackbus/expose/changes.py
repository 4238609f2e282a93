"""What has to change: everything that should exist, held against what the broker has. Pure.

Called by ``apply.py`` for both ``stackbus plan`` and ``stackbus apply``: what the one prints is
what the other does. ``Actual`` reads ``GET /api/definitions``; ``changes`` compares. What is not
in the ledger is not ours, and no change ever touches it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal

import msgspec

from stackbus.errors import BrokerError, Conflict
from stackbus.expose.credentials import Generations, Retiring, is_password
from stackbus.expose.secrets import Secret
from stackbus.expose.topology import (
    CONTROL_EXCHANGES,
    KINDS,
    OUTER_EXCHANGE,
    OWNED_KINDS,
    Body,
    Bus,
    Items,
    Key,
    binding_key,
    vhosts_of,
)

LEDGER = "stackbus"
"""The global parameter in which the broker remembers what is ours."""


@dataclass(frozen=True, slots=True)
class Ledger:
    """The names that stackbus made, and each topic's generations of credentials."""

    owned: frozenset[Key] = frozenset()
    topics: Mapping[str, Generations] = field(default_factory=dict)

    def to_json(self) -> dict[str, object]:
        """Give the value of the global parameter."""
        owned: dict[str, list[list[str]]] = {}
        for kind, *rest in sorted(self.owned):
            owned.setdefault(kind, []).append(rest)
        return {
            "version": 1,
            "owned": owned,
            "topics": {
                topic: {
                    "generation": generations.current,
                    "rotated": generations.rotated_at and generations.rotated_at.isoformat(),
                    "retiring": [
                        {
                            "generation": retired.generation,
                            "until": retired.until.isoformat(),
                            "password_hash": retired.password_hash,
                        }
                        for retired in generations.retiring
                    ],
                }
                for topic, generations in sorted(self.topics.items())
            },
        }

    @staticmethod
    def from_json(value: object) -> Ledger:
        """Read the global parameter; None is a broker that was never ours.

        Raises BrokerError if it is not what ``to_json`` writes.
        """
        if value is None:
            return Ledger()
        try:
            return _ledger(msgspec.convert(value, _LedgerValue))
        except msgspec.ValidationError as error:
            raise BrokerError(
                f"the global parameter {LEDGER!r} is not as stackbus wrote it ({error}): restore "
                "it from a backup of the broker's definitions"
            ) from error


@dataclass(frozen=True, slots=True)
class Actual:
    """What the broker has, in the topology's terms, and what in it is ours."""

    items: Items
    ledger: Ledger

    @staticmethod
    def from_definitions(definitions: Mapping[str, object]) -> Actual:
        """Read ``GET /api/definitions``. Raises BrokerError if it makes no sense."""
        try:
            read = msgspec.convert(definitions, _Definitions)
        except msgspec.ValidationError as error:
            raise BrokerError(f"the broker's definitions make no sense: {error}") from error
        ledger = next((one.value for one in read.global_parameters if one.name == LEDGER), None)
        return Actual(dict(_items(read)), Ledger.from_json(ledger))

    def bus(self, inner: str, outer: str) -> Bus:
        """Tell what the topology has to know of this broker."""
        present = {key[2] for key in self.items if key[:2] == ("exchange", inner)}
        return Bus(
            inner,
            outer,
            owns_inner=("vhost", inner) in self.ledger.owned or ("vhost", inner) not in self.items,
            control_exchanges=frozenset(present & set(CONTROL_EXCHANGES)),
        )


@dataclass(frozen=True, slots=True)
class Change:
    """One step: ``+`` create, ``~`` change (``replace``: delete and create), ``-`` remove."""

    sign: str
    key: Key
    body: Body = field(repr=False)
    detail: str = ""
    replace: bool = False

    @property
    def kind(self) -> str:
        """Tell which kind of thing changes."""
        return self.key[0]

    @property
    def name(self) -> str:
        """Return the name of the thing as people read it, with its vhost or namespace."""
        match self.key:
            case ("binding", vhost, source, _, destination, routing_key, _):
                return f"{vhost}: {source} -> {destination} [{routing_key}]"
            case ("permission", user, vhost):
                return f"{user} in {vhost}"
            case ("secret", namespace, name):
                return f"{namespace}/{name}"
            case (_, name):
                return name
            case (_, vhost, *names):
                return f"{vhost}: {' '.join(names)}"
            case _:
                return " ".join(self.key)

    def to_json(self) -> dict[str, object]:
        """Return the step as ``plan -o json`` prints it."""
        action = {"+": "create", "~": "update", "-": "delete"}[self.sign]
        has_vhost = self.kind not in ("user", "vhost", "secret", "permission")
        return {
            "action": "replace" if self.replace else action,
            "kind": self.kind,
            "name": self.name,
            "vhost": self.key[1] if has_vhost else None,
            "detail": self.detail,
        }


def changes(desired: Items, actual: Actual) -> list[Change]:
    """Give every step from ``actual`` to ``desired``; none when nothing is to do.

    Raises Conflict if something that should exist does, and is not ours: nothing is changed then.
    """
    owned = actual.ledger.owned
    _refuse_conflicts(desired, actual)
    steps: list[Change] = []
    for key, body in desired.items():
        if key[0] == "control exchange":
            if ("exchange", *key[1:]) not in actual.items:
                steps.append(Change("+", key, body))
            continue
        present = actual.items.get(key)
        if present is None:
            steps.append(Change("+", key, body))
        elif detail := _difference(key, body, present):
            replace = key[0] in ("exchange", "queue")
            lost = "; the messages in it are lost" if replace and key[0] == "queue" else ""
            steps.append(Change("~", key, body, detail + lost, replace=replace))
    for key, present in actual.items.items():
        if key not in desired and _is_to_remove(key, owned):
            steps.append(Change("-", key, present))
    return sorted(steps, key=_order)


def withdrawal(actual: Actual) -> list[Change]:
    """Give every step that takes away what is ours; a vhost goes if nobody else lives in it."""
    steps = changes({}, actual)
    going = {step.key for step in steps}
    for key in sorted(actual.ledger.owned):
        if key[0] == "vhost" and key in actual.items and _is_deserted(key[1], actual, going):
            steps.append(Change("-", key, {}))
    return steps


def secret_changes(
    desired: Iterable[Secret],
    kept: Mapping[tuple[str, str], Secret | None],
    gone: Iterable[tuple[str, str]],
) -> list[Change]:
    """Give the steps for the Secrets, without their values; ``gone`` are to be removed."""
    steps = []
    for secret in desired:
        key = ("secret", secret.namespace, secret.name)
        present = kept.get((secret.namespace, secret.name))
        if present is None:
            steps.append(Change("+", key, {}))
        elif fields := [
            name
            for name in sorted({*secret.data, *present.data})
            if secret.data.get(name) != present.data.get(name)
        ]:
            steps.append(Change("~", key, {}, ", ".join(fields)))
    steps += [Change("-", ("secret", namespace, name), {}) for namespace, name in sorted(gone)]
    return steps


def _refuse_conflicts(desired: Items, actual: Actual) -> None:
    foreign = [
        _name(key)
        for key in desired
        if key[0] in OWNED_KINDS
        and key[0] != "vhost"
        and key in actual.items
        and key not in actual.ledger.owned
    ]
    if foreign:
        raise Conflict(
            "something of the same name exists and is not stackbus': "
            + "; ".join(foreign)
            + ". Name the topic otherwise, or remove what stands there; nothing was changed"
        )


def _is_deserted(vhost: str, actual: Actual, going: set[Key]) -> bool:
    """Tell whether a vhost holds nothing but what goes, and the exchanges of services long gone.

    Users that may enter it and queues count as life; a binding goes with its ends.
    """
    return not any(
        vhost in vhosts_of(key)
        and key not in going
        and not (key[0] == "exchange" and key[2] in CONTROL_EXCHANGES)
        for key in actual.items
        if key[0] in ("permission", "policy", "exchange", "queue")
    )


def _is_to_remove(key: Key, owned: frozenset[Key]) -> bool:
    match key:
        case ("vhost", _):
            return False  # others may have come to live in it
        case ("permission", user, _):
            return ("user", user) in owned
        case ("binding", vhost, source, "queue", destination, _, _):
            if ("queue", vhost, destination) not in owned or source == "":
                return False
            # A consumer may bind its own queue to its own exchange as it likes (oslo does).
            return destination.rpartition(".")[0] != source or source == OUTER_EXCHANGE
        case ("binding", vhost, _, "exchange", destination, _, _):
            return ("exchange", vhost, destination) in owned
        case _:
            return key in owned


def _difference(key: Key, desired: Body, present: Body) -> str:
    """Name what differs, without values for users; '' if nothing does."""
    fields = []
    for name, wanted in desired.items():
        if name == "password":
            if not is_password(str(wanted), str(present.get("password_hash", ""))):
                fields.append("password")
        elif name == "tags":
            if sorted(_texts(wanted)) != sorted(_texts(present.get(name))):
                fields.append("tags")
        elif wanted != present.get(name):
            fields.append(name if key[0] == "user" else f"{name}: {present.get(name)} -> {wanted}")
    return ", ".join(fields)


def _texts(value: object) -> list[str]:
    return [str(one) for one in value] if isinstance(value, list) else []


def _order(step: Change) -> tuple[bool, int, Key]:
    place = KINDS.index(step.kind)
    removed = step.sign == "-"
    # A removed user goes first: from then on nobody holds a credential to the rest.
    if removed:
        place = -1 if step.kind == "user" else len(KINDS) - place
    return removed, place, step.key


def _name(key: Key) -> str:
    kind, *rest = key
    return f"{kind} {' / '.join(rest)}"


# Reading the broker's definitions: what is used of them, typed


class _Vhost(msgspec.Struct, frozen=True):
    name: str


class _User(msgspec.Struct, frozen=True):
    name: str
    tags: list[str] | str
    password_hash: str = ""
    limits: dict[str, object] = {}


class _Permission(msgspec.Struct, frozen=True):
    user: str
    vhost: str
    configure: str
    write: str
    read: str


class _Policy(msgspec.Struct, frozen=True):
    vhost: str
    name: str
    pattern: str
    priority: int
    definition: dict[str, object]
    apply_to: str = msgspec.field(name="apply-to")


class _Exchange(msgspec.Struct, frozen=True):
    vhost: str
    name: str
    type: str
    durable: bool
    auto_delete: bool
    arguments: dict[str, object]
    internal: bool = False  # 4.3 says nothing of an exchange that is not


class _Queue(msgspec.Struct, frozen=True):
    vhost: str
    name: str
    durable: bool
    auto_delete: bool
    arguments: dict[str, object]


class _Binding(msgspec.Struct, frozen=True):
    vhost: str
    source: str
    destination: str
    destination_type: str
    routing_key: str
    arguments: dict[str, object]


class _Parameter(msgspec.Struct, frozen=True):
    name: str
    value: object


class _Definitions(msgspec.Struct, frozen=True):
    vhosts: list[_Vhost]
    users: list[_User]
    permissions: list[_Permission]
    policies: list[_Policy]
    exchanges: list[_Exchange]
    queues: list[_Queue]
    bindings: list[_Binding]
    global_parameters: list[_Parameter] = []


def _items(definitions: _Definitions) -> Iterator[tuple[Key, Body]]:
    for vhost in definitions.vhosts:
        yield ("vhost", vhost.name), {}
    for user in definitions.users:
        tags = user.tags if isinstance(user.tags, list) else user.tags.split(",")
        yield (
            ("user", user.name),
            {
                "password_hash": user.password_hash,
                "tags": [tag for tag in tags if tag],
                "limits": user.limits,
            },
        )
    for permission in definitions.permissions:
        yield (
            ("permission", permission.user, permission.vhost),
            {
                "configure": permission.configure,
                "write": permission.write,
                "read": permission.read,
            },
        )
    for policy in definitions.policies:
        yield (
            ("policy", policy.vhost, policy.name),
            {
                "pattern": policy.pattern,
                "apply-to": policy.apply_to,
                "priority": policy.priority,
                "definition": policy.definition,
            },
        )
    for exchange in definitions.exchanges:
        yield (
            ("exchange", exchange.vhost, exchange.name),
            {
                "type": exchange.type,
                "durable": exchange.durable,
                "auto_delete": exchange.auto_delete,
                "internal": exchange.internal,
                "arguments": exchange.arguments,
            },
        )
    for queue in definitions.queues:
        arguments = dict(queue.arguments)
        if arguments.get("x-queue-type") == "classic":
            del arguments["x-queue-type"]  # 4.0 and newer write the default down
        yield (
            ("queue", queue.vhost, queue.name),
            {
                "durable": queue.durable,
                "auto_delete": queue.auto_delete,
                "arguments": arguments,
            },
        )
    for binding in definitions.bindings:
        key = binding_key(
            binding.vhost,
            binding.source,
            binding.destination_type,
            binding.destination,
            binding.routing_key,
            binding.arguments,
        )
        yield key, {}


class _RetiringValue(msgspec.Struct, frozen=True):
    generation: int
    until: datetime
    password_hash: str


class _TopicValue(msgspec.Struct, frozen=True):
    generation: int
    retiring: list[_RetiringValue]
    rotated: datetime | None = None


class _LedgerValue(msgspec.Struct, frozen=True):
    version: Literal[1]
    owned: dict[str, list[list[str]]]
    topics: dict[str, _TopicValue]


def _ledger(value: _LedgerValue) -> Ledger:
    return Ledger(
        frozenset((kind, *names) for kind, listed in value.owned.items() for names in listed),
        {
            topic: Generations(
                one.generation,
                tuple(
                    Retiring(retired.generation, retired.until, retired.password_hash)
                    for retired in one.retiring
                ),
                one.rotated,
            )
            for topic, one in value.topics.items()
        },
    )
