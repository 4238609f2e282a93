"""Neutron: networks and every resource on them: created, changed, used, refused, deleted."""

from __future__ import annotations

from typing import Any

from tests.cloud.scenario.run import Actor, ScenarioRun


def outside(admin: Actor) -> Any:
    """Return the external network, which is created once."""
    api = admin.cloud.network
    network_outside = api.find_network("outside")
    if network_outside is None:
        network_outside = admin.do(
            "neutron.network.create",
            api.create_network,
            name="outside",
            is_router_external=True,
            provider_network_type="flat",
            provider_physical_network="public",
        )
        admin.do(
            "neutron.subnet.create",
            api.create_subnet,
            network_id=network_outside.id,
            ip_version=4,
            cidr="203.0.113.0/24",
            is_dhcp_enabled=False,
        )
    return network_outside


def neutron(run: ScenarioRun) -> None:
    """Create, change and delete every kind of resource, as a member or as the administrator."""
    admin, alice = run.admin(), run.person("alice")
    external = outside(admin)
    do, api, tag = alice.do, alice.cloud.network, run.tag
    net = do("neutron.network.create", api.create_network, name=f"net-{tag}")
    sub = do(
        "neutron.subnet.create",
        api.create_subnet,
        network_id=net.id,
        ip_version=4,
        cidr="10.11.0.0/24",
    )
    do("neutron.network.update", api.update_network, net, description="changed")
    do("neutron.subnet.update", api.update_subnet, sub, name="renamed")
    group = do("neutron.security_group.create", api.create_security_group, name=f"sg-{tag}")
    rule = do(
        "neutron.security_group_rule.create",
        api.create_security_group_rule,
        security_group_id=group.id,
        direction="ingress",
        protocol="tcp",
        port_range_min=22,
        port_range_max=22,
    )
    do("neutron.security_group_rule.delete", api.delete_security_group_rule, rule)
    do("neutron.security_group.update", api.update_security_group, group, description="changed")
    port = do("neutron.port.create", api.create_port, network_id=net.id, security_groups=[group.id])
    do("neutron.port.update", api.update_port, port, name="renamed")
    bodies = [{"network_id": net.id, "name": name} for name in ("one", "two")]
    do(
        "neutron.port.create_bulk",
        alice.rest,
        "network",
        "POST",
        "/v2.0/ports",
        {"ports": bodies},
        id_of=lambda result: result["ports"][0]["id"],
    )
    router = do(
        "neutron.router.create",
        api.create_router,
        name=f"router-{tag}",
        external_gateway_info={"network_id": external.id},
    )
    own_id: dict[str, Any] = {"id_of": lambda _: router.id}
    do(
        "neutron.router.add_interface",
        api.add_interface_to_router,
        router,
        subnet_id=sub.id,
        **own_id,
    )
    _use_floating_ip(alice, external, port)
    _use_trunk(alice, net)
    for name, create, delete, options in (
        (
            "address_group",
            api.create_address_group,
            api.delete_address_group,
            {"addresses": ["10.0.0.0/8"]},
        ),
        ("address_scope", api.create_address_scope, api.delete_address_scope, {"ip_version": 4}),
        (
            "subnet_pool",
            api.create_subnet_pool,
            api.delete_subnet_pool,
            {"prefixes": ["10.99.0.0/16"], "default_prefix_length": 24},
        ),
    ):
        resource = do(f"neutron.{name}.create", create, name=f"{name}-{tag}", **options)
        do(f"neutron.{name}.delete", delete, resource)
    _call_as_administrator(run, admin, net)
    do(
        "neutron.network.delete_in_use",
        api.delete_network,
        net,
        ignore_missing=False,
        refused=True,
    )
    do(
        "neutron.network.create_forbidden",
        api.create_network,
        name="provider",
        provider_network_type="vlan",
        provider_segmentation_id=4242,
        refused=True,
    )
    remove = api.remove_interface_from_router
    do("neutron.router.remove_interface", remove, router, subnet_id=sub.id, **own_id)
    do("neutron.router.update", api.update_router, router, external_gateway_info={})
    do("neutron.router.delete", api.delete_router, router)
    for remaining_port in list(api.ports(network_id=net.id)):
        do("neutron.port.delete", api.delete_port, remaining_port)
    do("neutron.security_group.delete", api.delete_security_group, group)
    do("neutron.subnet.delete", api.delete_subnet, sub)
    do("neutron.network.delete", api.delete_network, net)
    do("neutron.network.delete_gone", api.delete_network, net, ignore_missing=False, refused=True)
    bob = run.person("bob")
    net = bob.do("neutron.network.create", bob.cloud.network.create_network, name="bob's")
    bob.do("neutron.network.delete", bob.cloud.network.delete_network, net)


def _use_floating_ip(alice: Actor, external: Any, port: Any) -> None:
    do, api = alice.do, alice.cloud.network
    address = do("neutron.floatingip.create", api.create_ip, floating_network_id=external.id)
    do("neutron.floatingip.update", api.update_ip, address, port_id=port.id)
    do("neutron.floatingip.update", api.update_ip, address, port_id=None)
    forwarding = do(
        "neutron.port_forwarding.create",
        api.create_port_forwarding,
        floatingip_id=address.id,
        internal_port_id=port.id,
        internal_ip_address=port.fixed_ips[0]["ip_address"],
        internal_port=22,
        external_port=2222,
        protocol="tcp",
    )
    do(
        "neutron.port_forwarding.delete",
        api.delete_port_forwarding,
        forwarding,
        address.id,
        id_of=lambda _: forwarding.id,
    )
    do("neutron.floatingip.delete", api.delete_ip, address)


def _use_trunk(alice: Actor, net: Any) -> None:
    do, api = alice.do, alice.cloud.network
    parent = do("neutron.port.create", api.create_port, network_id=net.id, name="parent")
    child = do("neutron.port.create", api.create_port, network_id=net.id, name="child")
    trunk = do("neutron.trunk.create", api.create_trunk, port_id=parent.id)
    sub = [{"port_id": child.id, "segmentation_type": "vlan", "segmentation_id": 7}]
    do("neutron.trunk.add_subports", api.add_trunk_subports, trunk, sub)
    do("neutron.trunk.remove_subports", api.delete_trunk_subports, trunk, [{"port_id": child.id}])
    do("neutron.trunk.delete", api.delete_trunk, trunk)


def _call_as_administrator(run: ScenarioRun, admin: Actor, net: Any) -> None:
    do, api = admin.do, admin.cloud.network
    policy = do("neutron.qos_policy.create", api.create_qos_policy, name=f"qos-{run.tag}")
    do("neutron.qos_policy.update", api.update_qos_policy, policy, description="changed")
    rule = do(
        "neutron.qos_rule.create",
        api.create_qos_bandwidth_limit_rule,
        policy,
        max_kbps=1000,
        max_burst_kbps=100,
    )
    do("neutron.qos_rule.delete", api.delete_qos_bandwidth_limit_rule, rule, policy)
    do("neutron.qos_policy.delete", api.delete_qos_policy, policy)
    shared = do(
        "neutron.rbac_policy.create",
        api.create_rbac_policy,
        object_type="network",
        object_id=net.id,
        action="access_as_shared",
        target_project_id=run.projects["beta"],
    )
    do("neutron.rbac_policy.delete", api.delete_rbac_policy, shared)
    path = f"/v2.0/quotas/{run.projects['beta']}"
    do("neutron.quota.update", admin.rest, "network", "PUT", path, {"quota": {"network": 50}})
    do("neutron.quota.delete", admin.rest, "network", "DELETE", path)
    segment = do(
        "neutron.segment.create",
        api.create_segment,
        network_id=net.id,
        network_type="vlan",
        physical_network="phys",
        segmentation_id=150,
    )
    do("neutron.segment.delete", api.delete_segment, segment)
