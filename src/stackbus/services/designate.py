"""Designate, DNS: zones, recordsets, transfers and the rest of its API.

- Publishes plain JSON objects under ``notifications`` on exchange ``designate``. Each change of a
  zone is published twice, as ``dns.zone.*`` and under the older name ``dns.domain.*``.
- Needs no option; ``notify_api_faults`` adds failed requests. The producer's periodic_exists task
  sends ``*.exists``.
- Payload: ``id`` and ``tenant_id`` (designate/notifications.py).
"""

from __future__ import annotations

from stackbus.services.service import (
    AUDIT_PERIOD,
    Option,
    Payload,
    Resource,
    Service,
    as_text,
    pick_values,
)


def read_project_id(event_type: str, payload: Payload) -> str:
    """Read ``tenant_id``."""
    del event_type
    return as_text(payload.get("tenant_id"))


def read_resource_id(event_type: str, payload: Payload) -> str:
    """Read ``id``; ``dns.api.fault`` is about a request and has none."""
    del event_type
    return as_text(payload.get("id"))


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


def read_resources(event_type: str, payload: Payload) -> list[Resource]:
    """Read the resource; an event ``dns.domain.*`` names its twin ``dns.zone.*``."""
    attributes = pick_values(payload, _ATTRIBUTES)
    if event_type == "dns.api.fault" and "state" in attributes:
        attributes["status"] = attributes.pop("state")  # the status code of HTTP
    if event_type.startswith("dns.domain."):
        attributes["twin"] = event_type.replace("dns.domain.", "dns.zone.", 1)
    return [
        Resource(
            id=read_resource_id(event_type, payload),
            name=as_text(payload.get("name")),
            project_id=read_project_id(event_type, payload),
            attributes=attributes,
        )
    ]


DESIGNATE = Service(
    name="designate",
    type="dns",
    exchange="designate",
    event_types=("dns",),
    read_project_id=read_project_id,
    read_resource_id=read_resource_id,
    read_resources=read_resources,
    resource_types={
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
    # With `key`, another project can take over the zone.
    secrets=(("dns.zone_transfer_request", "key"), ("dns.zone_transfer_accept", "key")),
)
