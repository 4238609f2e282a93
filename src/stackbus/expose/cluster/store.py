"""The store of Secrets in Kubernetes, with the same Protocol as the store in a folder.

``reconcile.py`` makes a store for each run. A namespace is listed once, at its first use, and
writes update that list. A Secret is ours if it has our label, or if stackbus is among the managers
that applied its fields (somebody may have removed the label).
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
    """The part of Kubernetes' API that reconciling needs; see ``clients/kubernetes.py``."""

    def get(self, kind: str, namespace: str | None, name: str) -> Object | None:
        """Return an object; None if it does not exist."""

    def list(self, kind: str, namespace: str | None = None) -> list[Object]:
        """List the objects of a kind in a namespace, or in all."""

    def create(self, desired: Object) -> None:
        """Create an object; leave an existing one as it is."""

    def apply(self, desired: Object) -> Object:
        """Apply an object as the owner of its fields (server-side apply); return the result."""

    def apply_status(self, desired: Object) -> None:
        """Apply the status of an OpenStackDeployment."""

    def patch(self, current: Object, change: Object, *, only_if_unchanged: bool = False) -> None:
        """Merge ``change`` into an object; null removes a field."""

    def delete(self, kind: str, namespace: str, name: str) -> None:
        """Delete an object if it exists."""


def is_ours(current: Object) -> bool:
    """Return whether stackbus made an object."""
    metadata = current["metadata"]
    labels = metadata.get("labels") or {}
    appliers = {
        entry.get("manager")
        for entry in metadata.get("managedFields") or []
        if entry.get("operation") == "Apply"
    }
    return LABELS.items() <= labels.items() or MANAGER in appliers


class KubernetesStore:
    """The Secrets of a Kubernetes cluster, as they were when this store first listed them."""

    def __init__(self, objects: Objects) -> None:
        """Store Secrets through ``objects``."""
        self._objects = objects
        self._by_name: dict[str, dict[str, Object]] = {}

    def read(self, namespace: str, name: str) -> Secret | None:
        """Return a Secret; None if it does not exist, is not ours or cannot be decoded."""
        current = self._all(namespace).get(name)
        if current is None or not is_ours(current) or current.get("type") != "Opaque":
            return None
        try:
            values = {
                str(key): base64.b64decode(value, validate=True).decode()
                for key, value in (current.get("data") or {}).items()
            }
        except (binascii.Error, ValueError, TypeError):
            return None
        return Secret(namespace, name, values)

    def names(self, namespace: str) -> list[str]:
        """Return the names of our Secrets in a namespace."""
        return sorted(name for name, secret in self._all(namespace).items() if is_ours(secret))

    def foreign(self, namespace: str) -> frozenset[str]:
        """Return the names of the Secrets in a namespace that are not ours."""
        return frozenset(
            name for name, secret in self._all(namespace).items() if not is_ours(secret)
        )

    def label(self, namespace: str) -> None:
        """Restore our label on Secrets from which somebody removed it."""
        for name, secret in self._all(namespace).items():
            labels = secret["metadata"].get("labels") or {}
            if is_ours(secret) and not LABELS.items() <= labels.items():
                self._objects.patch(secret, {"metadata": {"labels": LABELS}})
                log.info("operator.labelled", secret=f"{namespace}/{name}")

    def write(self, secret: Secret) -> None:
        """Apply the Secret. Raises Conflict, and changes nothing, if it exists and is not ours."""
        present = self._all(secret.namespace).get(secret.name)
        if present is not None and not is_ours(present):
            raise Conflict(
                f"the Secret {secret.namespace}/{secret.name} exists and does not belong to "
                "stackbus; rename the topic, or delete that Secret"
            )
        if present is not None and present.get("type") != "Opaque":
            # A Secret's type cannot be changed.
            self._objects.delete("Secret", secret.namespace, secret.name)
        elif present is not None and (added := set(present.get("data") or {}) - set(secret.data)):
            # Server-side apply leaves the keys that others added.
            self._objects.patch(present, {"data": dict.fromkeys(sorted(added))})
        self._all(secret.namespace)[secret.name] = self._objects.apply(as_object(secret))

    def remove(self, namespace: str, name: str) -> None:
        """Delete the Secret if it is ours."""
        if name in self.names(namespace):
            self._objects.delete("Secret", namespace, name)
            del self._all(namespace)[name]

    def _all(self, namespace: str) -> dict[str, Object]:
        if namespace not in self._by_name:
            self._by_name[namespace] = {
                secret["metadata"]["name"]: secret
                for secret in self._objects.list("Secret", namespace)
            }
        return self._by_name[namespace]
