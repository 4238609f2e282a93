"""Keystone, identity: CADF or basic dicts on exchange ``keystone``; the context is empty."""

from __future__ import annotations

from stackbus.services.service import (
    Option,
    Payload,
    Resource,
    Service,
    inside,
    picked,
    text,
)


def project(event_type: str, payload: Payload) -> str | None:
    """Read the project that a notification is about (keystone/notifications.py).

    A role assignment names it; a project's own events name it as their resource, in both
    formats. Users, roles, logins and the rest belong to a domain or to nobody.
    """
    if event_type.startswith("identity.project."):
        return text(payload.get("resource_info"))
    return text(payload.get("project"))


def resource(event_type: str, payload: Payload) -> str | None:
    """Read the id: ``resource_info``; a role's for an assignment, the user's for a login."""
    if event_type.startswith("identity.role_assignment."):
        return text(payload.get("role"))
    if event_type == "identity.authenticate":
        return text(inside(payload, "initiator", "user_id"))
    return text(payload.get("resource_info"))


_ATTRIBUTES = {
    "project": "project_id",
    "domain": "domain_id",
    "user": "user_id",
    "group": "group_id",
    "role": "role_id",
    "inherited_to_projects": "inherited_to_projects",
}
_REASON = {"reasonType": "reason", "reasonCode": "reason_code"}


def read(event_type: str, payload: Payload) -> list[Resource]:
    """Read the resource; of a login the user, of an assignment the role and who has it where."""
    name = ""
    if event_type == "identity.authenticate":
        name = text(inside(payload, "initiator", "name")) or ""
    return [
        Resource(
            resource(event_type, payload) or "",
            name,
            project(event_type, payload) or "",
            {**picked(payload, _ATTRIBUTES), **picked(payload.get("reason"), _REASON)},
        )
    ]


KEYSTONE = Service(
    name="keystone",
    type="identity",
    exchange="keystone",
    event_types=("identity",),
    project=project,
    resource=resource,
    read=read,
    resources={
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
            "DEFAULT", "notification_format", "cadf", "say who did it, from where; basic does not"
        ),
        Option(
            "DEFAULT",
            "notification_opt_out",
            "identity.stackbus.none",
            "tell of logins too: the default hides them, and only a value, "
            "here one that matches nothing, replaces the default",
        ),
    ),
)
