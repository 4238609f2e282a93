"""An exchange of stackbus' own. Those of the services are ``control_exchange.py``."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from stackbus.expose.kinds.kind import (
    Body,
    Definitions,
    Deletions,
    Item,
    ItemKey,
    ItemKeys,
    list_differences,
    read_section,
)

NAME = "exchange"
SECTION = "exchanges"
IS_OWNED = True
IS_REPLACED = True


class _Entry(msgspec.Struct, frozen=True):
    vhost: str
    name: str
    type: str
    durable: bool
    auto_delete: bool
    arguments: dict[str, object]
    internal: bool = False  # RabbitMQ 4.3 leaves it out of an exchange that is not


def item(vhost: str, name: str, exchange_type: str) -> Item:
    """Return a desired exchange: durable, of type ``topic`` or ``fanout``."""
    return (NAME, vhost, name), {
        "type": exchange_type,
        "durable": True,
        "auto_delete": False,
        "internal": False,
        "arguments": {},
    }


def read(definitions: Definitions) -> Iterator[Item]:
    """Yield the exchanges that the broker has."""
    for entry in read_section(definitions, SECTION, _Entry):
        yield (
            (NAME, entry.vhost, entry.name),
            {
                "type": entry.type,
                "durable": entry.durable,
                "auto_delete": entry.auto_delete,
                "internal": entry.internal,
                "arguments": entry.arguments,
            },
        )


def difference(desired: Body, present: Body) -> str:
    """Return the differences, for the plan."""
    return list_differences(desired, present)


def definition(key: ItemKey, desired: Body, _: Body) -> dict[str, object]:
    """Return the entry that RabbitMQ imports."""
    return {"vhost": key[1], "name": key[2], **desired}


def delete(api: Deletions, key: ItemKey) -> None:
    """Delete the exchange and its bindings."""
    api.delete("exchanges", key[1], key[2])


def vhosts(key: ItemKey) -> tuple[str, ...]:
    """Return the vhost of the exchange."""
    return (key[1],)


def is_ours(key: ItemKey, owned: ItemKeys) -> bool:
    """Return whether the exchange is in the ledger."""
    return key in owned


def vanishes_with(_: ItemKey, __: ItemKeys) -> bool:
    """Return False: an exchange outlives its bindings."""
    return False
