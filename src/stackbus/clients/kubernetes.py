"""Kubernetes' API through lightkube, with its errors translated into ours.

``expose/cluster/`` uses it as its ``Objects``, ``operator/watches.py`` as its ``WatchApi``. Objects
are Kubernetes' own JSON. Writes are server-side apply under a field manager of ours, which leaves
the fields of others alone. A request to a busy server (429, 5xx, a broken connection) is repeated
for some seconds. Source of the verbs: "Kubernetes API Concepts" and "Server-Side Apply" in
Kubernetes' reference.
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
_ATTEMPTS = 5
_MAX_SECONDS = 15.0  # for all attempts of one request
_MIN_PAUSE, _MAX_PAUSE = 1.0, 30.0  # seconds before a broken watch is started again
_WATCH_SECONDS = 240  # the server ends a watch after this time; the next one follows
_MAX_ERROR = 300
_NOT_FOUND, _FORBIDDEN, _CONFLICT, _BUSY = 404, 403, 409, 429

T = TypeVar("T")

log = structlog.get_logger()


class Kubernetes:
    """The API of the Kubernetes cluster of the pod's service account or the kubeconfig."""

    def __init__(self, manager: str) -> None:
        """Read the service account of a pod, else KUBECONFIG, else ~/.kube/config.

        ``manager`` is the field manager of applied objects.

        Raises InputError if none of the three exists or it cannot be read.
        """
        try:
            self._config = KubeConfig.from_env().get()
            self._client = lightkube.Client(self._config, timeout=_TIMEOUT, field_manager=manager)
        except (ConfigError, OSError) as error:
            raise InputError(
                f"no Kubernetes cluster: {error}; run in a pod with a service account, or set "
                "KUBECONFIG"
            ) from error
        except (yaml.YAMLError, LookupError, AttributeError, TypeError, ValueError) as error:
            # lightkube does not check the file. It may contain a token, so it is not quoted.
            raise InputError(
                f"the kubeconfig is not in kubectl's format ({type(error).__name__}): check it "
                "with `kubectl config view`"
            ) from None

    def get(self, kind: str, namespace: str | None, name: str) -> Object | None:
        """Return an object; None if it does not exist."""
        try:
            return _to_json(
                self._send(
                    lambda: self._client.get(_KINDS[kind], name, namespace=namespace),
                    f"get {kind} {name}",
                )
            )
        except _Missing:
            return None

    def list(self, kind: str, namespace: str | None = None) -> list[Object]:
        """Return the objects of a kind in ``namespace``; None: in all, or without a namespace."""
        if namespace is None and kind not in ("Namespace", "Node"):
            namespace = lightkube.ALL_NS
        try:
            return self._send(
                lambda: [
                    _to_json(model)
                    for model in self._client.list(_KINDS[kind], namespace=namespace)
                ],
                f"list {kind}s",
            )
        except _Missing:
            return []

    def create(self, desired: Object) -> None:
        """Create an object; leave an existing one as it is."""
        try:
            self._send(lambda: self._client.create(_model(desired)), f"create {_describe(desired)}")
        except _Exists:
            return
        except _Missing as error:
            raise KubernetesError(f"create {_describe(desired)}: {error}") from error

    def apply(self, desired: Object) -> Object:
        """Apply an object as the owner of its fields (server-side apply); return the result."""
        try:
            return _to_json(
                self._send(
                    lambda: self._client.apply(_model(desired), force=True),
                    f"write {_describe(desired)}",
                )
            )
        except (_Missing, _Exists) as error:
            raise KubernetesError(f"{_describe(desired)} cannot be written: {error}") from error

    def apply_status(self, desired: Object) -> None:
        """Apply the status of an OpenStackDeployment, if it still exists."""
        name, namespace = desired["metadata"]["name"], desired["metadata"]["namespace"]
        try:
            self._send(
                lambda: self._client.apply(
                    Deployment.Status.from_dict(dict(desired)),
                    name,
                    namespace=namespace,
                    force=True,
                ),
                f"write the status of {name}",
            )
        except _Missing:
            return

    def patch(self, current: Object, change: Object, *, only_if_unchanged: bool = False) -> None:
        """Merge ``change`` into an object, if it still exists; null removes a field.

        With ``only_if_unchanged``, raises KubernetesUnreachable and changes nothing if somebody
        has changed the object since it was read: read it and try again.
        """
        kind, metadata = current["kind"], current["metadata"]
        if only_if_unchanged:
            version = {"resourceVersion": metadata["resourceVersion"]}
            change = {**change, "metadata": {**change.get("metadata", {}), **version}}
        try:
            self._send(
                lambda: self._client.patch(
                    _KINDS[kind],
                    metadata["name"],
                    dict(change),
                    namespace=metadata["namespace"],
                    patch_type=PatchType.MERGE,
                ),
                f"change {_describe(current)}",
                retry_conflicts=not only_if_unchanged,
            )
        except _Missing:
            return

    def delete(self, kind: str, namespace: str, name: str) -> None:
        """Delete an object if it exists."""
        try:
            self._send(
                lambda: self._client.delete(_KINDS[kind], name, namespace=namespace),
                f"delete {kind} {namespace}/{name}",
            )
        except _Missing:
            return

    async def watch(
        self, kind: str, namespace: str, *, name: str | None = None
    ) -> AsyncIterator[tuple[str, Object]]:
        """Yield the events (ADDED, MODIFIED, DELETED) of a namespace's objects, or of one object.

        It begins with the present objects and does not end. After a broken connection it begins
        again with the present objects, as ADDED; objects deleted meanwhile yield no event.
        """
        client = lightkube.AsyncClient(self._config, timeout=_TIMEOUT)
        fields: Any = {"metadata.name": name} if name else None
        pause = _MIN_PAUSE
        try:
            while True:
                try:
                    async for event, model in client.watch(
                        _KINDS[kind],
                        namespace=namespace,
                        fields=fields,
                        server_timeout=_WATCH_SECONDS,
                        on_error=_retry_once,
                    ):
                        pause = _MIN_PAUSE
                        yield str(event), _to_json(model)
                except (httpx2.HTTPError, ValueError) as error:
                    # The server is unreachable, sent half a line, or refuses the watch.
                    target = f"{kind} {namespace}/{name or '*'}"
                    log.warning("kubernetes.watch_broken", watch=target, error=str(error))
                    await asyncio.sleep(pause)
                    pause = min(pause * 2, _MAX_PAUSE)
        finally:
            await client.close()

    def _send(self, request: Callable[[], T], action: str, *, retry_conflicts: bool = True) -> T:
        """Send a request, and again while the server is busy. Raises our errors."""

        def may_succeed_later(error: Exception) -> bool | timedelta:
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
                on=may_succeed_later, attempts=_ATTEMPTS, timeout=_MAX_SECONDS, wait_max=3.0
            ):
                with attempt:
                    return request()
        except httpx2.HTTPStatusError as error:
            raise _translate(error, action) from error
        except (httpx2.HTTPError, ValueError) as error:
            raise KubernetesUnreachable(
                f"Kubernetes does not answer ({action}): {type(error).__name__}: {error}"
            ) from error
        raise AssertionError("stamina raises or returns")


class _Missing(Exception):
    """404: the object or its namespace does not exist."""


class _Exists(Exception):
    """409: the object to create exists."""


def _translate(error: httpx2.HTTPStatusError, action: str) -> Exception:
    code = error.response.status_code
    message = str(_status(error).get("message") or error.response.reason_phrase)[:_MAX_ERROR]
    if code == _NOT_FOUND:
        return _Missing(message)
    if code == _CONFLICT and _reason(error) == "AlreadyExists":
        return _Exists(message)
    if code in (_CONFLICT, _BUSY) or code >= httpx2.codes.INTERNAL_SERVER_ERROR:
        return KubernetesUnreachable(f"Kubernetes is busy: {code} to {action}: {message}")
    if code == _FORBIDDEN:
        return KubernetesError(
            f"the operator may not {action}: {message}; compare its roles with "
            "deploy/base/rbac.yaml"
        )
    return KubernetesError(f"Kubernetes refuses to {action}: {code}: {message}")


def _reason(error: httpx2.HTTPStatusError) -> str:
    return str(_status(error).get("reason", ""))


def _status(error: httpx2.HTTPStatusError) -> Mapping[str, Any]:
    """Return the Status in Kubernetes' answer; {} if the answer is a proxy's."""
    try:
        value = error.response.json()
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


def _retry_once(_: Exception, count: int) -> OnErrorResult:
    return OnErrorResult(OnErrorAction.RAISE if count > 1 else OnErrorAction.RETRY, 0.2)


def _model(desired: Object) -> Any:
    return codecs.from_dict(dict(desired))


def _to_json(model: Any) -> Object:
    value: Object = {
        "apiVersion": model._api_info.resource.api_version,  # noqa: SLF001 -- a list leaves both out
        "kind": model._api_info.resource.kind,  # noqa: SLF001 -- the same
        **model.to_dict(),
    }
    return value


def _describe(desired: Object) -> str:
    metadata = desired["metadata"]
    return f"{desired['kind']} {metadata.get('namespace', '')}/{metadata['name']}".replace(
        " /", " "
    )
