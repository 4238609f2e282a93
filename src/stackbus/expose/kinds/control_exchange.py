"""A control exchange, on which a service publishes. stackbus creates it, and never changes it.

It is the service's: one that exists is left as it is, however it is declared (DESIGN, decision 4).
"""

from __future__ import annotations

from collections.abc import Iterator

from stackbus.bus.names import CONTROL_EXCHANGES
from stackbus.expose.kinds import exchange
from stackbus.expose.kinds.kind import Body, Definitions, Deletions, Item, ItemKey, ItemKeys

NAME = "control exchange"
SECTION = exchange.SECTION
IS_OWNED = False
IS_REPLACED = False


def item(vhost: str, name: str) -> Item:
    """Return a control exchange as the drop-ins let the services declare it: durable."""
    _, body = exchange.item(vhost, name, "topic")
    return (NAME, vhost, name), body


def read(definitions: Definitions) -> Iterator[Item]:
    """Yield the exchanges with a control exchange's name; ``exchange.read`` yields them too."""
    for (_, vhost, name), body in exchange.read(definitions):
        if name in CONTROL_EXCHANGES:
            yield (NAME, vhost, name), body


def difference(_: Body, __: Body) -> str:
    """Return nothing: the declaration of the service is always right."""
    return ""


def definition(key: ItemKey, desired: Body, present: Body) -> dict[str, object]:
    """Return the entry that RabbitMQ imports."""
    return exchange.definition(key, desired, present)


def delete(api: Deletions, key: ItemKey) -> None:
    """Delete the exchange. No plan does so."""
    exchange.delete(api, key)


def vhosts(key: ItemKey) -> tuple[str, ...]:
    """Return the vhost of the exchange."""
    return exchange.vhosts(key)


def is_ours(_: ItemKey, __: ItemKeys) -> bool:
    """Return False: it is the service's."""
    return False


def vanishes_with(_: ItemKey, __: ItemKeys) -> bool:
    """Return False: an exchange outlives its bindings."""
    return False
