"""RabbitMQ's management API, as the control plane uses it: a Protocol.

``clients/management.py`` is the real one.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from stackbus.expose.kinds.kind import Definitions, Deletions


class BrokerApi(Deletions, Protocol):
    """The management API of one broker."""

    def definitions(self) -> Definitions:
        """Return everything that the broker has."""

    def import_definitions(self, definitions: Definitions) -> None:
        """Create and change what ``definitions`` holds, and nothing else."""

    def global_parameter(self, name: str) -> Mapping[str, object] | None:
        """Return the value of a global parameter, None if it is not set."""

    def put_global_parameter(self, name: str, value: Mapping[str, object]) -> None:
        """Write a global parameter."""
