"""The operator: kopf calls, ``expose/cluster/`` works. Nothing is decided here.

Called by ``stackbus operator``. Each resource has one ``keep``, a daemon of kopf's: it runs
``Cluster.reconcile`` at its start, whenever the resource changed (``notice``), whenever something
that stackbus made, the Service or the broker's Secret changed (``watching.py``), and when the
resync time has passed. Runs never overlap, and work in a thread: kopf's loop goes on. What stopped
a run decides about the next: later, or never until something changes. ``withdraw`` holds the
resource's deletion back until all is taken away.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable
from functools import partial
from typing import Any, cast

import kopf
import structlog

from stackbus.errors import InvalidDeployment, StackbusError
from stackbus.expose.cluster.endpoint import SERVICE
from stackbus.expose.cluster.reconcile import LET_GO, Cluster
from stackbus.expose.cluster.rotation import ROTATE
from stackbus.expose.cluster.telling import Tell
from stackbus.expose.deployment import API_VERSION
from stackbus.expose.secrets import NAMESPACE, OWN_NAMESPACE
from stackbus.metrics import FAILURES, RECONCILE_SECONDS, RECONCILES
from stackbus.operator.watching import Watcher, watched

RESOURCE = (*API_VERSION.split("/"), "openstackdeployments")
PREFIX = "stackbus.io"
_LATER = 5.0  # seconds until a run that something stopped is tried again
_FAREWELL = 30.0  # seconds for a run to end when the resource goes or the operator stops
_GATHER = 0.2  # seconds in which several changes lead to one run

log = structlog.get_logger()


class Operator:
    """The handlers of one operator, around one Cluster."""

    def __init__(self, cluster: Cluster, watcher: Watcher) -> None:
        """Serve ``cluster``; ``watcher`` tells what happens to other things than the resource."""
        self._cluster = cluster
        self._watcher = watcher
        self._turn = asyncio.Lock()
        self._changed: dict[str, asyncio.Event] = {}
        self._seen: dict[str, object] = {}

    async def notice(self, body: kopf.Body, uid: str, **_: Any) -> None:
        """Wake ``keep`` if what changed in the resource is one of ours: not its status."""
        part = _our_part(body)
        if self._seen.get(uid) != part and uid in self._changed:
            self._changed[uid].set()
        self._seen[uid] = part

    async def keep(self, body: kopf.Body, uid: str, stopped: kopf.DaemonStopped, **_: Any) -> None:
        """Make everything as the resource wants it, and keep it so."""
        changed = self._changed[uid] = asyncio.Event()
        settings = self._cluster.settings
        places = watched(settings, (NAMESPACE, OWN_NAMESPACE), SERVICE)
        watches = [asyncio.create_task(self._watcher(place, changed)) for place in places]
        try:
            while not stopped:
                changed.clear()
                pause = settings.resync
                try:
                    await self._run(self._cluster.reconcile, body)
                except kopf.TemporaryError:
                    pause = min(pause, _LATER)
                except kopf.PermanentError:
                    pass
                await _first_of(changed, stopped, pause)
                await asyncio.sleep(_GATHER)
        finally:
            del self._changed[uid]
            for watch in watches:
                watch.cancel()

    async def withdraw(self, body: kopf.Body, uid: str, **_: Any) -> None:
        """Take away everything that was made for the resource."""
        await self._run(self._cluster.withdraw, body)
        self._seen.pop(uid, None)

    async def _run(self, work: Callable[[str, str, Tell], None], body: kopf.Body) -> None:
        """Work in a thread; turn our errors into kopf's: later, or never."""
        namespace, name = str(body.metadata.namespace), str(body.metadata.name)
        tell = cast("Tell", partial(_tell, body))
        async with self._turn:
            try:
                with RECONCILE_SECONDS.time():
                    await asyncio.to_thread(work, namespace, name, tell)
            except StackbusError as error:
                FAILURES.labels(type(error).__name__).inc()
                log.warning("operator.failed", resource=f"{namespace}/{name}", error=str(error))
                if isinstance(error, InvalidDeployment):
                    RECONCILES.labels("never").inc()
                    raise kopf.PermanentError(str(error)) from None
                RECONCILES.labels("later").inc()
                raise kopf.TemporaryError(str(error), delay=_LATER) from None
        RECONCILES.labels("done").inc()


async def _first_of(changed: asyncio.Event, stopped: kopf.DaemonStopped, seconds: float) -> None:
    """Wait until something changed, the daemon is to stop, or the time has passed."""
    waits = [asyncio.ensure_future(changed.wait()), asyncio.ensure_future(stopped.wait())]
    try:
        await asyncio.wait(waits, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for wait in waits:
            wait.cancel()


def registry(operator: Operator) -> kopf.OperatorRegistry:
    """Give kopf's registry with the operator's handlers."""
    found = kopf.OperatorRegistry()
    kopf.on.startup(registry=found)(_configure)
    kopf.on.login(registry=found)(_login)
    kopf.on.event(*RESOURCE, registry=found, id="notice")(operator.notice)
    kopf.daemon(
        *RESOURCE,
        registry=found,
        id="keep",
        cancellation_backoff=_FAREWELL,
        cancellation_timeout=_FAREWELL,
    )(operator.keep)
    kopf.on.delete(*RESOURCE, registry=found, id="withdraw")(operator.withdraw)
    return found


def run(
    cluster: Cluster,
    watcher: Watcher,
    *,
    namespaces: tuple[str, ...],
    peering: str | None,
    liveness: str | None,
) -> None:
    """Run until SIGTERM or SIGINT. ``peering`` names the peering of the replicas."""

    async def serve() -> None:
        await kopf.operator(
            registry=registry(Operator(cluster, watcher)),
            clusterwide=not namespaces,
            namespaces=namespaces,
            standalone=None if peering else True,
            peering_name=peering,
            # Replicas of the same priority would both stand by.
            priority=secrets.randbelow(2**31),
            liveness_endpoint=liveness,
        )

    asyncio.run(serve())


class _OurPart(kopf.AnnotationsDiffBaseStorage):
    """Remembers of the resource what stackbus reads; MOSK's holds much more."""

    def build(self, *, body: kopf.Body, **_: Any) -> Any:
        """Give the part of ``body`` whose change is one for us."""
        return _our_part(body)


def _our_part(body: kopf.Body) -> dict[str, object]:
    features = (body.get("spec") or {}).get("features")
    of_ours = features if isinstance(features, dict) else {}
    annotations = body.metadata.annotations
    return {
        "services": of_ours.get("services"),
        "messaging": of_ours.get("messaging"),
        "annotations": {n: annotations[n] for n in (ROTATE, LET_GO) if n in annotations},
    }


async def _configure(settings: kopf.OperatorSettings, **_: Any) -> None:
    # Names of our own: another operator on the same resource may be kopf's too (MOSK's rockoon
    # is), and would take our marks for its own.
    settings.persistence.finalizer = f"{PREFIX}/finalizer"
    settings.persistence.progress_storage = kopf.AnnotationsProgressStorage(prefix=PREFIX)
    settings.persistence.diffbase_storage = _OurPart(prefix=PREFIX, key="last-handled")
    # One peering for the cluster, also where one namespace alone is served.
    settings.peering.clusterwide = True
    settings.posting.reporting_component = "stackbus"
    settings.posting.event_name_prefix = "stackbus-"
    settings.networking.error_backoffs = (0.5, 1, 2, 3, 5)


def _login(**kwargs: Any) -> kopf.ConnectionInfo | None:
    return kopf.login_with_service_account(**kwargs) or kopf.login_with_kubeconfig(**kwargs)


def _tell(body: kopf.Body, kind: str, reason: str, message: str) -> None:
    kopf.event(body, type=kind, reason=reason, message=message[:1000])
