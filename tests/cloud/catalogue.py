"""Keystone's content that the services need: their users, roles, services and endpoints.

Called once by ``cloud.py``, when Keystone answers; a second call changes nothing.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import openstack

from tests.cloud.members import REGION
from tests.cloud.place import Place

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


def connect(place: Place, user: str, password: str, **scope: Any) -> Any:
    """Give a connection of the SDK; it logs in at its first call.

    Any: the SDK's own types allow for versions of APIs that nobody runs any more.
    """
    return openstack.connect(
        auth_url=place.url("keystone", "/v3"),
        username=user,
        password=password,
        user_domain_name="Default",
        region_name=REGION,
        load_yaml_config=False,
        load_envvars=False,
        compute_api_version="2.1",
        **({"project_domain_name": "Default", **scope} if "project_name" in scope else scope),
    )


def make(place: Place) -> None:
    """Make what is not there."""
    done = place.state("keystone") / "catalogue.done"
    if done.exists():
        return
    identity = connect(place, "admin", place.password, project_name="admin").identity
    project = identity.find_project("service") or identity.create_project(
        name="service", domain_id="default"
    )
    roles = {role.name: role for role in identity.roles()}
    for name in ("service", "heat_stack_owner", "heat_stack_user"):
        if name not in roles:
            roles[name] = identity.create_role(name=name)

    def one(name: str) -> None:
        kind, path = _ENDPOINTS[name]
        if not identity.find_user(name):
            user = identity.create_user(name=name, password=place.password, domain_id="default")
            for role in ("admin", "service"):
                identity.assign_project_role_to_user(project, user, roles[role])
        # Nova and Heat still ask for Cinder by its old type.
        for called in (kind, "volumev3") if name == "cinder" else (kind,):
            service = next(iter(identity.services(type=called)), None)
            service = service or identity.create_service(name=name, type=called)
            if not list(identity.endpoints(service_id=service.id)):
                identity.create_endpoint(
                    service_id=service.id,
                    interface="public",
                    url=place.url(name, path),
                    region_id=REGION,
                )

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(one, _ENDPOINTS))
    domain = identity.find_domain("heat") or identity.create_domain(name="heat")
    admin = identity.find_user("heat_domain_admin", domain_id=domain.id) or identity.create_user(
        name="heat_domain_admin", password=place.password, domain_id=domain.id
    )
    identity.assign_domain_role_to_user(domain, admin, roles["admin"])
    done.touch()
