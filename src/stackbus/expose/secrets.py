"""Where credentials are kept: Secrets, as Kubernetes has them, behind a small Protocol.

``FolderStore`` keeps each as a manifest in a file, which ``kubectl apply -f`` would take; the
Kubernetes store of the operator stands behind the same Protocol. Called by ``apply.py`` and by
the doors that show a Secret.
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
"""Namespace of the consumers' Secrets (DESIGN's contract, and MOSK's)."""

OWN_NAMESPACE = "stackbus"
"""Namespace of what only the administrator may read: the CA's key, the bus' own users."""

_LONGEST_STEM = 250
_Loader: type[yaml.SafeLoader | yaml.CSafeLoader] = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

LABELS = {"app.kubernetes.io/managed-by": "stackbus"}


@dataclass(frozen=True, slots=True)
class Secret:
    """A Secret: texts by key. Its ``repr`` shows no value."""

    namespace: str
    name: str
    data: Mapping[str, str]

    def __repr__(self) -> str:
        """Show the keys alone: a value in a log or a traceback would be a leak."""
        return f"Secret({self.namespace}/{self.name}: {', '.join(sorted(self.data))})"


class SecretStore(Protocol):
    """What ``apply.py`` needs of a place that keeps Secrets."""

    def read(self, namespace: str, name: str) -> Secret | None:
        """Give a Secret, or None if there is none or it cannot be understood."""

    def names(self, namespace: str) -> list[str]:
        """List the Secrets of a namespace that stackbus keeps there, in order."""

    def write(self, secret: Secret) -> None:
        """Make the Secret so, wholly or not at all."""

    def remove(self, namespace: str, name: str) -> None:
        """Remove the Secret; none is no error."""


class FolderStore:
    """Manifests in ``<root>/<namespace>/<name>.yaml``, mode 0600 in folders of mode 0700."""

    def __init__(self, root: Path) -> None:
        """Keep the manifests below ``root``, which is made at the first write."""
        self._root = root

    def path(self, namespace: str, name: str) -> Path:
        """Tell where a Secret's manifest is: ``<name>.yaml``.

        The longest legal names leave no room for the ending in a file's name (255 bytes, Linux);
        they end in their digest.
        """
        if len(name) > _LONGEST_STEM:
            digest = hashlib.sha256(name.encode()).hexdigest()[:16]
            name = f"{name[: _LONGEST_STEM - 17]}-{digest}"
        return self._root / namespace / f"{name}.yaml"

    def read(self, namespace: str, name: str) -> Secret | None:
        """Give a Secret, or None if there is none or it cannot be understood."""
        path = self.path(namespace, name)
        try:
            return _parsed(namespace, name, path.read_text("utf-8"))
        except FileNotFoundError:
            return None
        except (UnicodeDecodeError, ValueError, yaml.YAMLError):
            return None  # somebody edited it: the same as gone, and made anew
        except OSError as error:
            raise StackbusError(f"{path}: cannot be read: {error.strerror}") from error

    def names(self, namespace: str) -> list[str]:
        """List the manifests of a namespace; what else lies in its folder is none of ours."""
        return sorted(
            _name_in(path) if len(path.stem) == _LONGEST_STEM else path.stem
            for path in (self._root / namespace).glob("openstack-*.yaml")
        )

    def write(self, secret: Secret) -> None:
        """Write to a temporary file beside it and rename: never half a Secret."""
        path = self.path(secret.namespace, secret.name)
        write_private(path, manifest(secret))

    def remove(self, namespace: str, name: str) -> None:
        """Remove the manifest; none is no error."""
        path = self.path(namespace, name)
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            raise StackbusError(f"{path}: cannot be removed: {error.strerror}") from error


def manifest(secret: Secret) -> str:
    """Print a Secret as the manifest that Kubernetes takes."""
    return yaml.safe_dump(as_object(secret), sort_keys=False, width=1_000_000)


def as_object(secret: Secret) -> dict[str, Any]:
    """Give a Secret as Kubernetes' JSON object."""
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
    """Read a Secret from its manifest, as ``tail --secret`` and the recorder are given it.

    Raises InputError.
    """
    try:
        document = yaml.load(text, _Loader)  # noqa: S506 -- a SafeLoader
        metadata = document["metadata"]
        return _parsed(str(metadata.get("namespace", NAMESPACE)), str(metadata["name"]), text)
    except (ValueError, KeyError, TypeError, AttributeError, yaml.YAMLError):
        raise InputError(f"{origin}: no manifest of a Secret with base64 data") from None


def _name_in(path: Path) -> str:
    try:
        return str(yaml.load(path.read_text("utf-8"), _Loader)["metadata"]["name"])  # noqa: S506
    except (OSError, KeyError, TypeError, ValueError, yaml.YAMLError) as error:
        raise StackbusError(f"{path}: cannot be read; remove it, and apply again") from error


def _parsed(namespace: str, name: str, text: str) -> Secret:
    document = yaml.load(text, _Loader)  # noqa: S506 -- a SafeLoader
    data = document.get("data") if isinstance(document, dict) else None
    if not isinstance(data, dict) or document.get("kind") != "Secret":
        raise ValueError("no Secret")
    try:
        values = {
            str(key): base64.b64decode(value, validate=True).decode() for key, value in data.items()
        }
    except (binascii.Error, TypeError) as error:
        raise ValueError("no base64") from error
    return Secret(namespace, name, values)
