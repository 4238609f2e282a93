"""Heat, orchestration: unversioned dicts on exchange ``heat``."""

from __future__ import annotations

from stackbus.services.service import Payload, Service, text


def project(event_type: str, payload: Payload) -> str | None:
    """Read the owner's project: ``tenant_id`` (heat/engine/notification/stack.py)."""
    del event_type
    return text(payload.get("tenant_id"))


def resource(event_type: str, payload: Payload) -> str | None:
    """Read the stack's id, the last part of ``stack_identity`` (an ARN: heat/common/identifier)."""
    del event_type
    identity = text(payload.get("stack_identity"))
    return identity.rpartition("/")[2] if identity else None


HEAT = Service(
    name="heat",
    type="orchestration",
    exchange="heat",
    event_types=("orchestration",),
    project=project,
    resource=resource,
)
