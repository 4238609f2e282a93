"""The ten services and Placement: what each needs to run here, and nothing that makes it notify.

Read by ``cloud.py``. A member's configuration is minimal; all that makes it emit is the drop-in of
``stackbus config``, which is put at the end of its file. What a service needs was learnt from the
service itself: its own ``conf/`` modules, its log, and what it refused to start without.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from stackbus.broker.node import LOOPBACK
from tests.cloud.place import Place

Sections = dict[str, dict[str, object]]
SERVE = Path(__file__).parents[2] / "src" / "stackbus" / "demo" / "serve.py"
HOST, OTHER_HOST = "host-1", "host-2"
REGION = "RegionOne"


@dataclass(frozen=True, slots=True)
class Process:
    """A process that stays. ``command``: a program of the member's environment, its arguments."""

    name: str
    command: tuple[str, ...]
    environment: Mapping[str, str] = field(default_factory=dict)
    api: bool = False


@dataclass(frozen=True, slots=True)
class Member:
    """One service of the cloud.

    ``files`` go into its configuration folder, the first is the one that gets the drop-in;
    ``shipped`` are copied there from what the package ships. ``prepare`` runs once, before its
    processes; ``finish`` once, when its API answers. ``needs`` are members that must be up before.
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


def ini(sections: Sections) -> str:
    """Write an oslo.config file."""
    lines = []
    for section, options in sections.items():
        lines += [f"[{section}]", *(f"{name} = {value}" for name, value in options.items()), ""]
    return "\n".join(lines) + "\n"


def database(place: Place, name: str) -> str:
    """Give SQLAlchemy's URL of a database."""
    port = place.port("mariadb")
    return f"mysql+pymysql://cloud:{place.password}@{LOOPBACK}:{port}/{name}?charset=utf8mb3"


def rpc(place: Place) -> str:
    """Give the transport of the services' own calls: a vhost of its own, not the inner bus."""
    return f"rabbit://cloud:{place.password}@{LOOPBACK}:{place.port('amqp')}/cloud-rpc"


def login(place: Place, user: str, **more: object) -> dict[str, object]:
    """Give keystoneauth's options for a service's own user."""
    return {
        "auth_type": "password",
        "auth_url": place.url("keystone", "/v3"),
        "username": user,
        "password": place.password,
        "project_name": "service",
        "user_domain_name": "Default",
        "project_domain_name": "Default",
        "region_name": REGION,
        **more,
    }


def base(place: Place, name: str, **default: object) -> Sections:
    """Give what nearly every service needs."""
    return {
        "DEFAULT": {
            "use_stderr": True,
            "host": HOST,
            "state_path": place.state(name),
            "transport_url": rpc(place),
            **default,
        },
        "database": {"connection": database(place, name)},
        "keystone_authtoken": login(
            place,
            name,
            www_authenticate_uri=place.url("keystone", "/v3"),
            service_token_roles="service",
            service_token_roles_required=True,
        ),
        "oslo_concurrency": {"lock_path": place.state(name) / "lock"},
    }


def without_region(options: dict[str, object]) -> dict[str, object]:
    """Leave out ``region_name``, which some sections do not know."""
    return {key: value for key, value in options.items() if key != "region_name"}


def api(place: Place, name: str, module: str, *arguments: str, **environment: str) -> Process:
    """Give a member's WSGI application as one process."""
    command = ("python", str(SERVE), str(place.port(name)), module, *arguments)
    return Process(f"{name}-api", command, environment, api=True)


def keystone(place: Place) -> Member:
    conf = base(place, "keystone")
    for option in ("host", "state_path"):
        del conf["DEFAULT"][option]
    del conf["keystone_authtoken"]
    keys = place.state("keystone")
    conf["fernet_tokens"] = {"key_repository": keys / "fernet-keys"}
    conf["fernet_receipts"] = {"key_repository": keys / "fernet-keys"}
    conf["credential"] = {"key_repository": keys / "credential-keys"}
    conf["token"] = {"expiration": 14400}
    conf["identity"] = {"password_hash_rounds": 4}
    conf["security_compliance"] = {"lockout_failure_attempts": 3, "lockout_duration": 300}
    manage = ("keystone-manage", "--config-file", str(place.etc("keystone") / "keystone.conf"))
    owner = ("--keystone-user", str(os.getuid()), "--keystone-group", str(os.getgid()))
    urls = [
        part
        for kind in ("admin", "internal", "public")
        for part in (f"--bootstrap-{kind}-url", place.url("keystone", "/v3"))
    ]
    return Member(
        "keystone",
        {"keystone.conf": ini(conf)},
        (
            (*manage, "db_sync"),
            (*manage, "fernet_setup", *owner),
            (*manage, "credential_setup", *owner),
            # Its password comes from the environment: see Cloud.
            (*manage, "bootstrap", "--bootstrap-region-id", REGION, *urls),
        ),
        (
            api(
                place,
                "keystone",
                "keystone.wsgi.api",
                OS_KEYSTONE_CONFIG_DIR=str(place.etc("keystone")),
                OS_KEYSTONE_CONFIG_FILES="keystone.conf",
            ),
        ),
        needs=(),
        databases=("keystone",),
    )


def glance(place: Place) -> Member:
    conf = base(
        place,
        "glance",
        enabled_backends="files:file",
        image_tag_quota=20,
        worker_self_reference_url=place.url("glance"),
        enabled_import_methods="[glance-direct,copy-image]",
        bind_host=LOOPBACK,
    )
    for option in ("host", "state_path"):
        del conf["DEFAULT"][option]
    state = place.state("glance")
    conf["glance_store"] = {"default_backend": "files"}
    conf["files"] = {"filesystem_store_datadir": state / "images"}
    conf["os_glance_staging_store"] = {"filesystem_store_datadir": state / "staging"}
    conf["os_glance_tasks_store"] = {"filesystem_store_datadir": state / "tasks"}
    paste = place.etc("glance") / "glance-api-paste.ini"
    conf["paste_deploy"] = {"flavor": "keystone", "config_file": paste}
    file = str(place.etc("glance") / "glance-api.conf")
    return Member(
        "glance",
        {"glance-api.conf": ini(conf)},
        (("glance-manage", "--config-file", file, "db_sync"),),
        (api(place, "glance", "glance.wsgi.api", OS_GLANCE_CONFIG_DIR=str(place.etc("glance"))),),
        shipped=("glance/glance-api-paste.ini",),
        folders=("images", "staging", "tasks"),
        databases=("glance",),
    )


def placement(place: Place) -> Member:
    conf = base(place, "placement")
    conf["placement_database"] = conf.pop("database")
    conf["DEFAULT"] = {"use_stderr": True}
    conf["api"] = {"auth_strategy": "keystone"}
    file = str(place.etc("placement") / "placement.conf")
    return Member(
        "placement",
        {"placement.conf": ini(conf)},
        (("placement-manage", "--config-file", file, "db", "sync"),),
        (
            api(
                place,
                "placement",
                "placement.wsgi.api",
                OS_PLACEMENT_CONFIG_DIR=str(place.etc("placement")),
            ),
        ),
        databases=("placement",),
        emits=False,
    )


def nova(place: Place) -> Member:
    conf = base(
        place,
        "nova",
        my_ip=LOOPBACK,
        # The driver that keeps its servers in memory; the one without "WithoutFakeNodes" refuses
        # to start a second time.
        compute_driver="fake.FakeDriverWithoutFakeNodes",
        enabled_apis="osapi_compute",
        allow_resize_to_same_host=True,
        vif_plugging_is_fatal=False,
        vif_plugging_timeout=0,
        shelved_offload_time=-1,
        running_deleted_instance_poll_interval=0,
        heal_instance_info_cache_interval=0,
    )
    conf["api_database"] = {"connection": database(place, "nova_api")}
    conf["wsgi"] = {"api_paste_config": place.etc("nova") / "api-paste.ini"}
    for section in ("glance", "placement", "neutron", "keystone"):
        conf[section] = login(place, "nova")
    conf["cinder"] = without_region(login(place, "nova"))
    conf["cinder"] |= {"catalog_info": "volumev3::publicURL", "os_region_name": REGION}
    conf["service_user"] = without_region(login(place, "nova", send_service_user_token=True))
    conf["vnc"] = {"enabled": False}
    conf["scheduler"] = {"workers": 1, "discover_hosts_in_cells_interval": 5}
    conf["conductor"] = {"workers": 1}
    file = ("--config-file", str(place.etc("nova") / "nova.conf"))
    other = ini({"DEFAULT": {"host": OTHER_HOST, "state_path": place.state("nova-2")}})
    second = ("--config-file", str(place.etc("nova") / "compute-2.conf"))
    cell0 = database(place, "nova_cell0")
    return Member(
        "nova",
        {"nova.conf": ini(conf), "compute-2.conf": other},
        (
            ("nova-manage", *file, "api_db", "sync"),
            ("nova-manage", *file, "cell_v2", "map_cell0", "--database_connection", cell0),
            ("nova-manage", *file, "db", "sync"),
            ("nova-manage", *file, "cell_v2", "create_cell", "--name", "cell1"),
        ),
        (
            api(
                place,
                "nova",
                "nova.wsgi.osapi_compute",
                OS_NOVA_CONFIG_DIR=str(place.etc("nova")),
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


def neutron(place: Place) -> Member:
    conf = base(
        place,
        "neutron",
        core_plugin="ml2",
        service_plugins="router,qos,segments,trunk,port_forwarding",
        auth_strategy="keystone",
        api_paste_config=place.etc("neutron") / "api-paste.ini",
        notify_nova_on_port_status_changes=False,
        notify_nova_on_port_data_changes=False,
        rpc_workers=1,
        rpc_state_report_workers=0,
        # The agents are reported once, by neutron_agent.py, and never again.
        agent_down_time=2_000_000,
    )
    for section in ("nova", "placement"):
        conf[section] = login(place, "neutron")
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
    path = str(place.etc("neutron") / "neutron.conf")
    file = ("--config-file", path)
    return Member(
        "neutron",
        {"neutron.conf": ini(conf)},
        (("neutron-db-manage", *file, "upgrade", "heads"),),
        (
            api(place, "neutron", "neutron.wsgi.api", *file),
            Process("neutron-rpc-server", ("neutron-rpc-server", *file)),
        ),
        shipped=("neutron/api-paste.ini",),
        finish=(
            ("python", str(Path(__file__).parent / "neutron_agent.py"), path, HOST, OTHER_HOST),
        ),
        databases=("neutron",),
    )


def cinder(place: Place) -> Member:
    conf = base(
        place,
        "cinder",
        my_ip=LOOPBACK,
        auth_strategy="keystone",
        enabled_backends="fake",
        default_volume_type="fake",
        glance_api_servers=place.url("glance"),
        api_paste_config=place.etc("cinder") / "api-paste.ini",
        resource_query_filters_file=place.etc("cinder") / "resource_filters.json",
    )
    conf["fake"] = {
        "volume_driver": "cinder.tests.fake_driver.FakeLoggingVolumeDriver",
        "volume_backend_name": "fake",
    }
    conf["service_user"] = without_region(login(place, "cinder", send_service_user_token=True))
    conf["nova"] = login(place, "cinder")
    conf["coordination"] = {"backend_url": f"file://{place.state('cinder')}"}
    file = ("--config-file", str(place.etc("cinder") / "cinder.conf"))
    return Member(
        "cinder",
        {"cinder.conf": ini(conf)},
        (("cinder-manage", *file, "db", "sync"),),
        (
            api(place, "cinder", "cinder.wsgi.api", *file),
            Process("cinder-scheduler", ("cinder-scheduler", *file)),
            Process("cinder-volume", ("cinder-volume", *file)),
        ),
        shipped=("cinder/api-paste.ini", "cinder/resource_filters.json"),
        databases=("cinder",),
    )


def heat(place: Place) -> Member:
    conf = base(
        place,
        "heat",
        stack_domain_admin="heat_domain_admin",
        stack_domain_admin_password=place.password,
        stack_user_domain_name="heat",
        num_engine_workers=1,
        auth_encryption_key="0123456789abcdef0123456789abcdef",
        heat_metadata_server_url=f"http://{LOOPBACK}:8000",
        heat_waitcondition_server_url=f"http://{LOOPBACK}:8000/v1/waitcondition",
        region_name_for_services=REGION,
    )
    trustee = without_region(login(place, "heat"))
    conf["trustee"] = {
        key: value for key, value in trustee.items() if not key.startswith("project_")
    }
    conf["clients_keystone"] = {"auth_uri": place.url("keystone")}
    conf["paste_deploy"] = {"api_paste_config": place.etc("heat") / "api-paste.ini"}
    file = ("--config-file", str(place.etc("heat") / "heat.conf"))
    return Member(
        "heat",
        {"heat.conf": ini(conf)},
        (("heat-manage", *file, "db_sync"),),
        (
            api(place, "heat", "heat.wsgi.api", *file),
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
      options: {{host: 127.0.0.1, port: {mdns}}}  # who is told of changes
"""


def designate(place: Place) -> Member:
    conf = base(place, "designate")
    conf["storage:sqlalchemy"] = conf.pop("database")
    conf["service:api"] = {
        "api_paste_config": place.etc("designate") / "api-paste.ini",
        "auth_strategy": "keystone",
        "enable_api_v2": True,
        "enable_host_header": True,
    }
    for name in ("central", "producer"):
        conf[f"service:{name}"] = {"workers": 1}
    conf["service:mdns"] = {"workers": 1, "listen": f"{LOOPBACK}:{place.port('mdns')}"}
    conf["service:worker"] = {
        "workers": 1,
        "poll_max_retries": 3,
        "poll_timeout": 3,
        "poll_delay": 1,
        "poll_retry_interval": 2,
    }
    file = ("--config-file", str(place.etc("designate") / "designate.conf"))
    pools = str(place.etc("designate") / "pools.yaml")
    return Member(
        "designate",
        {
            "designate.conf": ini(conf),
            "pools.yaml": _POOLS.format(mdns=place.port("mdns")),
        },
        (("designate-manage", *file, "database", "sync"),),
        (
            api(
                place,
                "designate",
                "designate.wsgi.api",
                OS_DESIGNATE_CONFIG_DIR=str(place.etc("designate")),
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


def ironic(place: Place) -> Member:
    conf = base(
        place,
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
        conf[section] = login(place, "ironic")
    file = ("--config-file", str(place.etc("ironic") / "ironic.conf"))
    return Member(
        "ironic",
        {"ironic.conf": ini(conf)},
        (("ironic-dbsync", *file, "upgrade"),),
        (
            api(place, "ironic", "ironic.wsgi", *file),
            Process("ironic-conductor", ("ironic-conductor", *file)),
        ),
        databases=("ironic",),
    )


def manila(place: Place) -> Member:
    conf = base(
        place,
        "manila",
        my_ip=LOOPBACK,
        auth_strategy="keystone",
        api_paste_config=place.etc("manila") / "api-paste.ini",
        rootwrap_config=place.etc("manila") / "rootwrap.conf",
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
        conf[section] = login(place, "manila")
    file = ("--config-file", str(place.etc("manila") / "manila.conf"))
    return Member(
        "manila",
        {"manila.conf": ini(conf)},
        (("manila-manage", *file, "db", "sync"),),
        (
            api(place, "manila", "manila.wsgi.api", *file),
            Process("manila-scheduler", ("manila-scheduler", *file)),
            Process("manila-share", ("manila-share", *file)),
        ),
        shipped=("manila/api-paste.ini", "manila/rootwrap.conf"),
        databases=("manila",),
    )


def masakari(place: Place) -> Member:
    conf = base(
        place,
        "masakari",
        my_ip=LOOPBACK,
        auth_strategy="keystone",
        os_privileged_user_name="masakari",
        os_privileged_user_password=place.password,
        os_privileged_user_tenant="service",
        os_privileged_user_auth_url=place.url("keystone", "/v3"),
        os_user_domain_name="Default",
        os_project_domain_name="Default",
        nova_catalog_admin_info="compute:nova:publicURL",
        wait_period_after_service_update=5,
        wait_period_after_evacuation=60,
        process_unfinished_notifications_interval=30,
        retry_notification_new_status_interval=20,
    )
    conf["wsgi"] = {"api_paste_config": place.etc("masakari") / "api-paste.ini"}
    conf["taskflow"] = {"connection": database(place, "masakari")}
    file = ("--config-file", str(place.etc("masakari") / "masakari.conf"))
    return Member(
        "masakari",
        {"masakari.conf": ini(conf)},
        (("masakari-manage", *file, "db", "sync"),),
        (
            api(
                place,
                "masakari",
                "masakari.wsgi.api",
                # It reads its configuration twice: from the folder, then from its arguments.
                *file,
                OS_MASAKARI_CONFIG_DIR=str(place.etc("masakari")),
            ),
            Process("masakari-engine", ("masakari-engine", *file)),
        ),
        shipped=("masakari/api-paste.ini",),
        needs=("keystone", "nova"),
        databases=("masakari",),
    )


MEMBERS: Mapping[str, Callable[[Place], Member]] = {
    one.__name__: one
    for one in (
        keystone,
        glance,
        placement,
        neutron,
        cinder,
        nova,
        heat,
        designate,
        ironic,
        manila,
        masakari,
    )
}
"""In the order in which they are best started."""


def with_needs(names: list[str], place: Place) -> list[Member]:
    """Give these members and all that they need, in MEMBERS' order."""
    wanted: set[str] = set()
    open_ = list(names)
    while open_:
        name = open_.pop()
        if name not in wanted:
            wanted.add(name)
            open_ += MEMBERS[name](place).needs
    return [make(place) for name, make in MEMBERS.items() if name in wanted]
