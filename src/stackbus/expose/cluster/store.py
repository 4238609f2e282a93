"""Secrets in Kubernetes, behind the same Protocol as the folder's.

Called by ``reconcile.py``, which makes one for each run: a namespace is listed once, at its first
use, and what is written meanwhile is remembered. A Secret is ours if it bears our label, or if we
are among those who applied its fields (somebody may have taken the label away).
"""

from __future__ import annotations

import base64
import binascii
from typing import Protocol

import structlog

from stackbus.errors import Conflict
from stackbus.expose.cluster import Object
from stackbus.expose.secrets import LABELS, Secret, as_object

MANAGER = "stackbus"
"""The field manager of everything that stackbus applies."""

log = structlog.get_logger()


class Objects(Protocol):
    """What is needed of Kubernetes; ``clients/kubernetes.py`` is the real one."""

    def get(self, kind: str, namespace: str | None, name: str) -> Object | None:
        """Give an object, None if there is none."""

    def list(self, kind: str, namespace: str | None = None) -> list[Object]:
        """List the objects of a kind in a namespace, or in all."""

    def create(self, wanted: Object) -> None:
        """Create an object; one that is there is left as it is."""

    def apply(self, wanted: Object) -> Object:
        """Make an object so, as the owner of these fields; give what came of it."""

    def apply_status(self, wanted: Object) -> None:
        """Make the status of an OpenStackDeployment so."""

    def patch(self, found: Object, change: Object, *, only_if_unchanged: bool = False) -> None:
        """Merge ``change`` into an object; null removes."""

    def delete(self, kind: str, namespace: str, name: str) -> None:
        """Delete an object; none is no error."""


def is_ours(found: Object) -> bool:
    """Tell whether stackbus made an object."""
    metadata = found["metadata"]
    labels = metadata.get("labels") or {}
    appliers = {
        entry.get("manager")
        for entry in metadata.get("managedFields") or []
        if entry.get("operation") == "Apply"
    }
    return LABELS.items() <= labels.items() or MANAGER in appliers


class KubernetesStore:
    """The Secrets of a cluster, as they were when this store first looked."""

    def __init__(self, objects: Objects) -> None:
        """Keep the Secrets in the cluster behind ``objects``."""
        self._objects = objects
        self._known: dict[str, dict[str, Object]] = {}

    def read(self, namespace: str, name: str) -> Secret | None:
        """Give a Secret, None if there is none, if it is not ours or cannot be understood."""
        found = self._all(namespace).get(name)
        if found is None or not is_ours(found) or found.get("type") != "Opaque":
            return None
        try:
            values = {
                str(key): base64.b64decode(value, validate=True).decode()
                for key, value in (found.get("data") or {}).items()
            }
        except (binascii.Error, ValueError, TypeError):
            return None
        return Secret(namespace, name, values)

    def names(self, namespace: str) -> list[str]:
        """List the Secrets of a namespace that are ours."""
        return sorted(name for name, found in self._all(namespace).items() if is_ours(found))

    def foreign(self, namespace: str) -> frozenset[str]:
        """Give the names of the Secrets of a namespace that are somebody else's."""
        return frozenset(name for name, found in self._all(namespace).items() if not is_ours(found))

    def label(self, namespace: str) -> None:
        """Put our label back where somebody took it."""
        for name, found in self._all(namespace).items():
            labels = found["metadata"].get("labels") or {}
            if is_ours(found) and not LABELS.items() <= labels.items():
                self._objects.patch(found, {"metadata": {"labels": LABELS}})
                log.info("operator.labelled", secret=f"{namespace}/{name}")

    def write(self, secret: Secret) -> None:
        """Apply the Secret. Raises Conflict, and touches nothing, if it is somebody else's."""
        present = self._all(secret.namespace).get(secret.name)
        if present is not None and not is_ours(present):
            raise Conflict(
                f"the Secret {secret.namespace}/{secret.name} is not stackbus': it is left as it "
                "is; name the topic otherwise, or remove that Secret"
            )
        if present is not None and present.get("type") != "Opaque":
            # A Secret's type cannot be changed.
            self._objects.delete("Secret", secret.namespace, secret.name)
        elif present is not None and (added := set(present.get("data") or {}) - set(secret.data)):
            # Server-side apply leaves the keys that others added.
            self._objects.patch(present, {"data": dict.fromkeys(sorted(added))})
        self._all(secret.namespace)[secret.name] = self._objects.apply(as_object(secret))

    def remove(self, namespace: str, name: str) -> None:
        """Remove the Secret if it is ours."""
        if name in self.names(namespace):
            self._objects.delete("Secret", namespace, name)
            del self._all(namespace)[name]

    def _all(self, namespace: str) -> dict[str, Object]:
        if namespace not in self._known:
            self._known[namespace] = {
                found["metadata"]["name"]: found
                for found in self._objects.list("Secret", namespace)
            }
        return self._known[namespace]
