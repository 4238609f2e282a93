"""Designate, DNS: unversioned dicts on exchange ``designate``; zone changes are told twice."""

from __future__ import annotations

from stackbus.services.service import (
    AUDIT_PERIOD,
    Option,
    Payload,
    Resource,
    Service,
    picked,
    text,
)


def project(event_type: str, payload: Payload) -> str | None:
    """Read the owner's project: ``tenant_id`` (designate/notifications.py)."""
    del event_type
    return text(payload.get("tenant_id"))


def resource(event_type: str, payload: Payload) -> str | None:
    """Read ``payload.id``; a fault of the API is about a request, not about a resource."""
    del event_type
    return text(payload.get("id"))


_ATTRIBUTES = {
    "status": "state",
    "type": "type",
    "ttl": "ttl",
    "zone_id": "zone_id",
    "zone_name": "zone_name",
    "pool_id": "pool_id",
    "url": "url",
    "exception": "reason",
    **AUDIT_PERIOD,
}


def read(event_type: str, payload: Payload) -> list[Resource]:
    """Read the resource. What tells of a zone as a domain names its twin, which tells the same."""
    attributes = picked(payload, _ATTRIBUTES)
    if event_type == "dns.api.fault" and "state" in attributes:
        attributes["status"] = attributes.pop("state")  # HTTP's
    if event_type.startswith("dns.domain."):
        attributes["twin"] = event_type.replace("dns.domain.", "dns.zone.", 1)
    return [
        Resource(
            resource(event_type, payload) or "",
            text(payload.get("name")) or "",
            project(event_type, payload) or "",
            attributes,
        )
    ]


DESIGNATE = Service(
    name="designate",
    type="dns",
    exchange="designate",
    event_types=("dns",),
    project=project,
    resource=resource,
    read=read,
    resources={
        "dns.zone": "zone",
        "dns.domain": "zone",
        "dns.recordset": "recordset",
        "dns.tld": "tld",
        "dns.blacklist": "blacklist",
        "dns.pool": "pool",
        "dns.tsigkey": "tsigkey",
        "dns.quota": "quota",
        "dns.zone_export": "zone_export",
        "dns.zone_import": "zone_import",
        "dns.zone_share": "zone_share",
        "dns.zone_transfer_request": "zone_transfer_request",
        "dns.zone_transfer_accept": "zone_transfer_accept",
        "dns.api": "request",
    },
    options=(
        Option("DEFAULT", "notify_api_faults", "true", "emit dns.api.fault when a request fails"),
    ),
    # The key that lets another project take the zone over stands under the plain name `key`.
    secrets=(("dns.zone_transfer_request", "key"), ("dns.zone_transfer_accept", "key")),
)
