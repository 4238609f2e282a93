"""Every error that stackbus raises on purpose, and the exit code it ends a command with.

    StackbusError            1  could not be done; the message says why and what mends it
    +-- InputError           2  the input is wrong; nothing was touched
    |   +-- InvalidDeployment   lists every mistake of an OpenStackDeployment
    +-- BrokerError          1  RabbitMQ refused, or answered what it should not
    |   +-- BrokerUnreachable   nobody answers: try again later
    +-- KubernetesError      1  Kubernetes refused, or does not allow it
    |   +-- KubernetesUnreachable   nobody answers, or too busy: try again later
    +-- Waiting              1  something else must come first; the message says what
    +-- Conflict             1  something of that name exists and is not ours
    +-- HistoryError         1  the history refused, or cannot be read by this stackbus
    |   +-- HistoryUnreachable    away, or full: try again later
    +-- OpenSearchError      1  OpenSearch does not answer, or refuses
    +-- Unreadable           1  a body that is no notification (relay and recorder quarantine it)

The doors (cli/, operator/) catch StackbusError and nothing wider; the rooms that speak
to other systems (clients/, broker/) translate foreign errors into these at one place each.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar


class StackbusError(Exception):
    """It could not be done; the message is the sentence the user reads."""

    exit_code: ClassVar[int] = 1
    is_transient: ClassVar[bool] = False
    """Whether a stream waits and tries again (``flow/loop.py``) instead of ending."""


class InputError(StackbusError):
    """What was given is wrong: a file, an option, a name."""

    exit_code: ClassVar[int] = 2


@dataclass(frozen=True, slots=True)
class Mistake:
    """One thing wrong in a document: where, what stands there, and what to do about it."""

    path: str
    value: str
    mend: str

    def __str__(self) -> str:
        """Give one line: ``path: value: mend``."""
        return f"{self.path}: {self.value}: {self.mend}"


class InvalidDeployment(InputError):
    """The OpenStackDeployment has mistakes; all of them are in ``mistakes``."""

    def __init__(self, origin: str, mistakes: list[Mistake]) -> None:
        """Keep every mistake found in ``origin`` (a file's name, or a resource's)."""
        self.origin = origin
        self.mistakes = mistakes
        count = "1 mistake" if len(mistakes) == 1 else f"{len(mistakes)} mistakes"
        lines = "".join(f"\n  {mistake}" for mistake in mistakes)
        super().__init__(f"{origin}: {count}{lines}")


class BrokerError(StackbusError):
    """RabbitMQ refused a request, or its answer makes no sense."""

    is_transient = True  # a refusal too: a password is rotated, a queue is declared again


class BrokerUnreachable(BrokerError):
    """RabbitMQ does not answer."""


class KubernetesError(StackbusError):
    """Kubernetes refused a request, or does not allow it."""


class KubernetesUnreachable(KubernetesError):
    """Kubernetes does not answer, or only that it is busy."""


class HistoryError(StackbusError):
    """The history refused, or holds what this stackbus cannot read."""


class HistoryUnreachable(HistoryError):
    """The history does not answer, or has no room: it may later."""

    is_transient = True


class OpenSearchError(StackbusError):
    """OpenSearch does not answer, or refuses."""

    is_transient = True


class Waiting(StackbusError):
    """Something else must come first."""


class Conflict(StackbusError):
    """Something of a name that stackbus needs exists and does not belong to stackbus."""


class Unreadable(StackbusError):
    """A body that cannot be decoded; the message says why and holds nothing of the body."""
