"""Routing keys of the outer bus: made by the relay, bound by topics, read by consumers. Pure.

A key is ``<priority>.<service>.<project>.<event_type>``, for example
``info.nova.6f70656e737461636b20342065766572.instance.create.end``. The event type has dots of its
own; the three words before it have none.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import product

UNKNOWN = "-"
"""The word for a service or a project that the relay cannot tell."""

PROJECT_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")
"""A project id that can be one word of a routing key (Keystone's column holds 64 characters)."""

PATTERN_WORD = re.compile(r"\*|#|[A-Za-z0-9_:@-]+")
"""One word of an AMQP topic pattern on event types."""

_MAX_BYTES = 255
"""Bytes of a routing key and of a text property at most (AMQP 0-9-1, section 4.2.5.3)."""


@dataclass(frozen=True, slots=True)
class RoutingKey:
    """The four parts of a routing key; a part that is missing from a foreign key is empty."""

    priority: str
    service: str
    project: str
    event_type: str

    def __str__(self) -> str:
        """Return the key as AMQP carries it, at most 255 bytes long."""
        return short_string(f"{self.priority}.{self.service}.{self.project}.{self.event_type}")

    @staticmethod
    def parse(text: str) -> RoutingKey:
        """Split the key of a delivery."""
        priority, service, project, event_type = (*text.split(".", 3), "", "", "")[:4]
        return RoutingKey(priority, service, project, event_type)


@dataclass(frozen=True, slots=True)
class RoutingFilter:
    """Which notifications pass; an empty tuple lets all pass. ``event_types`` are AMQP patterns."""

    services: tuple[str, ...] = ()
    event_types: tuple[str, ...] = ()
    projects: tuple[str, ...] = ()
    priorities: tuple[str, ...] = ()

    def passes(self, key: RoutingKey) -> bool:
        """Return whether the notification with this key passes."""
        return (
            (not self.services or key.service in self.services)
            and (not self.projects or key.project in self.projects)
            and (not self.priorities or key.priority in self.priorities)
            and (
                not self.event_types
                or any(matches(pattern, key.event_type) for pattern in self.event_types)
            )
        )

    def binding_keys(self) -> tuple[str, ...]:
        """Return the keys of the bindings that make RabbitMQ filter alike.

        One for each combination of priority, service, project and event pattern.
        """
        if self == RoutingFilter():
            return ("#",)
        return tuple(
            ".".join(words)
            for words in product(
                self.priorities or ("*",),
                self.services or ("*",),
                self.projects or ("*",),
                self.event_types or ("#",),
            )
        )


def matches(pattern: str, event_type: str) -> bool:
    """Match as an AMQP topic exchange does: ``*`` is one word, ``#`` any number of words."""
    return _match_words(pattern.split("."), event_type.split("."))


def short_string(text: str) -> str:
    """Cut ``text``, at the end of a character, to the length of an AMQP short string."""
    encoded = text.encode("utf-8", "replace")
    return text if len(encoded) <= _MAX_BYTES else encoded[:_MAX_BYTES].decode("utf-8", "ignore")


def _match_words(pattern: list[str], words: list[str]) -> bool:
    if not pattern:
        return not words
    head, tail = pattern[0], pattern[1:]
    if head == "#":
        return any(_match_words(tail, words[skip:]) for skip in range(len(words) + 1))
    return bool(words) and head in ("*", words[0]) and _match_words(tail, words[1:])
