"""Neutron, networking: every resource of its API, extensions included.

- Publishes plain JSON objects under ``notifications`` on exchange ``neutron``. Only API calls
  notify: ports that Neutron creates by itself appear in no notification.
- Needs no option. ``neutron-usage-audit`` in cron sends the periodic ``*.exists``.
- Payload: an object under the resource's name; for a bulk create a list under its plural; for a
  deletion ``<resource>_id`` (neutron/pecan_wsgi/hooks/notifier.py).
"""

from __future__ import annotations

from stackbus.services.service import (
    AUDIT_PERIOD,
    Payload,
    Resource,
    Service,
    as_text,
    get_nested,
    iterate_objects,
    pick_values,
)


def read_project_id(event_type: str, payload: Payload) -> str:
    """Read ``<resource>.project_id``; for a bulk create the one that all its members share.

    Most ``.start`` events hold the raw request, or an id, and name no owner.
    """
    resource = payload.get(event_type.partition(".")[0])
    if isinstance(resource, dict):
        return _read_owner(resource)
    members = next((value for value in payload.values() if isinstance(value, list)), [])
    owners = {_read_owner(member) for member in members}
    return owners.pop() if len(owners) == 1 else ""


def _read_owner(resource: object) -> str:
    return as_text(get_nested(resource, "project_id")) or as_text(get_nested(resource, "tenant_id"))


def read_resource_id(event_type: str, payload: Payload) -> str:
    """Read ``<resource>.id``; a deletion has ``<resource>_id``, a router interface its router.

    A bulk create has many ids, and most ``.create.start`` events come before there is one: "".
    """
    kind = event_type.partition(".")[0]
    return (
        as_text(get_nested(payload.get(kind), "id"))
        or as_text(payload.get(f"{kind}_id"))
        or as_text(get_nested(payload, "router_interface", "id"))
        or as_text(payload.get("id"))
    )


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


def read_resources(event_type: str, payload: Payload) -> list[Resource]:
    """Read the resource, or each member of a bulk create."""
    kind = event_type.partition(".")[0]
    if not isinstance(payload.get(kind), dict):
        # The plural is not always "<kind>s" ("policies"): take the first member of the payload.
        members = next((list(iterate_objects(value)) for value in payload.values()), [])
        if members:
            return [_read_resource(as_text(member.get("id")), member) for member in members]
    resource = payload.get("router_interface") if kind == "router" else None
    resource = resource or payload.get(kind) or payload
    return [_read_resource(read_resource_id(event_type, payload), resource)]


def _read_resource(identifier: str, resource: object) -> Resource:
    attributes = pick_values(resource, _ATTRIBUTES)
    return Resource(
        id=identifier,
        name=as_text(get_nested(resource, "name")),
        project_id=_read_owner(resource),
        attributes={name: value for name, value in attributes.items() if value != identifier},
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
    read_project_id=read_project_id,
    read_resource_id=read_resource_id,
    read_resources=read_resources,
    resource_types={
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
