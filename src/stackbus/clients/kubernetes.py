"""Kubernetes' API through lightkube: the only code that speaks to it; its errors become ours here.

Called by ``expose/cluster/`` (as its Objects). Objects go in and come out as Kubernetes' own JSON;
what is written is applied on the server's side under a field manager of ours, so that the fields of
others stay theirs. A busy server (429, 5xx, a broken connection) is asked again for some
seconds. Source of the verbs: "Kubernetes API Concepts" and "Server-Side Apply" in its reference.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from datetime import timedelta
from typing import Any, TypeVar

import httpx2
import lightkube
import stamina
import structlog
import yaml
from lightkube import codecs
from lightkube.config.kubeconfig import KubeConfig
from lightkube.core.exceptions import ConfigError
from lightkube.generic_resource import create_global_resource, create_namespaced_resource
from lightkube.resources.core_v1 import ConfigMap, Namespace, Node, Secret, Service
from lightkube.types import OnErrorAction, OnErrorResult, PatchType

from stackbus.errors import InputError, KubernetesError, KubernetesUnreachable

Object = Mapping[str, Any]
"""A Kubernetes object, as its JSON."""

GROUP, VERSION, PLURAL = "lcm.mirantis.com", "v1alpha1", "openstackdeployments"
Deployment = create_namespaced_resource(GROUP, VERSION, "OpenStackDeployment", PLURAL)

Peering = create_global_resource("kopf.dev", "v1", "ClusterKopfPeering", "clusterkopfpeerings")

_KINDS: Mapping[str, Any] = {
    "OpenStackDeployment": Deployment,
    "ClusterKopfPeering": Peering,
    **{kind.__name__: kind for kind in (ConfigMap, Namespace, Node, Secret, Service)},
}
_TIMEOUT = httpx2.Timeout(10.0)  # seconds
_TRIES = 5
_PATIENCE = 15.0  # seconds for all tries of one request
_SOONEST, _LATEST = 1.0, 30.0  # seconds until a watch that broke begins anew
_WATCH = 240  # seconds after which the server ends a watch, and a new one begins
_MOST_ERROR = 300
_NOT_FOUND, _FORBIDDEN, _CONFLICT, _BUSY = 404, 403, 409, 429

T = TypeVar("T")

log = structlog.get_logger()


class Kubernetes:
    """One cluster's API, as the pod's service account or the kubeconfig says."""

    def __init__(self, manager: str) -> None:
        """Find the cluster: the service account of a pod, else KUBECONFIG, else ~/.kube/config.

        ``manager`` is the field manager of what is applied.

        Raises InputError if none of them is there.
        """
        try:
            self._config = KubeConfig.from_env().get()
            self._client = lightkube.Client(self._config, timeout=_TIMEOUT, field_manager=manager)
        except (ConfigError, OSError) as error:
            raise InputError(
                f"no Kubernetes cluster: {error}; run in a pod with a service account, or say "
                "where the cluster is with KUBECONFIG"
            ) from error
        except (yaml.YAMLError, LookupError, AttributeError, TypeError, ValueError) as error:
            # lightkube reads the file as it comes; a token may stand in it, so it is not quoted.
            raise InputError(
                f"the kubeconfig cannot be read ({type(error).__name__}): it is not as kubectl "
                "writes it; compare `kubectl config view`"
            ) from None

    def get(self, kind: str, namespace: str | None, name: str) -> Object | None:
        """Give an object, None if there is none."""
        try:
            return _json(
                self._try(
                    lambda: self._client.get(_KINDS[kind], name, namespace=namespace),
                    f"get {kind} {name}",
                )
            )
        except _Missing:
            return None

    def list(self, kind: str, namespace: str | None = None) -> list[Object]:
        """List the objects of a kind in ``namespace``; None: in all, or of no namespace."""
        where = namespace
        if where is None and kind not in ("Namespace", "Node"):
            where = lightkube.ALL_NS
        try:
            return self._try(
                lambda: [_json(one) for one in self._client.list(_KINDS[kind], namespace=where)],
                f"list {kind}s",
            )
        except _Missing:
            return []

    def create(self, wanted: Object) -> None:
        """Create an object; one that is there is left as it is."""
        try:
            self._try(lambda: self._client.create(_model(wanted)), f"create {_shown(wanted)}")
        except _Exists:
            return
        except _Missing as error:
            raise KubernetesError(f"create {_shown(wanted)}: {error}") from error

    def apply(self, wanted: Object) -> Object:
        """Make an object so, as the owner of these fields; give what came of it."""
        try:
            return _json(
                self._try(
                    lambda: self._client.apply(_model(wanted), force=True),
                    f"write {_shown(wanted)}",
                )
            )
        except (_Missing, _Exists) as error:
            raise KubernetesError(f"{_shown(wanted)} cannot be written: {error}") from error

    def apply_status(self, wanted: Object) -> None:
        """Make the status of an OpenStackDeployment so; one that is gone is no error."""
        name, namespace = wanted["metadata"]["name"], wanted["metadata"]["namespace"]
        try:
            self._try(
                lambda: self._client.apply(
                    Deployment.Status.from_dict(dict(wanted)), name, namespace=namespace, force=True
                ),
                f"write the status of {name}",
            )
        except _Missing:
            return

    def patch(self, found: Object, change: Object, *, only_if_unchanged: bool = False) -> None:
        """Merge ``change`` into an object, null removes; an object that is gone is no error.

        With ``only_if_unchanged`` nothing is done, and KubernetesUnreachable raised, if somebody
        has changed the object since it was read: try again with the new one.
        """
        kind, metadata = found["kind"], found["metadata"]
        if only_if_unchanged:
            version = {"resourceVersion": metadata["resourceVersion"]}
            change = {**change, "metadata": {**change.get("metadata", {}), **version}}
        try:
            self._try(
                lambda: self._client.patch(
                    _KINDS[kind],
                    metadata["name"],
                    dict(change),
                    namespace=metadata["namespace"],
                    patch_type=PatchType.MERGE,
                ),
                f"change {_shown(found)}",
                retry_conflicts=not only_if_unchanged,
            )
        except _Missing:
            return

    def delete(self, kind: str, namespace: str, name: str) -> None:
        """Delete an object; none is no error."""
        try:
            self._try(
                lambda: self._client.delete(_KINDS[kind], name, namespace=namespace),
                f"delete {kind} {namespace}/{name}",
            )
        except _Missing:
            return

    async def watch(
        self, kind: str, namespace: str, *, name: str | None = None
    ) -> AsyncIterator[tuple[str, Object]]:
        """Give what happens to the objects of a namespace, or to one: ADDED, MODIFIED, DELETED.

        It begins with what is there, goes on for ever, and begins anew after a break: what
        changed meanwhile is then told as ADDED, what went meanwhile is not told at all.
        """
        client = lightkube.AsyncClient(self._config, timeout=_TIMEOUT)
        fields: Any = {"metadata.name": name} if name else None
        pause = _SOONEST
        try:
            while True:
                try:
                    async for event, found in client.watch(
                        _KINDS[kind],
                        namespace=namespace,
                        fields=fields,
                        server_timeout=_WATCH,
                        on_error=_again,
                    ):
                        pause = _SOONEST
                        yield str(event), _json(found)
                except (httpx2.HTTPError, ValueError) as error:
                    # The cluster is away, sent half a line, or does not allow it.
                    place = f"{kind} {namespace}/{name or '*'}"
                    log.warning("kubernetes.watch-broke", watch=place, error=str(error))
                    await asyncio.sleep(pause)
                    pause = min(pause * 2, _LATEST)
        finally:
            await client.close()

    def _try(self, request: Callable[[], T], what: str, *, retry_conflicts: bool = True) -> T:
        """Send a request until it is answered; translate what cannot be."""

        def is_worth_another(error: Exception) -> bool | timedelta:
            if not isinstance(error, httpx2.HTTPError):
                return False
            if not isinstance(error, httpx2.HTTPStatusError):
                return isinstance(error, httpx2.TransportError)
            code = error.response.status_code
            if code == _CONFLICT:
                return retry_conflicts and _reason(error) != "AlreadyExists"
            if code == _BUSY:
                wait = error.response.headers.get("Retry-After", "")
                return timedelta(seconds=min(float(wait), 5.0)) if wait.isdecimal() else True
            return code >= httpx2.codes.INTERNAL_SERVER_ERROR

        try:
            for attempt in stamina.retry_context(
                on=is_worth_another, attempts=_TRIES, timeout=_PATIENCE, wait_max=3.0
            ):
                with attempt:
                    return request()
        except httpx2.HTTPStatusError as error:
            raise _translated(error, what) from error
        except (httpx2.HTTPError, ValueError) as error:
            raise KubernetesUnreachable(
                f"Kubernetes does not answer ({what}): {type(error).__name__}: {error}"
            ) from error
        raise AssertionError("stamina raises or returns")


class _Missing(Exception):
    """404: the object, or what it stands in."""


class _Exists(Exception):
    """409 to a creation."""


def _translated(error: httpx2.HTTPStatusError, what: str) -> Exception:
    code = error.response.status_code
    said = str(_status(error).get("message") or error.response.reason_phrase)[:_MOST_ERROR]
    if code == _NOT_FOUND:
        return _Missing(said)
    if code == _CONFLICT and _reason(error) == "AlreadyExists":
        return _Exists(said)
    if code in (_CONFLICT, _BUSY) or code >= httpx2.codes.INTERNAL_SERVER_ERROR:
        return KubernetesUnreachable(f"Kubernetes is busy: {code} to {what}: {said}")
    if code == _FORBIDDEN:
        return KubernetesError(
            f"the operator may not {what}: {said}; compare its roles with deploy/base/rbac.yaml"
        )
    return KubernetesError(f"Kubernetes refuses to {what}: {code}: {said}")


def _reason(error: httpx2.HTTPStatusError) -> str:
    return str(_status(error).get("reason", ""))


def _status(error: httpx2.HTTPStatusError) -> Mapping[str, Any]:
    """Read the Status that Kubernetes answers with; {} for another answer (a proxy's)."""
    try:
        value = error.response.json()
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


def _again(_: Exception, count: int) -> OnErrorResult:
    return OnErrorResult(OnErrorAction.RAISE if count > 1 else OnErrorAction.RETRY, 0.2)


def _model(wanted: Object) -> Any:
    return codecs.from_dict(dict(wanted))


def _json(found: Any) -> Object:
    value: Object = {
        "apiVersion": found._api_info.resource.api_version,  # noqa: SLF001 -- a list leaves both out
        "kind": found._api_info.resource.kind,  # noqa: SLF001 -- the same
        **found.to_dict(),
    }
    return value


def _shown(wanted: Object) -> str:
    metadata = wanted["metadata"]
    return f"{wanted['kind']} {metadata.get('namespace', '')}/{metadata['name']}".replace(" /", " ")
