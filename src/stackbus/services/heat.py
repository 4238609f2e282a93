"""Heat, orchestration: stacks and autoscaling.

- Publishes plain JSON objects under ``notifications`` on exchange ``heat``.
- Needs no option.
- Payload: ``stack_identity`` and ``tenant_id`` (heat/engine/notification/stack.py).
"""

from __future__ import annotations

from stackbus.services.service import Payload, Resource, Service, as_text, pick_values


def read_project_id(event_type: str, payload: Payload) -> str:
    """Read ``tenant_id``."""
    del event_type
    return as_text(payload.get("tenant_id"))


def read_resource_id(event_type: str, payload: Payload) -> str:
    """Read the stack's id, the last part of ``stack_identity`` (an ARN: heat/common/identifier)."""
    del event_type
    return as_text(payload.get("stack_identity")).rpartition("/")[2]


_ATTRIBUTES = {"state": "state", "state_reason": "reason"}


def read_resources(event_type: str, payload: Payload) -> list[Resource]:
    """Read the stack; an autoscaling event names the stack of its group."""
    return [
        Resource(
            id=read_resource_id(event_type, payload),
            name=as_text(payload.get("stack_name")),
            project_id=read_project_id(event_type, payload),
            attributes=pick_values(payload, _ATTRIBUTES),
        )
    ]


HEAT = Service(
    name="heat",
    type="orchestration",
    exchange="heat",
    event_types=("orchestration",),
    read_project_id=read_project_id,
    read_resource_id=read_resource_id,
    read_resources=read_resources,
    resource_types={"orchestration.stack": "stack", "orchestration.autoscaling": "stack"},
)
