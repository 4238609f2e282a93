"""The operator's watches beside the resource: our Secrets, the brokers' Secrets, the Service.

``handlers.py`` starts them, and reconciles when one of these objects changes. kopf would watch
Secrets in every namespace that it serves; these watches need a role for a few namespaces only.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from stackbus.settings import Settings


@dataclass(frozen=True, slots=True)
class WatchTarget:
    """The objects of a kind in a namespace, or one of them."""

    kind: str
    namespace: str
    name: str | None = None


class WatchApi(Protocol):
    """The part of Kubernetes' API that watches need; see ``clients/kubernetes.py``."""

    def watch(
        self, kind: str, namespace: str, *, name: str | None = None
    ) -> AsyncIterator[tuple[str, Mapping[str, Any]]]:
        """Yield the events of the objects in a namespace, or of one object."""


Watcher = Callable[[WatchTarget, asyncio.Event], Coroutine[Any, Any, None]]


def list_targets(
    settings: Settings, namespaces: tuple[str, ...], service: str
) -> list[WatchTarget]:
    """Return the targets: our Secrets, the brokers', and the Service."""
    brokers = [
        path.split("/", 1)
        for path in dict.fromkeys((settings.broker_secret, settings.outer_broker_secret))
        if path
    ]
    return [
        *(WatchTarget("Secret", namespace) for namespace in namespaces),
        *(
            WatchTarget("Secret", namespace, name)
            for namespace, name in brokers
            if namespace not in namespaces
        ),
        WatchTarget("Service", brokers[-1][0], service),
    ]


def make_watcher(api: WatchApi) -> Watcher:
    """Return a function that sets an event whenever one of a target's objects changes."""

    async def watch(target: WatchTarget, changed: asyncio.Event) -> None:
        async for _ in api.watch(target.kind, target.namespace, name=target.name):
            changed.set()

    return watch
