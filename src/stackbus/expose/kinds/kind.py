"""The shape of a kind: the functions that each file beside this one has, and the values they share.

An item is one thing in RabbitMQ: its key says which, its body how it is, in the words of
RabbitMQ's definitions (``GET /api/definitions``).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from collections.abc import Set as AbstractSet
from typing import Protocol, TypeVar

import msgspec

ItemKey = tuple[str, ...]
"""(kind, vhost or user, name, ...)."""

ItemKeys = AbstractSet[ItemKey]

Body = Mapping[str, object]
Item = tuple[ItemKey, Body]
Items = dict[ItemKey, Body]

Definitions = Mapping[str, object]
"""RabbitMQ's definitions: a list of entries for each section."""

Entry = TypeVar("Entry")


class Deletions(Protocol):
    """How a kind deletes an item: ``clients/management.py`` implements it."""

    def delete(self, *path: str) -> None:
        """Send DELETE to a path of the management API. An item that is absent is no error."""

    def delete_binding(
        self,
        vhost: str,
        source: str,
        destination_type: str,
        destination: str,
        routing_key: str,
        arguments: Mapping[str, object],
    ) -> None:
        """Delete one binding."""

    def close_connections(self, user: str) -> None:
        """Close every connection of ``user``."""


class Kind(Protocol):
    """One kind of item. Each file beside this one is a module of this shape."""

    NAME: str
    """First word of the key, and the word that a plan shows."""

    SECTION: str
    """Section of RabbitMQ's definitions."""

    IS_OWNED: bool
    """Whether the names of these items stand in the ledger."""

    IS_REPLACED: bool
    """Whether RabbitMQ cannot change such an item, so that a change deletes and creates it."""

    def read(self, definitions: Definitions) -> Iterator[Item]:
        """Yield the items that the broker has. Raises msgspec.ValidationError."""

    def difference(self, desired: Body, present: Body) -> str:
        """Return the differences, for the plan; '' for none. Shows no secret."""

    def definition(self, key: ItemKey, desired: Body, present: Body) -> dict[str, object]:
        """Return the entry that RabbitMQ imports. ``present`` is empty for a new item."""

    def delete(self, api: Deletions, key: ItemKey) -> None:
        """Delete the item from the broker."""

    def vhosts(self, key: ItemKey) -> tuple[str, ...]:
        """Return the vhost of the item; none for a user."""

    def is_ours(self, key: ItemKey, owned: ItemKeys) -> bool:
        """Return whether stackbus may remove the item, given the names in the ledger."""

    def vanishes_with(self, key: ItemKey, removed: ItemKeys) -> bool:
        """Return whether RabbitMQ itself removes the item when ``removed`` goes."""


def read_section(definitions: Definitions, section: str, entry: type[Entry]) -> list[Entry]:
    """Return the entries of one section. Raises msgspec.ValidationError."""
    return msgspec.convert(definitions.get(section), list[entry])  # type: ignore[valid-type]


def list_differences(desired: Body, present: Body) -> str:
    """Return ``name: present -> desired`` for each field that differs."""
    return ", ".join(
        f"{name}: {present.get(name)} -> {value}"
        for name, value in desired.items()
        if value != present.get(name)
    )
