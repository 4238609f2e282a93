"""Neutron, networking: unversioned dicts on exchange ``neutron``; only API calls notify."""

from __future__ import annotations

from stackbus.services.service import (
    AUDIT_PERIOD,
    Payload,
    Resource,
    Service,
    inside,
    picked,
    several,
    text,
)


def project(event_type: str, payload: Payload) -> str | None:
    """Read the owner's project, ``payload.<resource>.project_id`` (neutron/pecan_wsgi/hooks).

    A bulk create holds a list; its owner is told only if all its members have the same one.
    Most ``.start`` events are the raw request, or an id, and name no owner.
    """
    resource = event_type.partition(".")[0]
    one = payload.get(resource)
    if isinstance(one, dict):
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


_ATTRIBUTES = {
    "status": "state",
    "mac_address": "mac_address",
    "network_id": "network_id",
    "subnet_id": "subnet_id",
    "port_id": "port_id",
    "router_id": "router_id",
    "device_id": "device_id",
    "device_owner": "device_owner",
    "cidr": "cidr",
    "ip_version": "ip_version",
    "floating_ip_address": "floating_ip_address",
    "fixed_ip_address": "fixed_ip_address",
    "floating_network_id": "network_id",
    "security_group_id": "security_group_id",
    "direction": "direction",
    "protocol": "protocol",
    "port_range_min": "port_range_min",
    "port_range_max": "port_range_max",
    "remote_ip_prefix": "remote_ip_prefix",
    "remote_group_id": "remote_group_id",
    "external_port": "external_port",
    "internal_port": "internal_port",
    "max_kbps": "max_kbps",
    "min_kbps": "min_kbps",
    "object_id": "object_id",
    "object_type": "object_type",
    "target_tenant": "target_project_id",
    "provider:network_type": "network_type",
    "provider:segmentation_id": "segmentation_id",
    "router:external": "external",
    "shared": "shared",
    "host": "host",
    **AUDIT_PERIOD,
}


def read(event_type: str, payload: Payload) -> list[Resource]:
    """Read the resource, or all those of a bulk create (``payload.<plural>``, a list)."""
    kind = event_type.partition(".")[0]
    if not isinstance(payload.get(kind), dict):
        # "<kind>s" as a rule, but "policies": the one list of objects there is.
        many = next((list(several(value)) for value in payload.values()), [])
        if many:
            return [_one(text(member.get("id")) or "", member) for member in many]
    told = payload.get("router_interface") if kind == "router" else None
    told = told or payload.get(kind) or payload
    return [_one(resource(event_type, payload) or "", told)]


def _one(identifier: str, told: object) -> Resource:
    attributes = picked(told, _ATTRIBUTES)
    return Resource(
        identifier,
        text(inside(told, "name")) or "",
        _owner(told) or "",
        {name: value for name, value in attributes.items() if value != identifier},
    )


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
    read=read,
    resources={
        "network": "network",
        "subnet": "subnet",
        "subnetpool": "subnet_pool",
        "port": "port",
        "ports": "port",
        "router": "router",
        "floatingip": "floating_ip",
        "security_group": "security_group",
        "security_group_rule": "security_group_rule",
        "address_scope": "address_scope",
        "address_group": "address_group",
        "trunk": "trunk",
        "port_forwarding": "port_forwarding",
        "segment": "segment",
        "policy": "qos_policy",
        "bandwidth_limit_rule": "qos_bandwidth_limit_rule",
        "dscp_marking_rule": "qos_dscp_marking_rule",
        "minimum_bandwidth_rule": "qos_minimum_bandwidth_rule",
        "minimum_packet_rate_rule": "qos_minimum_packet_rate_rule",
        "packet_rate_limit_rule": "qos_packet_rate_limit_rule",
        "rbac_policy": "rbac_policy",
        "binding": "port_binding",
        "firewall_group": "firewall_group",
        "vpnservice": "vpn_service",
        "ipsec_site_connection": "vpn_ipsec_site_connection",
        "bgp_speaker": "bgp_speaker",
        "bgp_peer": "bgp_peer",
        "l3.meter": "metering_label",
    },
    actions={"interface_create": "add_interface", "interface_delete": "remove_interface"},
)
