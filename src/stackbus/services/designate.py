"""Designate, DNS: unversioned dicts on exchange ``designate``; zone changes are told twice."""

from __future__ import annotations

from stackbus.services.service import Option, Payload, Service, text


def project(event_type: str, payload: Payload) -> str | None:
    """Read the owner's project: ``tenant_id`` (designate/notifications.py)."""
    del event_type
    return text(payload.get("tenant_id"))


def resource(event_type: str, payload: Payload) -> str | None:
    """Read ``payload.id``; a fault of the API is about a request, not about a resource."""
    del event_type
    return text(payload.get("id"))


DESIGNATE = Service(
    name="designate",
    type="dns",
    exchange="designate",
    event_types=("dns",),
    project=project,
    resource=resource,
    options=(
        Option("DEFAULT", "notify_api_faults", "true", "emit dns.api.fault when a request fails"),
    ),
    # The key that lets another project take the zone over stands under the plain name `key`.
    secrets=(("dns.zone_transfer_request", "key"), ("dns.zone_transfer_accept", "key")),
)
