"""The handlers that kopf calls; the decisions are in ``expose/cluster/``.

kopf runs the daemon ``keep`` for each resource. It calls ``Reconciler.reconcile`` at its start,
after each change of the resource (``notice``), after each change of an object in ``watches.py``,
and after the resync time. Runs do not overlap; each has a thread, so that kopf's loop continues.
The error that stopped a run decides about the next run: after a pause, or after a change.
``withdraw`` delays the resource's deletion until everything is removed.
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
from stackbus.expose.cluster.reconcile import LET_GO, Reconciler
from stackbus.expose.cluster.reporting import PostEvent
from stackbus.expose.cluster.rotation import ROTATE
from stackbus.expose.deployment import API_VERSION
from stackbus.expose.secrets import NAMESPACE, OWN_NAMESPACE
from stackbus.metrics import FAILURES, RECONCILE_SECONDS, RECONCILES
from stackbus.operator.watches import Watcher, list_targets

RESOURCE = (*API_VERSION.split("/"), "openstackdeployments")
PREFIX = "stackbus.io"
_RETRY_SECONDS = 5.0  # pause after a run that an error stopped
_STOP_SECONDS = 30.0  # for a run to end when the resource is deleted or the operator stops
_DEBOUNCE_SECONDS = 0.2  # changes within this time lead to one run

log = structlog.get_logger()


class Operator:
    """The handlers of one operator, around one Reconciler."""

    def __init__(self, reconciler: Reconciler, watcher: Watcher) -> None:
        """Call ``reconciler``; ``watcher`` reports changes of other objects than the resource."""
        self._reconciler = reconciler
        self._watcher = watcher
        self._lock = asyncio.Lock()
        self._changes: dict[str, asyncio.Event] = {}
        self._specs: dict[str, object] = {}

    async def notice(self, body: kopf.Body, uid: str, **_: Any) -> None:
        """Wake ``keep`` if a part of the resource changed that stackbus reads."""
        spec = _select_spec(body)
        if self._specs.get(uid) != spec and uid in self._changes:
            self._changes[uid].set()
        self._specs[uid] = spec

    async def keep(self, body: kopf.Body, uid: str, stopped: kopf.DaemonStopped, **_: Any) -> None:
        """Reconcile at the start, after each change and each resync time, until stopped."""
        changed = self._changes[uid] = asyncio.Event()
        settings = self._reconciler.settings
        targets = list_targets(settings, (NAMESPACE, OWN_NAMESPACE), SERVICE)
        watches = [asyncio.create_task(self._watcher(target, changed)) for target in targets]
        try:
            while not stopped:
                changed.clear()
                pause = settings.resync
                try:
                    await self._run(self._reconciler.reconcile, body)
                except kopf.TemporaryError:
                    pause = min(pause, _RETRY_SECONDS)
                except kopf.PermanentError:
                    pass
                await _wait_for_change(changed, stopped, pause)
                await asyncio.sleep(_DEBOUNCE_SECONDS)
        finally:
            del self._changes[uid]
            for watch in watches:
                watch.cancel()

    async def withdraw(self, body: kopf.Body, uid: str, **_: Any) -> None:
        """Remove everything that was made for the resource."""
        await self._run(self._reconciler.withdraw, body)
        self._specs.pop(uid, None)

    async def _run(self, work: Callable[[str, str, PostEvent], None], body: kopf.Body) -> None:
        """Work in a thread. Raises kopf's TemporaryError or PermanentError for our errors."""
        namespace, name = str(body.metadata.namespace), str(body.metadata.name)
        post_event = cast("PostEvent", partial(_post_event, body))
        async with self._lock:
            try:
                with RECONCILE_SECONDS.time():
                    await asyncio.to_thread(work, namespace, name, post_event)
            except StackbusError as error:
                FAILURES.labels(type(error).__name__).inc()
                log.warning("operator.failed", resource=f"{namespace}/{name}", error=str(error))
                if isinstance(error, InvalidDeployment):
                    RECONCILES.labels("never").inc()
                    raise kopf.PermanentError(str(error)) from None
                RECONCILES.labels("later").inc()
                raise kopf.TemporaryError(str(error), delay=_RETRY_SECONDS) from None
        RECONCILES.labels("done").inc()


async def _wait_for_change(
    changed: asyncio.Event, stopped: kopf.DaemonStopped, seconds: float
) -> None:
    """Wait for a change, for the daemon's end, or until the time has passed."""
    waits = [asyncio.ensure_future(changed.wait()), asyncio.ensure_future(stopped.wait())]
    try:
        await asyncio.wait(waits, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for wait in waits:
            wait.cancel()


def make_registry(operator: Operator) -> kopf.OperatorRegistry:
    """Return kopf's registry with the operator's handlers."""
    handlers = kopf.OperatorRegistry()
    kopf.on.startup(registry=handlers)(_configure)
    kopf.on.login(registry=handlers)(_login)
    kopf.on.event(*RESOURCE, registry=handlers, id="notice")(operator.notice)
    kopf.daemon(
        *RESOURCE,
        registry=handlers,
        id="keep",
        cancellation_backoff=_STOP_SECONDS,
        cancellation_timeout=_STOP_SECONDS,
    )(operator.keep)
    kopf.on.delete(*RESOURCE, registry=handlers, id="withdraw")(operator.withdraw)
    return handlers


def run(
    reconciler: Reconciler,
    watcher: Watcher,
    *,
    namespaces: tuple[str, ...],
    peering: str | None,
    liveness: str | None,
) -> None:
    """Run until SIGTERM or SIGINT. ``peering`` names the peering of the replicas."""

    async def serve() -> None:
        await kopf.operator(
            registry=make_registry(Operator(reconciler, watcher)),
            clusterwide=not namespaces,
            namespaces=namespaces,
            standalone=None if peering else True,
            peering_name=peering,
            # Of replicas with the same priority, all would stand by.
            priority=secrets.randbelow(2**31),
            liveness_endpoint=liveness,
        )

    asyncio.run(serve())


class _SpecStorage(kopf.AnnotationsDiffBaseStorage):
    """Stores the parts of the resource that stackbus reads; MOSK's resource has many more."""

    def build(self, *, body: kopf.Body, **_: Any) -> Any:
        """Return the parts of ``body`` that stackbus reads."""
        return _select_spec(body)


def _select_spec(body: kopf.Body) -> dict[str, object]:
    features = (body.get("spec") or {}).get("features")
    if not isinstance(features, dict):
        features = {}
    annotations = body.metadata.annotations
    return {
        "services": features.get("services"),
        "messaging": features.get("messaging"),
        "annotations": {n: annotations[n] for n in (ROTATE, LET_GO) if n in annotations},
    }


async def _configure(settings: kopf.OperatorSettings, **_: Any) -> None:
    # Names of our own: another operator on the same resource may use kopf too (MOSK's rockoon
    # does), and would take our annotations for its own.
    settings.persistence.finalizer = f"{PREFIX}/finalizer"
    settings.persistence.progress_storage = kopf.AnnotationsProgressStorage(prefix=PREFIX)
    settings.persistence.diffbase_storage = _SpecStorage(prefix=PREFIX, key="last-handled")
    # One peering for the Kubernetes cluster, also if the operator serves one namespace.
    settings.peering.clusterwide = True
    settings.posting.reporting_component = "stackbus"
    settings.posting.event_name_prefix = "stackbus-"
    settings.networking.error_backoffs = (0.5, 1, 2, 3, 5)


def _login(**kwargs: Any) -> kopf.ConnectionInfo | None:
    return kopf.login_with_service_account(**kwargs) or kopf.login_with_kubeconfig(**kwargs)


def _post_event(body: kopf.Body, kind: str, reason: str, message: str) -> None:
    kopf.event(body, type=kind, reason=reason, message=message[:1000])
