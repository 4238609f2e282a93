"""A binding: by which routing key an exchange passes messages on to a queue or an exchange.

Its arguments are part of its key: RabbitMQ tells two bindings apart by them.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping

import msgspec

from stackbus.bus.names import OUTER_EXCHANGE
from stackbus.expose.kinds.kind import (
    Body,
    Definitions,
    Deletions,
    Item,
    ItemKey,
    ItemKeys,
    read_section,
)

NAME = "binding"
SECTION = "bindings"
IS_OWNED = False
IS_REPLACED = False


class _Entry(msgspec.Struct, frozen=True):
    vhost: str
    source: str
    destination: str
    destination_type: str
    routing_key: str
    arguments: dict[str, object]


def to_queue(vhost: str, source: str, queue: str, routing_key: str) -> Item:
    """Return a desired binding of a queue."""
    return _item(vhost, source, "queue", queue, routing_key, {})


def to_exchange(vhost: str, source: str, exchange: str, routing_key: str) -> Item:
    """Return a desired binding of an exchange."""
    return _item(vhost, source, "exchange", exchange, routing_key, {})


def read(definitions: Definitions) -> Iterator[Item]:
    """Yield the bindings that the broker has."""
    for entry in read_section(definitions, SECTION, _Entry):
        yield _item(
            entry.vhost,
            entry.source,
            entry.destination_type,
            entry.destination,
            entry.routing_key,
            entry.arguments,
        )


def difference(_: Body, __: Body) -> str:
    """Return nothing: a binding is only its key."""
    return ""


def definition(key: ItemKey, _: Body, __: Body) -> dict[str, object]:
    """Return the entry that RabbitMQ imports."""
    _kind, vhost, source, destination_type, destination, routing_key, arguments = key
    return {
        "vhost": vhost,
        "source": source,
        "destination_type": destination_type,
        "destination": destination,
        "routing_key": routing_key,
        "arguments": _parse_arguments(arguments),
    }


def delete(api: Deletions, key: ItemKey) -> None:
    """Delete the binding."""
    _, vhost, source, destination_type, destination, routing_key, arguments = key
    api.delete_binding(
        vhost, source, destination_type, destination, routing_key, _parse_arguments(arguments)
    )


def vhosts(key: ItemKey) -> tuple[str, ...]:
    """Return the vhost of the binding."""
    return (key[1],)


def is_ours(key: ItemKey, owned: ItemKeys) -> bool:
    """Return whether the binding ends at something in the ledger, and a consumer did not make it.

    A consumer may bind its own queues to its own exchange as it likes; oslo.messaging does.
    """
    _, vhost, source, destination_type, destination, _, _ = key
    if source == "" or (destination_type, vhost, destination) not in owned:
        return False
    if destination_type == "exchange":
        return True
    is_consumers = destination.rpartition(".")[0] == source and source != OUTER_EXCHANGE
    return not is_consumers


def vanishes_with(key: ItemKey, removed: ItemKeys) -> bool:
    """Return whether one of its two ends goes."""
    _, vhost, source, destination_type, destination, _, _ = key
    return (destination_type, vhost, destination) in removed or (
        "exchange",
        vhost,
        source,
    ) in removed


def _item(
    vhost: str,
    source: str,
    destination_type: str,
    destination: str,
    routing_key: str,
    arguments: Mapping[str, object],
) -> Item:
    text = json.dumps(arguments, sort_keys=True) if arguments else ""
    return (NAME, vhost, source, destination_type, destination, routing_key, text), {}


def _parse_arguments(text: str) -> dict[str, object]:
    arguments: dict[str, object] = json.loads(text) if text else {}
    return arguments
