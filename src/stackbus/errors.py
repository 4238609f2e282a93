"""Every error that stackbus raises on purpose, and the exit code with which it ends a command.

    StackbusError            1  failed; the message gives the reason and a remedy
    +-- InputError           2  the input is wrong, and nothing was changed
    |   +-- InvalidDeployment   an OpenStackDeployment has mistakes, all of them listed
    +-- BrokerError          1  RabbitMQ refused a request, or sent an invalid answer
    |   +-- BrokerUnreachable   RabbitMQ does not answer: retry later
    +-- KubernetesError      1  Kubernetes refused a request
    |   +-- KubernetesUnreachable   Kubernetes does not answer, or is overloaded: retry later
    +-- PortTaken            1  a port of the private broker is used by another process
    +-- Waiting              1  a prerequisite is missing: retry when it is there
    +-- Conflict             1  the name is taken by an object that stackbus did not create
    +-- HistoryError         1  the history refused a request, or has an unknown schema
    |   +-- HistoryUnreachable    the history does not answer, or is full: retry later
    +-- OpenSearchError      1  OpenSearch refused a request, or does not answer
    +-- Unreadable           1  not a notification: the relay and the recorder quarantine it

The doors (cli/, operator/) catch StackbusError and nothing wider. The rooms that speak to other
systems (clients/, history/, broker/) translate foreign errors into these, each in one place.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar


class StackbusError(Exception):
    """The command failed; the message gives the reason and a remedy."""

    exit_code: ClassVar[int] = 1
    is_transient: ClassVar[bool] = False
    """Whether a stream waits and tries again (``flow/loop.py``) instead of ending."""


class InputError(StackbusError):
    """A file, an option or a name is wrong, and nothing was changed."""

    exit_code: ClassVar[int] = 2


@dataclass(frozen=True, slots=True)
class Mistake:
    """One mistake in a document: its path, the value there, and the remedy."""

    path: str
    value: str
    remedy: str

    def __str__(self) -> str:
        """Return one line: ``path: value: remedy``."""
        return f"{self.path}: {self.value}: {self.remedy}"


class InvalidDeployment(InputError):
    """The OpenStackDeployment has mistakes; ``mistakes`` lists all of them."""

    def __init__(self, origin: str, mistakes: list[Mistake]) -> None:
        """List the ``mistakes`` of ``origin``, the name of a file or of a resource."""
        self.origin = origin
        self.mistakes = mistakes
        count = "1 mistake" if len(mistakes) == 1 else f"{len(mistakes)} mistakes"
        lines = "".join(f"\n  {mistake}" for mistake in mistakes)
        super().__init__(f"{origin}: {count}{lines}")


class BrokerError(StackbusError):
    """RabbitMQ refused a request, or sent an invalid answer."""

    is_transient = True  # a refusal too: passwords are rotated, queues are declared again


class BrokerUnreachable(BrokerError):
    """RabbitMQ does not answer; the same request may succeed later."""


class KubernetesError(StackbusError):
    """Kubernetes refused a request."""


class KubernetesUnreachable(KubernetesError):
    """Kubernetes does not answer, or is overloaded; the same request may succeed later."""


class HistoryError(StackbusError):
    """The history refused a request, or has a schema that this version does not know."""


class HistoryUnreachable(HistoryError):
    """The history does not answer, or is full; the same request may succeed later."""

    is_transient = True


class OpenSearchError(StackbusError):
    """OpenSearch refused a request, or does not answer."""

    is_transient = True


class PortTaken(StackbusError):
    """A port of the private broker is used by another process; the message names the port."""


class Waiting(StackbusError):
    """A prerequisite is missing; the message names it."""


class Conflict(StackbusError):
    """A name that stackbus needs is taken by an object that stackbus did not create."""


class Unreadable(StackbusError):
    """A body is not a notification; the message gives the reason and quotes nothing of the body."""
