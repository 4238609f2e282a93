"""A permission: the names that one user may configure, write and read in one vhost."""

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

NAME = "permission"
SECTION = "permissions"
IS_OWNED = False
IS_REPLACED = False

NO_NAME = "^$"
"""The pattern that no name matches."""


class _Entry(msgspec.Struct, frozen=True):
    user: str
    vhost: str
    configure: str
    write: str
    read: str


def item(user: str, vhost: str, configure: str, write: str, read_: str) -> Item:
    """Return a desired permission; each verb is a regular expression on names."""
    return (NAME, user, vhost), {"configure": configure, "write": write, "read": read_}


def read(definitions: Definitions) -> Iterator[Item]:
    """Yield the permissions that the broker has."""
    for entry in read_section(definitions, SECTION, _Entry):
        yield item(entry.user, entry.vhost, entry.configure, entry.write, entry.read)


def difference(desired: Body, present: Body) -> str:
    """Return the differences, for the plan."""
    return list_differences(desired, present)


def definition(key: ItemKey, desired: Body, _: Body) -> dict[str, object]:
    """Return the entry that RabbitMQ imports."""
    return {"user": key[1], "vhost": key[2], **desired}


def delete(api: Deletions, key: ItemKey) -> None:
    """Delete the permission."""
    api.delete("permissions", key[2], key[1])


def vhosts(key: ItemKey) -> tuple[str, ...]:
    """Return the vhost that the user may enter."""
    return (key[2],)


def is_ours(key: ItemKey, owned: ItemKeys) -> bool:
    """Return whether the user is in the ledger."""
    return ("user", key[1]) in owned


def vanishes_with(key: ItemKey, removed: ItemKeys) -> bool:
    """Return whether the user goes."""
    return ("user", key[1]) in removed
