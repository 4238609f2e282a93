"""What the operator watches beside the resource, and no more than that.

Called by ``handlers.py``. kopf would watch Secrets in every namespace that it serves; here only
those are watched that stackbus makes or reads, so that its role needs no others.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from stackbus.settings import Settings


@dataclass(frozen=True, slots=True)
class Place:
    """One watch: a kind in a namespace, or one object of it."""

    kind: str
    namespace: str
    name: str | None = None


class Watches(Protocol):
    """What is needed of Kubernetes; ``clients/kubernetes.py`` is the real one."""

    def watch(
        self, kind: str, namespace: str, *, name: str | None = None
    ) -> AsyncIterator[tuple[str, Mapping[str, Any]]]:
        """Give what happens to the objects of a namespace, or to one."""


Watcher = Callable[[Place, asyncio.Event], Coroutine[Any, Any, None]]


def watched(settings: Settings, namespaces: tuple[str, ...], service: str) -> list[Place]:
    """List what is watched: our Secrets, the brokers', and the Service."""
    brokers = [
        place.split("/", 1)
        for place in dict.fromkeys((settings.broker_secret, settings.outer_broker_secret))
        if place
    ]
    return [
        *(Place("Secret", namespace) for namespace in namespaces),
        *(Place("Secret", where, name) for where, name in brokers if where not in namespaces),
        Place("Service", brokers[-1][0], service),
    ]


def watcher(cluster: Watches) -> Watcher:
    """Give the function that sets an event whenever something in a place changes."""

    async def watch(place: Place, changed: asyncio.Event) -> None:
        async for _ in cluster.watch(place.kind, place.namespace, name=place.name):
            changed.set()

    return watch
