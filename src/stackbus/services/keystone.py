"""Keystone, identity: CADF or basic dicts on exchange ``keystone``; the context is empty."""

from __future__ import annotations

from stackbus.services.service import Option, Payload, Service, inside, text


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


KEYSTONE = Service(
    name="keystone",
    type="identity",
    exchange="keystone",
    event_types=("identity",),
    project=project,
    resource=resource,
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
