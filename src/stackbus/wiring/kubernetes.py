"""The operator's Kubernetes client, and its reconciler."""

from __future__ import annotations

from datetime import UTC, datetime

from stackbus.clients.kubernetes import Kubernetes
from stackbus.clients.management import Management
from stackbus.errors import InputError
from stackbus.expose.cluster.endpoint import Access
from stackbus.expose.cluster.reconcile import Reconciler
from stackbus.expose.cluster.store import MANAGER, Objects
from stackbus.settings import Settings


def kubernetes() -> Kubernetes:
    """Connect to Kubernetes, as the pod's service account or by the kubeconfig."""
    return Kubernetes(MANAGER)


def reconciler(settings: Settings, objects: Objects, namespaces: tuple[str, ...]) -> Reconciler:
    """Return the reconciler of ``namespaces``; empty: of all.

    Raises InputError if the settings name no broker.
    """
    if settings.broker_secret is None:
        raise InputError(
            "the broker's Secret is not set: give --broker-secret NAMESPACE/NAME, or set "
            "STACKBUS_BROKER_SECRET"
        )

    def connect(access: Access) -> Management:
        return Management(
            access.management_url, access.username, access.password, ca=access.ca or None
        )

    return Reconciler(
        kubernetes=objects,
        connect=connect,
        settings=settings,
        clock=lambda: datetime.now(UTC),
        namespaces=namespaces,
    )
