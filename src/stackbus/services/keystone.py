"""Keystone, identity: CADF or basic dicts on exchange ``keystone``; the context is empty."""

from __future__ import annotations

from stackbus.services.service import Option, Payload, Service, text


def project(event_type: str, payload: Payload) -> str | None:
    """Read the project that a notification is about (keystone/notifications.py).

    A role assignment names it; a project's own events name it as their resource, in both
    formats. Users, roles, logins and the rest belong to a domain or to nobody.
    """
    if event_type.startswith("identity.project."):
        return text(payload.get("resource_info"))
    return text(payload.get("project"))


KEYSTONE = Service(
    name="keystone",
    type="identity",
    exchange="keystone",
    event_types=("identity",),
    project=project,
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
