"""Keystone, identity: users, projects, roles, logins and the rest of its API.

- Publishes CADF records (``notification_format = cadf``), or plain JSON objects (``basic``), under
  ``notifications`` on exchange ``keystone``. Its context is empty: the actor is CADF's initiator.
- Needs ``notification_opt_out``: its default hides logins.
- Payload: ``resource_info`` is the id of the resource (keystone/notifications.py).
"""

from __future__ import annotations

from stackbus.services.service import (
    Option,
    Payload,
    Resource,
    Service,
    as_text,
    get_nested,
    pick_values,
)


def read_project_id(event_type: str, payload: Payload) -> str:
    """Read a project's own id, or the project of a role assignment.

    Users, roles and logins belong to a domain or to nobody: "".
    """
    if event_type.startswith("identity.project."):
        return as_text(payload.get("resource_info"))
    return as_text(payload.get("project"))


def read_resource_id(event_type: str, payload: Payload) -> str:
    """Read ``resource_info``; the role of an assignment, the user of a login."""
    if event_type.startswith("identity.role_assignment."):
        return as_text(payload.get("role"))
    if event_type == "identity.authenticate":
        return as_text(get_nested(payload, "initiator", "user_id"))
    return as_text(payload.get("resource_info"))


_ATTRIBUTES = {
    "project": "project_id",
    "domain": "domain_id",
    "user": "user_id",
    "group": "group_id",
    "role": "role_id",
    "inherited_to_projects": "inherited_to_projects",
}
_REASON = {"reasonType": "reason", "reasonCode": "reason_code"}


def read_resources(event_type: str, payload: Payload) -> list[Resource]:
    """Read the resource; the attributes of an assignment name user or group, and project."""
    name = ""
    if event_type == "identity.authenticate":
        name = as_text(get_nested(payload, "initiator", "name"))
    return [
        Resource(
            id=read_resource_id(event_type, payload),
            name=name,
            project_id=read_project_id(event_type, payload),
            attributes={
                **pick_values(payload, _ATTRIBUTES),
                **pick_values(payload.get("reason"), _REASON),
            },
        )
    ]


KEYSTONE = Service(
    name="keystone",
    type="identity",
    exchange="keystone",
    event_types=("identity",),
    read_project_id=read_project_id,
    read_resource_id=read_resource_id,
    read_resources=read_resources,
    resource_types={
        "identity.user": "user",
        "identity.group": "group",
        "identity.project": "project",
        "identity.domain": "domain",
        "identity.role": "role",
        "identity.role_assignment": "role_assignment",
        "identity.region": "region",
        "identity.service": "service",
        "identity.endpoint": "endpoint",
        "identity.policy": "policy",
        "identity.credential": "credential",
        "identity.application_credential": "application_credential",
        "identity.access_rule": "access_rule",
        "identity.registered_limit": "registered_limit",
        "identity.limit": "limit",
        "identity.OS-TRUST:trust": "trust",
        "identity.OS-FEDERATION:identity_provider": "identity_provider",
        "identity.OS-FEDERATION:mapping": "mapping",
        "identity.OS-FEDERATION:protocol": "federation_protocol",
        "identity.OS-FEDERATION:service_provider": "service_provider",
        "identity.authenticate": "user",
    },
    actions={"": "login"},
    options=(
        Option(
            "DEFAULT",
            "notification_format",
            "cadf",
            "include the actor and its address, which the basic format omits",
        ),
        Option(
            "DEFAULT",
            "notification_opt_out",
            "identity.stackbus.none",
            "include logins, which the default hides; only a value replaces the default, "
            "here one that matches no event",
        ),
    ),
)
