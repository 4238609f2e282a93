"""Heat, orchestration: unversioned dicts on exchange ``heat``."""

from __future__ import annotations

from stackbus.services.service import Payload, Resource, Service, picked, text


def project(event_type: str, payload: Payload) -> str | None:
    """Read the owner's project: ``tenant_id`` (heat/engine/notification/stack.py)."""
    del event_type
    return text(payload.get("tenant_id"))


def resource(event_type: str, payload: Payload) -> str | None:
    """Read the stack's id, the last part of ``stack_identity`` (an ARN: heat/common/identifier)."""
    del event_type
    identity = text(payload.get("stack_identity"))
    return identity.rpartition("/")[2] if identity else None


_ATTRIBUTES = {"state": "state", "state_reason": "reason"}


def read(event_type: str, payload: Payload) -> list[Resource]:
    """Read the stack; of autoscaling, the stack that the group is in."""
    return [
        Resource(
            resource(event_type, payload) or "",
            text(payload.get("stack_name")) or "",
            project(event_type, payload) or "",
            picked(payload, _ATTRIBUTES),
        )
    ]


HEAT = Service(
    name="heat",
    type="orchestration",
    exchange="heat",
    event_types=("orchestration",),
    project=project,
    resource=resource,
    read=read,
    resources={"orchestration.stack": "stack", "orchestration.autoscaling": "stack"},
)
