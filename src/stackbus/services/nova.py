"""Nova, compute: legacy dicts and ``nova_object.*`` versioned objects on exchange ``nova``."""

from __future__ import annotations

from stackbus.services.service import Option, Payload, Service, inside, text


def project(event_type: str, payload: Payload) -> str | None:
    """Read the owner's project.

    Versioned: ``tenant_id`` or ``project_id`` in ``nova_object.data`` (nova/notifications/objects).
    Legacy: ``payload.tenant_id``; scheduler and conductor events carry it in their request spec.
    """
    del event_type
    data = payload.get("nova_object.data", payload)
    properties = inside(data, "request_spec", "instance_properties")
    return (
        text(inside(data, "tenant_id"))
        or text(inside(data, "project_id"))
        or text(inside(data, "request_spec", "nova_object.data", "project_id"))
        or text(inside(properties, "project_id"))
        or text(inside(data, "instance_properties", "project_id"))
    )


def resource(event_type: str, payload: Payload) -> str | None:
    """Read the id of what the notification is about: a server's, or that of what is named.

    A key pair has no id of its own, its name is one within its user's; a flavor's may be any text.
    """
    data = payload.get("nova_object.data", payload)
    if event_type.startswith("keypair."):
        return text(inside(data, "name")) or text(inside(data, "key_name"))
    for name in ("instance_id", "instance_uuid", "uuid", "flavorid", "server_group_id"):
        if found := text(inside(data, name)):
            return found
    number = inside(data, "aggregate_id")
    return str(number) if isinstance(number, int) else text(number)


NOVA = Service(
    name="nova",
    type="compute",
    exchange="nova",
    event_types=(
        "compute",
        "compute_task",
        "instance",
        "aggregate",
        "flavor",
        "keypair",
        "libvirt",
        "metrics",
        "scheduler.select_destinations",
        "server_group",
        "servergroup",
        "service",
        "volume.usage",
    ),
    project=project,
    resource=resource,
    options=(
        Option(
            "DEFAULT",
            "instance_usage_audit",
            "true",
            "emit instance.exists for every server, which billing needs",
        ),
        Option(
            "DEFAULT", "instance_usage_audit_period", "hour", "once an hour instead of once a month"
        ),
        Option(
            "notifications",
            "notify_on_state_change",
            "vm_and_task_state",
            "emit instance.update at each change of state; the default emits none",
        ),
        Option(
            "notifications",
            "versioned_notifications_topics",
            "versioned_notifications",
            "the topic that stackbus binds",
        ),
    ),
)
