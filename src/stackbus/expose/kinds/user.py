"""A user: the relay, ``stackbus tail``, each service, and each generation of a topic's consumer."""

from __future__ import annotations

import base64
import hashlib
import secrets
from collections.abc import Iterator, Mapping

import msgspec

from stackbus.bus.names import USER_TAG
from stackbus.expose.kinds.kind import (
    Body,
    Definitions,
    Deletions,
    Item,
    ItemKey,
    ItemKeys,
    read_section,
)

NAME = "user"
SECTION = "users"
IS_OWNED = True
IS_REPLACED = False


class _Entry(msgspec.Struct, frozen=True):
    name: str
    tags: list[str] | str  # a list since RabbitMQ 3.9
    password_hash: str = ""
    limits: dict[str, object] = {}


def item(name: str, credential: Body, limits: Mapping[str, int] | None = None) -> Item:
    """Return a desired user. ``credential`` is its ``password`` or its ``password_hash``."""
    return (NAME, name), {"tags": [USER_TAG], "limits": dict(limits or {}), **credential}


def read(definitions: Definitions) -> Iterator[Item]:
    """Yield the users that the broker has."""
    for entry in read_section(definitions, SECTION, _Entry):
        tags = entry.tags if isinstance(entry.tags, list) else entry.tags.split(",")
        yield (
            (NAME, entry.name),
            {
                "password_hash": entry.password_hash,
                "tags": [tag for tag in tags if tag],
                "limits": entry.limits,
            },
        )


def difference(desired: Body, present: Body) -> str:
    """Return the names of the fields that differ, without values."""
    return ", ".join(name for name, value in desired.items() if not _is_same(name, value, present))


def definition(key: ItemKey, desired: Body, present: Body) -> dict[str, object]:
    """Return the entry that RabbitMQ imports; a password that is right keeps its hash."""
    password_hash = desired.get("password_hash")
    if password_hash is None:
        password = str(desired["password"])
        present_hash = str(present.get("password_hash", ""))
        is_right = is_password(password, present_hash)
        password_hash = present_hash if is_right else hash_password(password)
    return {
        "name": key[1],
        "password_hash": password_hash,
        "hashing_algorithm": "rabbit_password_hashing_sha256",
        "tags": ",".join(_texts(desired["tags"])),
        "limits": desired["limits"],
    }


def delete(api: Deletions, key: ItemKey) -> None:
    """Delete the user, its permissions and its connections."""
    api.delete("users", key[1])
    api.close_connections(key[1])


def vhosts(_: ItemKey) -> tuple[str, ...]:
    """Return none: a user is in no vhost, its permissions are."""
    return ()


def is_ours(key: ItemKey, owned: ItemKeys) -> bool:
    """Return whether the user is in the ledger."""
    return key in owned


def vanishes_with(_: ItemKey, __: ItemKeys) -> bool:
    """Return False: nothing takes a user along."""
    return False


def hash_password(password: str) -> str:
    """Hash a password as RabbitMQ does: base64 of a 4-byte salt and SHA-256 of salt and password.

    Source: rabbit_password_hashing_sha256.erl, and "Password Hashing" in RabbitMQ's guides.
    """
    return _hash(secrets.token_bytes(4), password)


def is_password(password: str, password_hash: str) -> bool:
    """Return whether RabbitMQ's ``password_hash`` is of ``password``."""
    try:
        salt = base64.b64decode(password_hash)[:4]
    except ValueError:
        return False
    return secrets.compare_digest(_hash(salt, password), password_hash)


def _hash(salt: bytes, password: str) -> str:
    return base64.b64encode(salt + hashlib.sha256(salt + password.encode()).digest()).decode()


def _is_same(name: str, value: object, present: Body) -> bool:
    if name == "password":
        return is_password(str(value), str(present.get("password_hash", "")))
    if name == "tags":
        return sorted(_texts(value)) == sorted(_texts(present.get("tags")))
    return value == present.get(name)


def _texts(value: object) -> list[str]:
    return [str(text) for text in value] if isinstance(value, list) else []
