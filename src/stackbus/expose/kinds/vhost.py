"""A vhost: the inner bus and the outer bus are one each."""

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
    read_section,
)

NAME = "vhost"
SECTION = "vhosts"
IS_OWNED = True
IS_REPLACED = False


class _Entry(msgspec.Struct, frozen=True):
    name: str


def item(name: str) -> Item:
    """Return a desired vhost."""
    return (NAME, name), {}


def read(definitions: Definitions) -> Iterator[Item]:
    """Yield the vhosts that the broker has."""
    for entry in read_section(definitions, SECTION, _Entry):
        yield item(entry.name)


def difference(_: Body, __: Body) -> str:
    """Return nothing: a vhost is only its name."""
    return ""


def definition(key: ItemKey, _: Body, __: Body) -> dict[str, object]:
    """Return the entry that RabbitMQ imports."""
    return {"name": key[1]}


def delete(api: Deletions, key: ItemKey) -> None:
    """Delete the vhost with everything in it."""
    api.delete("vhosts", key[1])


def vhosts(key: ItemKey) -> tuple[str, ...]:
    """Return the vhost itself."""
    return (key[1],)


def is_ours(_: ItemKey, __: ItemKeys) -> bool:
    """Return False: others may use it by now. ``changes.withdrawal`` removes a deserted one."""
    return False


def vanishes_with(_: ItemKey, __: ItemKeys) -> bool:
    """Return False: nothing takes a vhost along."""
    return False
