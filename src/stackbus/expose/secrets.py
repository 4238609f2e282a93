"""Secrets, and the stores that keep them behind one Protocol.

``credentials.py`` builds and reads Secrets, and ``apply.py`` writes them. ``FolderStore`` keeps
each as a manifest that ``kubectl apply -f`` accepts; ``cluster/store.py`` keeps them in Kubernetes.
A consumer reads its topic's Secret, and ``stackbus tail`` and the recorder its manifest.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import yaml

from stackbus.errors import InputError, StackbusError
from stackbus.files import write_private

NAMESPACE = "openstack-external"
"""Namespace of the consumers' Secrets, as in MOSK."""

OWN_NAMESPACE = "stackbus"
"""Namespace of the Secrets that only the administrator may read: the CA's key, our own users."""

_MAX_STEM = 250
_Loader: type[yaml.SafeLoader | yaml.CSafeLoader] = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

LABELS = {"app.kubernetes.io/managed-by": "stackbus"}


@dataclass(frozen=True, slots=True)
class Secret:
    """A Secret: its texts by key. Its ``repr`` shows no value."""

    namespace: str
    name: str
    data: Mapping[str, str]

    def __repr__(self) -> str:
        """Return the keys alone: a value in a log or a traceback would be a leak."""
        return f"Secret({self.namespace}/{self.name}: {', '.join(sorted(self.data))})"


class SecretStore(Protocol):
    """A store of Secrets, as ``apply.py`` needs it."""

    def read(self, namespace: str, name: str) -> Secret | None:
        """Return a Secret; None if it does not exist or is not a Secret of this form."""

    def names(self, namespace: str) -> list[str]:
        """Return the names of stackbus' Secrets in a namespace, sorted."""

    def write(self, secret: Secret) -> None:
        """Create or replace the Secret, wholly or not at all."""

    def remove(self, namespace: str, name: str) -> None:
        """Remove the Secret. One that does not exist is no error."""


class FolderStore:
    """Manifests in ``<root>/<namespace>/<name>.yaml``, mode 0600 in folders of mode 0700."""

    def __init__(self, root: Path) -> None:
        """Keep the manifests below ``root``, which the first write creates."""
        self._root = root

    def path(self, namespace: str, name: str) -> Path:
        """Return the path of a Secret's manifest.

        The longest legal names do not fit a file's name (255 bytes, Linux) with its ending; they
        are cut, and made unique by their SHA-256.
        """
        if len(name) > _MAX_STEM:
            suffix = f"-{hashlib.sha256(name.encode()).hexdigest()[:16]}"
            name = name[: _MAX_STEM - len(suffix)] + suffix
        return self._root / namespace / f"{name}.yaml"

    def read(self, namespace: str, name: str) -> Secret | None:
        """Return a Secret; None if it does not exist or is not a Secret of this form."""
        path = self.path(namespace, name)
        try:
            return _parse(namespace, name, path.read_text("utf-8"))
        except FileNotFoundError:
            return None
        except (UnicodeDecodeError, ValueError, yaml.YAMLError):
            return None  # edited by hand: the next apply writes it again
        except OSError as error:
            raise StackbusError(f"{path}: cannot be read: {error.strerror}") from error

    def names(self, namespace: str) -> list[str]:
        """Return the names of the manifests in a namespace's folder, which may hold other files."""
        return sorted(
            _read_name(path) if len(path.stem) == _MAX_STEM else path.stem
            for path in (self._root / namespace).glob("openstack-*.yaml")
        )

    def write(self, secret: Secret) -> None:
        """Write the manifest to a temporary file and rename it: never half a Secret."""
        write_private(self.path(secret.namespace, secret.name), manifest(secret))

    def remove(self, namespace: str, name: str) -> None:
        """Remove the manifest. One that does not exist is no error."""
        path = self.path(namespace, name)
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            raise StackbusError(f"{path}: cannot be removed: {error.strerror}") from error


def manifest(secret: Secret) -> str:
    """Return a Secret as the YAML manifest that Kubernetes accepts."""
    return yaml.safe_dump(as_object(secret), sort_keys=False, width=1_000_000)


def as_object(secret: Secret) -> dict[str, Any]:
    """Return a Secret as Kubernetes' JSON object."""
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": secret.name, "namespace": secret.namespace, "labels": dict(LABELS)},
        "type": "Opaque",
        "data": {
            key: base64.b64encode(value.encode()).decode() for key, value in secret.data.items()
        },
    }


def parse_manifest(text: str, origin: str) -> Secret:
    """Read a Secret from its manifest; ``origin`` names the file in errors.

    Raises InputError for any other text.
    """
    try:
        document = yaml.load(text, _Loader)  # noqa: S506 -- a SafeLoader
        metadata = document["metadata"]
        return _parse(str(metadata.get("namespace", NAMESPACE)), str(metadata["name"]), text)
    except (ValueError, KeyError, TypeError, AttributeError, yaml.YAMLError):
        raise InputError(
            f"{origin}: not the manifest of a Secret with base64 data: get it with "
            "`stackbus secret TOPIC -o yaml` or `kubectl get secret NAME -o yaml`"
        ) from None


def _read_name(path: Path) -> str:
    try:
        return str(yaml.load(path.read_text("utf-8"), _Loader)["metadata"]["name"])  # noqa: S506
    except (OSError, KeyError, TypeError, ValueError, yaml.YAMLError) as error:
        raise StackbusError(f"{path}: cannot be read: remove it, and apply again") from error


def _parse(namespace: str, name: str, text: str) -> Secret:
    document = yaml.load(text, _Loader)  # noqa: S506 -- a SafeLoader
    data = document.get("data") if isinstance(document, dict) else None
    if not isinstance(data, dict) or document.get("kind") != "Secret":
        raise ValueError("not a Secret")
    try:
        values = {
            str(key): base64.b64decode(value, validate=True).decode() for key, value in data.items()
        }
    except (binascii.Error, TypeError) as error:
        raise ValueError("not base64") from error
    return Secret(namespace, name, values)
