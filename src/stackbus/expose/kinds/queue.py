"""A queue: of the relay, of a topic and priority, of dropped notifications; or the journal."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

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

NAME = "queue"
SECTION = "queues"
IS_OWNED = True
IS_REPLACED = True


class _Entry(msgspec.Struct, frozen=True):
    vhost: str
    name: str
    durable: bool
    auto_delete: bool
    arguments: dict[str, object]


def item(
    vhost: str, name: str, queue_type: str, arguments: Mapping[str, object] | None = None
) -> Item:
    """Return a desired queue: durable, of type ``classic``, ``quorum`` or ``stream``."""
    return _item(vhost, name, {"x-queue-type": queue_type, **(arguments or {})})


def read(definitions: Definitions) -> Iterator[Item]:
    """Yield the queues that the broker has."""
    for entry in read_section(definitions, SECTION, _Entry):
        yield _item(
            entry.vhost,
            entry.name,
            entry.arguments,
            durable=entry.durable,
            auto_delete=entry.auto_delete,
        )


def difference(desired: Body, present: Body) -> str:
    """Return the differences and their consequence, for the plan."""
    differences = list_differences(desired, present)
    return f"{differences}; the messages in it are lost" if differences else ""


def definition(key: ItemKey, desired: Body, _: Body) -> dict[str, object]:
    """Return the entry that RabbitMQ imports."""
    return {"vhost": key[1], "name": key[2], **desired}


def delete(api: Deletions, key: ItemKey) -> None:
    """Delete the queue, its messages and its bindings."""
    api.delete("queues", key[1], key[2])


def vhosts(key: ItemKey) -> tuple[str, ...]:
    """Return the vhost of the queue."""
    return (key[1],)


def is_ours(key: ItemKey, owned: ItemKeys) -> bool:
    """Return whether the queue is in the ledger."""
    return key in owned


def vanishes_with(_: ItemKey, __: ItemKeys) -> bool:
    """Return False: a queue outlives its bindings."""
    return False


def _item(
    vhost: str,
    name: str,
    arguments: Mapping[str, object],
    *,
    durable: bool = True,
    auto_delete: bool = False,
) -> Item:
    """Return a queue. ``classic`` is left out: only RabbitMQ 4.0 and newer write the default."""
    return (NAME, vhost, name), {
        "durable": durable,
        "auto_delete": auto_delete,
        "arguments": {
            key: value
            for key, value in arguments.items()
            if (key, value) != ("x-queue-type", "classic")
        },
    }
