"""Nova: the life of a server; flavors, key pairs, aggregates, server groups; impossible servers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from tests.cloud.members import HOST, OTHER_HOST
from tests.cloud.scenario.cinder import volume
from tests.cloud.scenario.glance import image
from tests.cloud.scenario.run import Actor, ScenarioRun

FLAVORS = {"small": (256, 1, 1), "medium": (512, 2, 2), "giant": (256, 1, 700_000)}


def prepare(run: ScenarioRun) -> None:
    """Create the image and the flavors of the servers, once, and wait until both hosts are up."""
    admin = run.admin()
    # Nova's scheduler discovers hosts every few seconds; until then they take no server.
    admin.until(
        lambda: str(len(admin.rest("compute", "GET", "/os-hypervisors")["hypervisors"])), "2"
    )
    for service in services(admin):
        own_id: dict[str, Any] = {"id_of": lambda _, service=service: service["id"]}
        if service["forced_down"]:  # by an earlier scenario that was interrupted
            set_service(admin, "force_up", service["id"], {"forced_down": False}, **own_id)
        if service["status"] != "enabled":
            set_service(admin, "enable", service["id"], {"status": "enabled"}, **own_id)
    if not list(admin.cloud.image.images(name="base")):
        image(admin, "base", visibility="public")
    compute = admin.cloud.compute
    for name, (ram, vcpus, disk) in FLAVORS.items():
        if compute.find_flavor(name) is None:
            admin.do(
                "nova.flavor.create",
                compute.create_flavor,
                name=name,
                ram=ram,
                vcpus=vcpus,
                disk=disk,
            )


def server(
    actor: Actor, net: Any, flavor: str = "small", call: str = "create", **extra: Any
) -> Any:
    """Request a server."""
    cloud = actor.cloud
    return actor.do(
        f"nova.server.{call}",
        cloud.compute.create_server,
        name=extra.pop("name", "server"),
        image_id=next(iter(cloud.image.images(name="base"))).id,
        flavor_id=cloud.compute.find_flavor(flavor).id,
        networks=[{"uuid": net.id}],
        **extra,
    )


def network(actor: Actor, cidr: str) -> Any:
    """Create a network with a subnet."""
    api = actor.cloud.network
    net = actor.do("neutron.network.create", api.create_network, name="servers")
    actor.do("neutron.subnet.create", api.create_subnet, network_id=net.id, ip_version=4, cidr=cidr)
    return net


def action(
    actor: Actor, name: str, instance: Any, body: Mapping[str, object], version: str
) -> None:
    """Request an action that the SDK does not have."""
    actor.do(
        f"nova.server.{name}",
        actor.rest,
        "compute",
        "POST",
        f"/servers/{instance.id}/action",
        body,
        OpenStack_API_Version=f"compute {version}",
        id_of=lambda _: instance.id,
    )


def nova(run: ScenarioRun) -> None:
    """Take one server through its life; create and delete another as a second user."""
    prepare(run)
    admin, alice, bob = run.admin(), run.person("alice"), run.person("bob")
    _change_flavor(run, admin)
    _change_aggregate(run, admin)
    net = network(alice, "10.20.0.0/24")
    key = alice.do(
        "nova.keypair.create",
        alice.cloud.compute.create_keypair,
        name=f"key-{run.tag}",
        id_of=lambda resource: resource.name,
    )
    instance = server(
        alice, net, key_name=key.name, name=f"server-{run.tag}", metadata={"env": "lab"}
    )
    _change_state(admin, alice, instance)
    _attach_devices(alice, instance, net)
    _create_impossible(admin, alice, net)
    _create_many(alice, net)
    alice.do("nova.server.delete", alice.cloud.compute.delete_server, instance)
    _wait_until_gone(alice, instance)
    alice.do(
        "nova.server.delete_gone",
        alice.cloud.compute.delete_server,
        instance,
        ignore_missing=False,
        refused=True,
    )
    for snapshot in alice.cloud.image.images(name=f"snapshot-{run.tag}"):
        alice.do("glance.image.delete", alice.cloud.image.delete_image, snapshot)
    alice.do(
        "nova.keypair.delete",
        alice.cloud.compute.delete_keypair,
        key,
        id_of=lambda _: key.name,
    )
    _remove_network(alice, net)
    bobs_network = network(bob, "10.21.0.0/24")
    second_instance = server(bob, bobs_network, name="bob's")
    bob.until(
        lambda: bob.cloud.compute.get_server(second_instance.id).status, "ACTIVE", bad=("ERROR",)
    )
    bob.do("nova.server.force_delete", bob.cloud.compute.delete_server, second_instance, force=True)
    _wait_until_gone(bob, second_instance)
    _remove_network(bob, bobs_network)
    _disable_service(admin)


def _wait_until_active(actor: Actor, instance: Any) -> None:
    api = actor.cloud.compute
    actor.until(lambda: api.get_server(instance.id).status, "ACTIVE", bad=("ERROR",))


def _wait_until_gone(actor: Actor, instance: Any) -> None:
    actor.until(lambda: actor.cloud.compute.get_server(instance.id).status, "GONE", "DELETED")


def _remove_network(actor: Actor, net: Any) -> None:
    api = actor.cloud.network
    for port in list(api.ports(network_id=net.id)):
        actor.do("neutron.port.delete", api.delete_port, port)
    actor.do("neutron.network.delete", api.delete_network, net)


def _change_flavor(run: ScenarioRun, admin: Actor) -> None:
    do, api = admin.do, admin.cloud.compute
    resource = do(
        "nova.flavor.create",
        api.create_flavor,
        name=f"flavor-{run.tag}",
        ram=64,
        vcpus=1,
        disk=1,
        is_public=False,
    )
    own_id: dict[str, Any] = {"id_of": lambda _: resource.id}
    specs = {"hw:cpu_policy": "shared"}
    do("nova.flavor.update_extra_specs", api.create_flavor_extra_specs, resource, specs, **own_id)
    project = run.projects["alpha"]
    do("nova.flavor.add_access", api.flavor_add_tenant_access, resource, project, **own_id)
    do("nova.flavor.remove_access", api.flavor_remove_tenant_access, resource, project, **own_id)
    do("nova.flavor.delete", api.delete_flavor, resource)


def _change_aggregate(run: ScenarioRun, admin: Actor) -> None:
    do, api = admin.do, admin.cloud.compute
    resource = do(
        "nova.aggregate.create",
        api.create_aggregate,
        name=f"aggregate-{run.tag}",
        id_of=lambda resource: str(resource.id),
    )
    own_id: dict[str, Any] = {"id_of": lambda _: str(resource.id)}
    do("nova.aggregate.update", api.update_aggregate, resource, name=f"renamed-{run.tag}", **own_id)
    do("nova.aggregate.add_host", api.add_host_to_aggregate, resource, HOST, **own_id)
    do("nova.aggregate.update_metadata", api.set_aggregate_metadata, resource, {"k": "v"}, **own_id)
    do("nova.aggregate.remove_host", api.remove_host_from_aggregate, resource, HOST, **own_id)
    do("nova.aggregate.delete", api.delete_aggregate, resource, **own_id)


def _change_state(admin: Actor, alice: Actor, instance: Any) -> None:
    """Run every action on a server."""
    api = alice.cloud.compute
    run = alice.run

    def step(
        call: str,
        function: Callable[..., Any],
        /,
        *arguments: Any,
        then: tuple[str, ...] = ("ACTIVE",),
        **named: Any,
    ) -> None:
        alice.do(
            f"nova.server.{call}",
            function,
            instance,
            *arguments,
            id_of=lambda _: instance.id,
            **named,
        )
        settle(*then)

    def settle(*states: str) -> None:
        def state() -> str:
            server = admin.cloud.compute.get_server(instance.id)
            return "busy" if server.task_state else str(server.status)

        alice.until(state, *states, bad=("ERROR",))

    settle("ACTIVE")
    step("update", api.update_server, name="renamed")
    step("update_metadata", api.set_server_metadata, role="web")
    step("delete_metadata", api.delete_server_metadata, ["role"])
    step("reboot_soft", api.reboot_server, "SOFT")
    step("reboot_hard", api.reboot_server, "HARD")
    step("pause", api.pause_server, then=("PAUSED",))
    step("unpause", api.unpause_server)
    step("suspend", api.suspend_server, then=("SUSPENDED",))
    step("resume", api.resume_server)
    step("stop", api.stop_server, then=("SHUTOFF",))
    step("start", api.start_server)
    step("lock", api.lock_server)
    step("unlock", api.unlock_server)
    step("resize", api.resize_server, api.find_flavor("medium"), then=("VERIFY_RESIZE",))
    step("confirm_resize", api.confirm_server_resize)
    step("resize", api.resize_server, api.find_flavor("small"), then=("VERIFY_RESIZE",))
    step("revert_resize", api.revert_server_resize)
    base = next(iter(alice.cloud.image.images(name="base"))).id
    step("rebuild", api.rebuild_server, image=base, name="rebuilt")
    step("create_image", api.create_server_image, f"snapshot-{run.tag}")
    step("shelve", api.shelve_server, then=("SHELVED", "SHELVED_OFFLOADED"))
    action(admin, "shelve_offload", instance, {"shelveOffload": None}, "2.1")
    settle("SHELVED_OFFLOADED")
    step("unshelve", api.unshelve_server)
    step("rescue", api.rescue_server, then=("RESCUE",))
    step("unrescue", api.unrescue_server)
    live = {"os-migrateLive": {"host": None, "block_migration": "auto"}}
    action(admin, "live_migrate", instance, live, "2.30")
    alice.until(lambda: last_migration(admin, instance), "completed", bad=("error", "failed"))
    settle("ACTIVE")
    action(admin, "migrate", instance, {"migrate": None}, "2.1")
    settle("VERIFY_RESIZE")
    step("confirm_resize", api.confirm_server_resize)
    for state in ("error", "active"):
        reset = {"os-resetState": {"state": state}}
        action(admin, f"reset_state_{state}", instance, reset, "2.1")


def _attach_devices(alice: Actor, instance: Any, net: Any) -> None:
    do, cloud = alice.do, alice.cloud
    own_id: dict[str, Any] = {"id_of": lambda _: instance.id}
    port = do("neutron.port.create", cloud.network.create_port, network_id=net.id)
    attach, detach = cloud.compute.create_server_interface, cloud.compute.delete_server_interface
    do("nova.server.attach_interface", attach, instance, port_id=port.id, **own_id)
    address = str(port.fixed_ips[0]["ip_address"])
    alice.until(
        lambda: str(address in str(cloud.compute.get_server(instance.id).addresses)), "True"
    )
    do("nova.server.detach_interface", detach, port.id, server=instance, **own_id)
    disk = volume(alice)
    store = cloud.block_storage
    attach = cloud.compute.create_volume_attachment
    do("nova.server.attach_volume", attach, instance, volume_id=disk.id, **own_id)
    alice.until(lambda: store.get_volume(disk.id).status, "in-use")
    detach = cloud.compute.delete_volume_attachment
    do("nova.server.detach_volume", detach, instance, disk.id, **own_id)
    alice.until(lambda: store.get_volume(disk.id).status, "available")
    do("cinder.volume.delete", store.delete_volume, disk)


def _create_impossible(admin: Actor, alice: Actor, net: Any) -> None:
    """Request servers for which there is no host, no port or no image."""
    api = alice.cloud.compute
    lost = server(alice, net, "giant", "create_no_valid_host")
    alice.until(lambda: api.get_server(lost.id).status, "ERROR")
    alice.do("nova.server.delete", api.delete_server, lost)
    unbound = admin.do(
        "neutron.network.create",
        admin.cloud.network.create_network,
        name="bound to no host",
        project_id=alice.project_id,
        provider_network_type="vlan",
        provider_physical_network="phys2",
    )
    alice.do(
        "neutron.subnet.create",
        alice.cloud.network.create_subnet,
        network_id=unbound.id,
        ip_version=4,
        cidr="10.40.0.0/24",
    )
    lost = server(alice, unbound, "small", "create_no_port")
    alice.until(lambda: api.get_server(lost.id).status, "ERROR")
    alice.do("nova.server.delete", api.delete_server, lost)
    _wait_until_gone(alice, lost)
    admin.do("neutron.network.delete", admin.cloud.network.delete_network, unbound)
    alice.do(
        "nova.server.create_no_image",
        api.create_server,
        name="none",
        image_id="11111111-1111-4111-8111-111111111111",
        flavor_id=api.find_flavor("small").id,
        networks=[{"uuid": net.id}],
        refused=True,
        id_of=lambda _: None,
    )


def _create_many(alice: Actor, net: Any) -> None:
    """Create two servers with one call, in a server group."""
    api = alice.cloud.compute
    name = f"many-{alice.run.tag}"
    group = alice.do(
        "nova.server_group.create",
        api.create_server_group,
        name=name,
        policies=["anti-affinity"],
    )
    base = next(iter(alice.cloud.image.images(name="base"))).id
    body = {
        "server": {
            "name": name,
            "imageRef": base,
            "flavorRef": api.find_flavor("small").id,
            "min_count": 2,
            "max_count": 2,
            "networks": [{"uuid": net.id}],
        },
        "os:scheduler_hints": {"group": group.id},
    }
    alice.do("nova.server.create_many", alice.rest, "compute", "POST", "/servers", body)
    instances = list(api.servers(name=name))
    for instance in instances:
        _wait_until_active(alice, instance)
        alice.do("nova.server.delete", api.delete_server, instance)
    for instance in instances:
        _wait_until_gone(alice, instance)
    alice.do("nova.server_group.delete", api.delete_server_group, group)


def _disable_service(admin: Actor) -> None:
    api = admin.cloud.compute
    service = next(service for service in services(admin) if service["host"] == OTHER_HOST)
    own_id: dict[str, Any] = {"id_of": lambda _: service["id"]}
    del api
    for name, body in (
        ("disable", {"status": "disabled", "disabled_reason": "a test"}),
        ("enable", {"status": "enabled"}),
    ):
        set_service(admin, name, service["id"], body, **own_id)


def last_migration(admin: Actor, instance: Any) -> str:
    """Return the status of a server's newest migration, "none" if it has none."""
    migrations = admin.rest("compute", "GET", f"/os-migrations?instance_uuid={instance.id}")[
        "migrations"
    ]
    return str(max(migrations, key=lambda item: item["id"])["status"]) if migrations else "none"


def unfinished_evacuations(admin: Actor, host: str) -> str:
    """Return how many evacuations from a host its compute service has not handled yet."""
    path = f"/os-migrations?migration_type=evacuation&source_compute={host}"
    migrations = admin.rest("compute", "GET", path, OpenStack_API_Version="compute 2.23")
    statuses = [item["status"] for item in migrations["migrations"]]
    return str(sum(status in {"accepted", "pre-migrating", "done"} for status in statuses))


def services(admin: Actor) -> list[dict[str, Any]]:
    """Return the compute services."""
    answer = admin.rest(
        "compute", "GET", "/os-services?binary=nova-compute", OpenStack_API_Version="compute 2.53"
    )
    compute_services: list[dict[str, Any]] = answer["services"]
    return compute_services


def set_service(
    admin: Actor, name: str, identifier: str, body: Mapping[str, object], **own_id: Any
) -> None:
    """Change a compute service."""
    admin.do(
        f"nova.service.{name}",
        admin.rest,
        "compute",
        "PUT",
        f"/os-services/{identifier}",
        body,
        OpenStack_API_Version="compute 2.53",
        **own_id,
    )
