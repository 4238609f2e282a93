"""Heat, orchestration: unversioned dicts on exchange ``heat``."""

from __future__ import annotations

from stackbus.services.service import Payload, Service, text


def project(event_type: str, payload: Payload) -> str | None:
    """Read the owner's project: ``tenant_id`` (heat/engine/notification/stack.py)."""
    del event_type
    return text(payload.get("tenant_id"))


HEAT = Service(
    name="heat",
    type="orchestration",
    exchange="heat",
    event_types=("orchestration",),
    project=project,
)
