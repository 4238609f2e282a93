"""Keystone's catalogue of the test cloud: the services' users, roles and endpoints.

``cloud.py`` creates it as soon as Keystone answers.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import openstack

from stackbus.demo.recipes import REGION
from tests.cloud.home import CloudHome

_ENDPOINTS = {
    "glance": ("image", ""),
    "placement": ("placement", ""),
    "nova": ("compute", "/v2.1"),
    "cinder": ("block-storage", "/v3/%(project_id)s"),
    "neutron": ("network", ""),
    "heat": ("orchestration", "/v1/%(project_id)s"),
    "designate": ("dns", ""),
    "ironic": ("baremetal", ""),
    "manila": ("shared-file-system", "/v2"),
    "masakari": ("instance-ha", "/v1/%(project_id)s"),
}


def connect(home: CloudHome, user: str, password: str, **scope: Any) -> Any:
    """Return a connection of openstacksdk, which logs in at its first call.

    Any: the SDK's types include versions of APIs that nobody runs any more.
    """
    return openstack.connect(
        auth_url=home.url("keystone", "/v3"),
        username=user,
        password=password,
        user_domain_name="Default",
        region_name=REGION,
        load_yaml_config=False,
        load_envvars=False,
        compute_api_version="2.1",
        **({"project_domain_name": "Default", **scope} if "project_name" in scope else scope),
    )


def create(home: CloudHome) -> None:
    """Create everything that is missing."""
    mark = home.state("keystone") / "catalogue.done"
    if mark.exists():
        return
    identity = connect(home, "admin", home.password, project_name="admin").identity
    project = identity.find_project("service") or identity.create_project(
        name="service", domain_id="default"
    )
    roles = {role.name: role for role in identity.roles()}
    for name in ("service", "heat_stack_owner", "heat_stack_user"):
        if name not in roles:
            roles[name] = identity.create_role(name=name)

    def create_service(name: str) -> None:
        kind, path = _ENDPOINTS[name]
        if not identity.find_user(name):
            user = identity.create_user(name=name, password=home.password, domain_id="default")
            for role in ("admin", "service"):
                identity.assign_project_role_to_user(project, user, roles[role])
        # Nova and Heat still ask for Cinder by its old type.
        for service_type in (kind, "volumev3") if name == "cinder" else (kind,):
            service = next(iter(identity.services(type=service_type)), None)
            service = service or identity.create_service(name=name, type=service_type)
            if not list(identity.endpoints(service_id=service.id)):
                identity.create_endpoint(
                    service_id=service.id,
                    interface="public",
                    url=home.url(name, path),
                    region_id=REGION,
                )

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(create_service, _ENDPOINTS))
    domain = identity.find_domain("heat") or identity.create_domain(name="heat")
    admin = identity.find_user("heat_domain_admin", domain_id=domain.id) or identity.create_user(
        name="heat_domain_admin", password=home.password, domain_id=domain.id
    )
    identity.assign_domain_role_to_user(domain, admin, roles["admin"])
    mark.touch()
