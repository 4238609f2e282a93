"""Neutron, networking: unversioned dicts on exchange ``neutron``; only API calls notify."""

from __future__ import annotations

from collections.abc import Mapping

from stackbus.services.service import Payload, Service, inside, text


def project(event_type: str, payload: Payload) -> str | None:
    """Read the owner's project, ``payload.<resource>.project_id`` (neutron/pecan_wsgi/hooks).

    A bulk create holds a list; its owner is told only if all its members have the same one.
    Most ``.start`` events are the raw request, or an id, and name no owner.
    """
    resource = event_type.partition(".")[0]
    one = payload.get(resource)
    if isinstance(one, Mapping):
        return _owner(one)
    many = next((value for value in payload.values() if isinstance(value, list)), [])
    owners = {_owner(member) for member in many}
    return owners.pop() if len(owners) == 1 else None


def _owner(resource: object) -> str | None:
    return text(inside(resource, "project_id")) or text(inside(resource, "tenant_id"))


def resource(event_type: str, payload: Payload) -> str | None:
    """Read the id: ``<resource>.id``, of a removal ``<resource>_id``.

    A bulk create holds a list and is about many. Most ``.create.start`` events come before the
    id. A router's interface is told under the router's id.
    """
    kind = event_type.partition(".")[0]
    found = text(inside(payload.get(kind), "id")) or text(payload.get(f"{kind}_id"))
    return found or text(inside(payload, "router_interface", "id")) or text(payload.get("id"))


NEUTRON = Service(
    name="neutron",
    type="networking",
    aliases=("network",),
    exchange="neutron",
    event_types=(
        "network",
        "subnet",
        "subnetpool",
        "port",
        "ports",
        "router",
        "floatingip",
        "security_group",
        "security_group_rule",
        "address_scope",
        "address_group",
        "trunk",
        "port_forwarding",
        "policy",
        "bandwidth_limit_rule",
        "dscp_marking_rule",
        "minimum_bandwidth_rule",
        "rbac_policy",
        "binding",
        "firewall_group",
        "vpnservice",
        "ipsec_site_connection",
        "bgp_speaker",
        "bgp_peer",
        "l3.meter",
    ),
    project=project,
    resource=resource,
)
