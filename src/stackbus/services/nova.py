"""Nova, compute: legacy dicts and ``nova_object.*`` versioned objects on exchange ``nova``."""

from __future__ import annotations

from stackbus.services.service import (
    AUDIT_PERIOD,
    Option,
    Payload,
    Resource,
    Service,
    inside,
    picked,
    text,
)


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
    An aggregate's is its number, as in Nova's API: only the versioned format knows its UUID too.
    """
    data = payload.get("nova_object.data", payload)
    if event_type.startswith("keypair."):
        return text(inside(data, "name")) or text(inside(data, "key_name"))
    if event_type.startswith("aggregate."):
        number = inside(data, "aggregate_id") or inside(data, "id")
        return str(number) if isinstance(number, int) else text(number)
    for name in ("instance_id", "instance_uuid", "uuid", "flavorid", "server_group_id"):
        if found := text(inside(data, name)):
            return found
    return None


_OBJECT = "nova_object.data"
_ATTRIBUTES = {
    "vcpus": "vcpus",
    "memory_mb": "memory_mb",
    "disk_gb": "disk_gb",
    "root_gb": "root_gb",
    "ephemeral_gb": "ephemeral_gb",
    "swap": "swap_mb",
    "instance_type": "flavor",
    "instance_flavor_id": "flavor_id",
    "image_uuid": "image_id",
    "state": "state",
    "state_description": "task_state",
    "task_state": "task_state",
    "new_task_state": "task_state",
    "old_state": "old_state",
    "power_state": "power_state",
    "availability_zone": "availability_zone",
    "host": "host",
    "node": "node",
    "host_name": "host",
    "volume_id": "volume_id",
    "binary": "binary",
    "disabled": "disabled",
    "forced_down": "forced_down",
    "disabled_reason": "reason",
    "policy": "policy",
    "old_display_name": "old_name",
    **AUDIT_PERIOD,
}
_SERVER_ALONE = {"host_name"}  # there it is the guest's own name, not where it runs
_FLAVOR = {
    "vcpus": "vcpus",
    "memory_mb": "memory_mb",
    "root_gb": "root_gb",
    "ephemeral_gb": "ephemeral_gb",
    "swap": "swap_mb",
    "name": "flavor",
    "flavorid": "flavor_id",
}
_OF_A_SERVER = {k: v for k, v in _ATTRIBUTES.items() if k not in _SERVER_ALONE}
_ABOUT_A_SERVER = ("compute.instance", "instance", "scheduler", "compute_task")


def read(event_type: str, payload: Payload) -> list[Resource]:
    """Read the resource, in Nova's three shapes: legacy, versioned, and a request's."""
    data = payload.get(_OBJECT, payload)
    if not isinstance(data, dict):
        return [Resource()]
    server = event_type.startswith(_ABOUT_A_SERVER)
    request = data if "num_instances" in data else data.get("request_spec")
    request = inside(request, _OBJECT) or request
    attributes = _request(request)
    attributes |= picked(inside(data, "flavor", _OBJECT), _FLAVOR)
    attributes |= picked(data, _OF_A_SERVER if server else _ATTRIBUTES)
    attributes |= picked(inside(data, "state_update", _OBJECT), _OF_A_SERVER)
    if event_type.startswith("aggregate."):
        attributes |= picked(data, {"uuid": "uuid"})
    attributes |= picked(inside(data, "audit_period", _OBJECT), AUDIT_PERIOD)
    root, ephemeral = attributes.get("root_gb"), attributes.get("ephemeral_gb")
    if isinstance(root, int) and isinstance(ephemeral, int):
        attributes["disk_gb"] = root + ephemeral
    if server and (image := text(data.get("image_ref_url"))):
        attributes["image_id"] = image.rpartition("/")[2]
    if reason := _reason(data):
        attributes["reason"] = reason
    return [
        Resource(
            resource(event_type, payload)
            or text(inside(request, "instance_uuid"))
            or text(inside(request, "instance_properties", "uuid"))
            or "",
            text(data.get("display_name"))
            or text(data.get("name"))
            or text(data.get("key_name"))
            or "",
            project(event_type, payload) or "",
            attributes,
        )
    ]


def _request(request: object) -> dict[str, str | int | float | bool]:
    """Read what was asked of the scheduler: legacy dict or versioned object."""
    flavor = inside(request, "instance_type") or inside(request, "flavor", _OBJECT)
    image = text(inside(request, "image", "id")) or text(inside(request, "image", _OBJECT, "id"))
    return {**picked(flavor, _FLAVOR), **({"image_id": image} if image else {})}


def _reason(data: Payload) -> str:
    """Read why it failed: a versioned fault's message, a legacy message or exception."""
    for name in ("fault", "reason"):
        told = inside(data, name, _OBJECT, "exception_message") or data.get(name)
        if found := text(told):
            return found
    return (text(data.get("message")) or "") if "exception" in data else ""


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
    read=read,
    resources={
        "compute.instance": "server",
        "compute_task": "server",
        "instance": "server",
        "scheduler": "server",
        "aggregate": "aggregate",
        "flavor": "flavor",
        "keypair": "keypair",
        "server_group": "server_group",
        "servergroup": "server_group",
        "service": "service",
        "volume": "volume",
    },
    actions={
        # Legacy names become those of the versioned format (nova/notifications/objects).
        "addhost": "add_host",
        "removehost": "remove_host",
        "updatemetadata": "update_metadata",
        "updateprop": "update",
        "update_prop": "update",
        "addmember": "add_member",
        "finish_resize": "resize_finish",
        "live_migration__post": "live_migration_post",
        "volume_attach": "attach_volume",
        "volume_detach": "detach_volume",
        "volume_swap": "swap_volume",
        "interface_attach": "attach_interface",
        "interface_detach": "detach_interface",
        "select_destinations": "schedule",
        "build_instances": "create",
        "rebuild_server": "rebuild",
        "migrate_server": "migrate",
    },
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
