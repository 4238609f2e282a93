"""The members of the test cloud: the ten services and Placement, each with its configuration.

``cloud.py`` starts them. A configuration is minimal and holds nothing about notifications: the
drop-in of ``stackbus config``, appended to the file, is all that makes a service emit. Keystone and
Glance run by the recipes of the demonstration. The options come from the services' own ``conf/``
modules and logs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from stackbus.broker.node import LOOPBACK
from stackbus.demo import recipes
from stackbus.demo.recipes import REGION, Recipe, Sections, login_options, render, serve_command
from tests.cloud.home import CloudHome

HOST, OTHER_HOST = "host-1", "host-2"


@dataclass(frozen=True, slots=True)
class Process:
    """A process that keeps running: a program of the member's environment and its arguments."""

    name: str
    command: tuple[str, ...]
    environment: Mapping[str, str] = field(default_factory=dict)
    api: bool = False


@dataclass(frozen=True, slots=True)
class Member:
    """One service of the cloud.

    ``files`` are written into its configuration folder; the drop-in is appended to the first.
    ``shipped`` files are copied there from the package. The commands ``prepare`` run once before
    its processes start, ``finish`` once after its API answers. ``needs`` are members that must be
    up before.
    """

    name: str
    files: Mapping[str, str]
    prepare: tuple[tuple[str, ...], ...]
    processes: tuple[Process, ...]
    shipped: tuple[str, ...] = ()
    finish: tuple[tuple[str, ...], ...] = ()
    needs: tuple[str, ...] = ("keystone",)
    folders: tuple[str, ...] = ()
    databases: tuple[str, ...] = ()
    emits: bool = True


def database(home: CloudHome, name: str) -> str:
    """Return SQLAlchemy's URL of a database."""
    port = home.port("mariadb")
    return f"mysql+pymysql://cloud:{home.password}@{LOOPBACK}:{port}/{name}?charset=utf8mb3"


def rpc(home: CloudHome) -> str:
    """Return the URL of the vhost for the services' RPC, which is not the inner bus."""
    return f"rabbit://cloud:{home.password}@{LOOPBACK}:{home.port('amqp')}/cloud-rpc"


def login(home: CloudHome, user: str, **extra: object) -> dict[str, object]:
    """Return keystoneauth's options for a service's own user."""
    keystone_url = home.url("keystone", "/v3")
    return {**login_options(keystone_url, user, home.password, "service"), **extra}


def authtoken(home: CloudHome, name: str) -> dict[str, object]:
    """Return the options of keystonemiddleware, which checks the tokens of an API's callers."""
    return login(
        home,
        name,
        www_authenticate_uri=home.url("keystone", "/v3"),
        service_token_roles="service",
        service_token_roles_required=True,
    )


def base(home: CloudHome, name: str, **default: object) -> Sections:
    """Return the options that nearly every service needs."""
    return {
        "DEFAULT": {
            "use_stderr": True,
            "host": HOST,
            "state_path": home.state(name),
            "transport_url": rpc(home),
            **default,
        },
        "database": {"connection": database(home, name)},
        "keystone_authtoken": authtoken(home, name),
        "oslo_concurrency": {"lock_path": home.state(name) / "lock"},
    }


def without_region(options: dict[str, object]) -> dict[str, object]:
    """Return ``options`` without ``region_name``, which some sections reject."""
    return {key: value for key, value in options.items() if key != "region_name"}


def api(home: CloudHome, name: str, module: str, *arguments: str, **environment: str) -> Process:
    """Return the process that serves a member's WSGI application."""
    command = serve_command(home.port(name), module, *arguments)
    return Process(f"{name}-api", command, environment, api=True)


def from_recipe(
    home: CloudHome, name: str, recipe: Recipe, needs: tuple[str, ...] = ("keystone",)
) -> Member:
    """Return the member that ``stackbus demo`` starts by the same recipe."""
    command = serve_command(home.port(name), recipe.application)
    return Member(
        name,
        {recipe.file: render(recipe.sections)},
        recipe.prepare,
        (Process(f"{name}-api", command, recipe.environment, api=True),),
        needs=needs,
        folders=recipe.folders,
        databases=(name,),
    )


def keystone(home: CloudHome) -> Member:
    # The password of its bootstrap command comes from the environment: see Cloud.
    recipe = recipes.keystone(
        home.folders("keystone"), database(home, "keystone"), home.url("keystone", "/v3")
    )
    recipe.sections["token"] = {"expiration": 14400}
    recipe.sections["security_compliance"] = {
        "lockout_failure_attempts": 3,
        "lockout_duration": 300,
    }
    return from_recipe(home, "keystone", recipe, needs=())


def glance(home: CloudHome) -> Member:
    recipe = recipes.glance(
        home.folders("glance"),
        database(home, "glance"),
        home.url("glance"),
        authtoken(home, "glance"),
    )
    recipe.sections["DEFAULT"] |= {
        "image_tag_quota": 20,
        "enabled_import_methods": "[glance-direct,copy-image]",
        "bind_host": LOOPBACK,
    }
    return from_recipe(home, "glance", recipe)


def placement(home: CloudHome) -> Member:
    conf = base(home, "placement")
    conf["placement_database"] = conf.pop("database")
    conf["DEFAULT"] = {"use_stderr": True}
    conf["api"] = {"auth_strategy": "keystone"}
    file = str(home.etc("placement") / "placement.conf")
    return Member(
        "placement",
        {"placement.conf": render(conf)},
        (("placement-manage", "--config-file", file, "db", "sync"),),
        (
            api(
                home,
                "placement",
                "placement.wsgi.api",
                OS_PLACEMENT_CONFIG_DIR=str(home.etc("placement")),
            ),
        ),
        databases=("placement",),
        emits=False,
    )


def nova(home: CloudHome) -> Member:
    conf = base(
        home,
        "nova",
        my_ip=LOOPBACK,
        # This driver keeps its servers in memory. FakeDriver does not start a second time.
        compute_driver="fake.FakeDriverWithoutFakeNodes",
        enabled_apis="osapi_compute",
        allow_resize_to_same_host=True,
        vif_plugging_is_fatal=False,
        vif_plugging_timeout=0,
        shelved_offload_time=-1,
        running_deleted_instance_poll_interval=0,
        heal_instance_info_cache_interval=0,
    )
    conf["api_database"] = {"connection": database(home, "nova_api")}
    conf["wsgi"] = {"api_paste_config": home.etc("nova") / "api-paste.ini"}
    for section in ("glance", "placement", "neutron", "keystone"):
        conf[section] = login(home, "nova")
    conf["cinder"] = without_region(login(home, "nova"))
    conf["cinder"] |= {"catalog_info": "volumev3::publicURL", "os_region_name": REGION}
    conf["service_user"] = without_region(login(home, "nova", send_service_user_token=True))
    conf["vnc"] = {"enabled": False}
    conf["scheduler"] = {"workers": 1, "discover_hosts_in_cells_interval": 5}
    conf["conductor"] = {"workers": 1}
    file = ("--config-file", str(home.etc("nova") / "nova.conf"))
    second_conf = render({"DEFAULT": {"host": OTHER_HOST, "state_path": home.state("nova-2")}})
    second = ("--config-file", str(home.etc("nova") / "compute-2.conf"))
    cell0 = database(home, "nova_cell0")
    return Member(
        "nova",
        {"nova.conf": render(conf), "compute-2.conf": second_conf},
        (
            ("nova-manage", *file, "api_db", "sync"),
            ("nova-manage", *file, "cell_v2", "map_cell0", "--database_connection", cell0),
            ("nova-manage", *file, "db", "sync"),
            ("nova-manage", *file, "cell_v2", "create_cell", "--name", "cell1"),
        ),
        (
            api(
                home,
                "nova",
                "nova.wsgi.osapi_compute",
                OS_NOVA_CONFIG_DIR=str(home.etc("nova")),
            ),
            Process("nova-conductor", ("nova-conductor", *file)),
            Process("nova-scheduler", ("nova-scheduler", *file)),
            Process("nova-compute", ("nova-compute", *file)),
            Process("nova-compute-2", ("nova-compute", *file, *second)),
        ),
        shipped=("nova/api-paste.ini",),
        needs=("keystone", "placement"),
        folders=("../nova-2",),
        databases=("nova", "nova_api", "nova_cell0"),
    )


def neutron(home: CloudHome) -> Member:
    conf = base(
        home,
        "neutron",
        core_plugin="ml2",
        service_plugins="router,qos,segments,trunk,port_forwarding",
        auth_strategy="keystone",
        api_paste_config=home.etc("neutron") / "api-paste.ini",
        notify_nova_on_port_status_changes=False,
        notify_nova_on_port_data_changes=False,
        rpc_workers=1,
        rpc_state_report_workers=0,
        # neutron_agent.py reports the agents once, and never again.
        agent_down_time=2_000_000,
    )
    for section in ("nova", "placement"):
        conf[section] = login(home, "neutron")
    conf["ml2"] = {
        "type_drivers": "flat,local,vlan,vxlan",
        "tenant_network_types": "vxlan",
        "mechanism_drivers": "openvswitch,logger",
        "extension_drivers": "port_security,qos",
    }
    conf["ml2_type_vxlan"] = {"vni_ranges": "1:10000"}
    conf["ml2_type_flat"] = {"flat_networks": "public"}
    conf["ml2_type_vlan"] = {"network_vlan_ranges": "phys:100:200,phys2:100:200"}
    conf["quotas"] = {"quota_driver": "neutron.db.quota.driver_nolock.DbQuotaNoLockDriver"}
    path = str(home.etc("neutron") / "neutron.conf")
    file = ("--config-file", path)
    return Member(
        "neutron",
        {"neutron.conf": render(conf)},
        (("neutron-db-manage", *file, "upgrade", "heads"),),
        (
            api(home, "neutron", "neutron.wsgi.api", *file),
            Process("neutron-rpc-server", ("neutron-rpc-server", *file)),
        ),
        shipped=("neutron/api-paste.ini",),
        finish=(
            ("python", str(Path(__file__).parent / "neutron_agent.py"), path, HOST, OTHER_HOST),
        ),
        databases=("neutron",),
    )


def cinder(home: CloudHome) -> Member:
    conf = base(
        home,
        "cinder",
        my_ip=LOOPBACK,
        auth_strategy="keystone",
        enabled_backends="fake",
        default_volume_type="fake",
        glance_api_servers=home.url("glance"),
        api_paste_config=home.etc("cinder") / "api-paste.ini",
        resource_query_filters_file=home.etc("cinder") / "resource_filters.json",
    )
    conf["fake"] = {
        "volume_driver": "cinder.tests.fake_driver.FakeLoggingVolumeDriver",
        "volume_backend_name": "fake",
    }
    conf["service_user"] = without_region(login(home, "cinder", send_service_user_token=True))
    conf["nova"] = login(home, "cinder")
    conf["coordination"] = {"backend_url": f"file://{home.state('cinder')}"}
    file = ("--config-file", str(home.etc("cinder") / "cinder.conf"))
    return Member(
        "cinder",
        {"cinder.conf": render(conf)},
        (("cinder-manage", *file, "db", "sync"),),
        (
            api(home, "cinder", "cinder.wsgi.api", *file),
            Process("cinder-scheduler", ("cinder-scheduler", *file)),
            Process("cinder-volume", ("cinder-volume", *file)),
        ),
        shipped=("cinder/api-paste.ini", "cinder/resource_filters.json"),
        databases=("cinder",),
    )


def heat(home: CloudHome) -> Member:
    conf = base(
        home,
        "heat",
        stack_domain_admin="heat_domain_admin",
        stack_domain_admin_password=home.password,
        stack_user_domain_name="heat",
        num_engine_workers=1,
        auth_encryption_key="0123456789abcdef0123456789abcdef",
        heat_metadata_server_url=f"http://{LOOPBACK}:8000",
        heat_waitcondition_server_url=f"http://{LOOPBACK}:8000/v1/waitcondition",
        region_name_for_services=REGION,
    )
    trustee = without_region(login(home, "heat"))
    conf["trustee"] = {
        key: value for key, value in trustee.items() if not key.startswith("project_")
    }
    conf["clients_keystone"] = {"auth_uri": home.url("keystone")}
    conf["paste_deploy"] = {"api_paste_config": home.etc("heat") / "api-paste.ini"}
    file = ("--config-file", str(home.etc("heat") / "heat.conf"))
    return Member(
        "heat",
        {"heat.conf": render(conf)},
        (("heat-manage", *file, "db_sync"),),
        (
            api(home, "heat", "heat.wsgi.api", *file),
            Process("heat-engine", ("heat-engine", *file)),
        ),
        shipped=("heat/api-paste.ini",),
        databases=("heat",),
    )


_POOLS = """
- name: default
  description: a pool whose name server is Designate's own mdns
  attributes: {{}}
  ns_records: [{{hostname: ns1.cloud.example., priority: 1}}]
  nameservers: [{{host: 127.0.0.1, port: {mdns}}}]
  targets:
    - type: fake
      description: fake
      masters: [{{host: 127.0.0.1, port: {mdns}}}]
      options: {{host: 127.0.0.1, port: {mdns}}}  # gets the NOTIFY of a change
"""


def designate(home: CloudHome) -> Member:
    conf = base(home, "designate")
    conf["storage:sqlalchemy"] = conf.pop("database")
    conf["service:api"] = {
        "api_paste_config": home.etc("designate") / "api-paste.ini",
        "auth_strategy": "keystone",
        "enable_api_v2": True,
        "enable_host_header": True,
    }
    for name in ("central", "producer"):
        conf[f"service:{name}"] = {"workers": 1}
    conf["service:mdns"] = {"workers": 1, "listen": f"{LOOPBACK}:{home.port('mdns')}"}
    conf["service:worker"] = {
        "workers": 1,
        "poll_max_retries": 3,
        "poll_timeout": 3,
        "poll_delay": 1,
        "poll_retry_interval": 2,
    }
    file = ("--config-file", str(home.etc("designate") / "designate.conf"))
    pools = str(home.etc("designate") / "pools.yaml")
    return Member(
        "designate",
        {
            "designate.conf": render(conf),
            "pools.yaml": _POOLS.format(mdns=home.port("mdns")),
        },
        (("designate-manage", *file, "database", "sync"),),
        (
            api(
                home,
                "designate",
                "designate.wsgi.api",
                OS_DESIGNATE_CONFIG_DIR=str(home.etc("designate")),
            ),
            *(
                Process(f"designate-{name}", (f"designate-{name}", *file))
                for name in ("central", "worker", "producer", "mdns")
            ),
        ),
        shipped=("designate/api-paste.ini",),
        finish=(("designate-manage", *file, "pool", "update", "--file", pools),),
        databases=("designate",),
    )


def ironic(home: CloudHome) -> Member:
    conf = base(
        home,
        "ironic",
        my_ip=LOOPBACK,
        auth_strategy="keystone",
        enabled_hardware_types="fake-hardware",
        rpc_transport="oslo",
        default_deploy_interface="fake",
        default_inspect_interface="fake",
        default_network_interface="noop",
        enabled_network_interfaces="noop",
        enabled_storage_interfaces="fake,noop",
    )
    for kind in ("boot", "deploy", "management", "power"):
        conf["DEFAULT"][f"enabled_{kind}_interfaces"] = "fake"
    for kind in ("bios", "console", "firmware", "inspect", "raid", "rescue", "vendor"):
        conf["DEFAULT"][f"enabled_{kind}_interfaces"] = f"fake,no-{kind}"
    conf["conductor"] = {"automated_clean": True, "sync_power_state_interval": 0}
    conf["dhcp"] = {"dhcp_provider": "none"}
    for section in ("service_catalog", "glance", "neutron", "nova", "swift", "cinder"):
        conf[section] = login(home, "ironic")
    file = ("--config-file", str(home.etc("ironic") / "ironic.conf"))
    return Member(
        "ironic",
        {"ironic.conf": render(conf)},
        (("ironic-dbsync", *file, "upgrade"),),
        (
            api(home, "ironic", "ironic.wsgi", *file),
            Process("ironic-conductor", ("ironic-conductor", *file)),
        ),
        databases=("ironic",),
    )


def manila(home: CloudHome) -> Member:
    conf = base(
        home,
        "manila",
        my_ip=LOOPBACK,
        auth_strategy="keystone",
        api_paste_config=home.etc("manila") / "api-paste.ini",
        rootwrap_config=home.etc("manila") / "rootwrap.conf",
        enabled_share_backends="dummy",
        enabled_share_protocols="NFS,CIFS",
        default_share_type="default",
    )
    conf["dummy"] = {
        "share_backend_name": "dummy",
        "share_driver": "manila.tests.share.drivers.dummy.DummyDriver",
        "driver_handles_share_servers": False,
    }
    for section in ("neutron", "nova", "cinder", "glance"):
        conf[section] = login(home, "manila")
    file = ("--config-file", str(home.etc("manila") / "manila.conf"))
    return Member(
        "manila",
        {"manila.conf": render(conf)},
        (("manila-manage", *file, "db", "sync"),),
        (
            api(home, "manila", "manila.wsgi.api", *file),
            Process("manila-scheduler", ("manila-scheduler", *file)),
            Process("manila-share", ("manila-share", *file)),
        ),
        shipped=("manila/api-paste.ini", "manila/rootwrap.conf"),
        databases=("manila",),
    )


def masakari(home: CloudHome) -> Member:
    conf = base(
        home,
        "masakari",
        my_ip=LOOPBACK,
        auth_strategy="keystone",
        os_privileged_user_name="masakari",
        os_privileged_user_password=home.password,
        os_privileged_user_tenant="service",
        os_privileged_user_auth_url=home.url("keystone", "/v3"),
        os_user_domain_name="Default",
        os_project_domain_name="Default",
        nova_catalog_admin_info="compute:nova:publicURL",
        wait_period_after_service_update=5,
        wait_period_after_evacuation=60,
        process_unfinished_notifications_interval=30,
        retry_notification_new_status_interval=20,
    )
    conf["wsgi"] = {"api_paste_config": home.etc("masakari") / "api-paste.ini"}
    conf["taskflow"] = {"connection": database(home, "masakari")}
    file = ("--config-file", str(home.etc("masakari") / "masakari.conf"))
    return Member(
        "masakari",
        {"masakari.conf": render(conf)},
        (("masakari-manage", *file, "db", "sync"),),
        (
            api(
                home,
                "masakari",
                "masakari.wsgi.api",
                # It reads its configuration twice, from the folder and from its arguments.
                *file,
                OS_MASAKARI_CONFIG_DIR=str(home.etc("masakari")),
            ),
            Process("masakari-engine", ("masakari-engine", *file)),
        ),
        shipped=("masakari/api-paste.ini",),
        needs=("keystone", "nova"),
        databases=("masakari",),
    )


MEMBERS: Mapping[str, Callable[[CloudHome], Member]] = {
    "keystone": keystone,
    "glance": glance,
    "placement": placement,
    "neutron": neutron,
    "cinder": cinder,
    "nova": nova,
    "heat": heat,
    "designate": designate,
    "ironic": ironic,
    "manila": manila,
    "masakari": masakari,
}
"""In the best order to start them."""


def with_needs(names: list[str], home: CloudHome) -> list[Member]:
    """Return these members and the members that they need, in MEMBERS' order."""
    selected: set[str] = set()
    queue = list(names)
    while queue:
        name = queue.pop()
        if name not in selected:
            selected.add(name)
            queue += MEMBERS[name](home).needs
    return [build(home) for name, build in MEMBERS.items() if name in selected]
