"""A policy: age and length of queues, which RabbitMQ applies to every queue that its name matches.

Limits stand in policies, never in queue arguments, so that any client may redeclare the queues.
"""

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

NAME = "policy"
SECTION = "policies"
IS_OWNED = True
IS_REPLACED = False


class _Entry(msgspec.Struct, frozen=True):
    vhost: str
    name: str
    pattern: str
    priority: int
    definition: dict[str, object]
    apply_to: str = msgspec.field(name="apply-to")


def item(vhost: str, name: str, pattern: str, limits: Body, priority: int = 0) -> Item:
    """Return a desired policy for the queues whose names match ``pattern``."""
    return (NAME, vhost, name), {
        "pattern": pattern,
        "apply-to": "queues",
        "priority": priority,
        "definition": dict(limits),
    }


def read(definitions: Definitions) -> Iterator[Item]:
    """Yield the policies that the broker has."""
    for entry in read_section(definitions, SECTION, _Entry):
        yield (
            (NAME, entry.vhost, entry.name),
            {
                "pattern": entry.pattern,
                "apply-to": entry.apply_to,
                "priority": entry.priority,
                "definition": entry.definition,
            },
        )


def difference(desired: Body, present: Body) -> str:
    """Return the differences, for the plan."""
    return list_differences(desired, present)


def definition(key: ItemKey, desired: Body, _: Body) -> dict[str, object]:
    """Return the entry that RabbitMQ imports."""
    return {"vhost": key[1], "name": key[2], **desired}


def delete(api: Deletions, key: ItemKey) -> None:
    """Delete the policy."""
    api.delete("policies", key[1], key[2])


def vhosts(key: ItemKey) -> tuple[str, ...]:
    """Return the vhost of the policy."""
    return (key[1],)


def is_ours(key: ItemKey, owned: ItemKeys) -> bool:
    """Return whether the policy is in the ledger."""
    return key in owned


def vanishes_with(_: ItemKey, __: ItemKeys) -> bool:
    """Return False: a policy outlives its queues."""
    return False
