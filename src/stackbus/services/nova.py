"""Nova, compute: servers, aggregates, flavors, key pairs and server groups.

- Publishes on exchange ``nova`` in two formats: legacy JSON objects under ``notifications``, and
  versioned objects (``nova_object.*``, nova/notifications/objects) under
  ``versioned_notifications``. Some event types exist in one format only.
- Needs ``notification_format`` (the drop-in sets it), and the options below for states and for the
  hourly ``instance.exists``.
- Payload: versioned, ``uuid`` and ``tenant_id`` in ``nova_object.data``;
  legacy, ``instance_id`` and ``tenant_id``. Scheduler and conductor carry the whole request.
"""

from __future__ import annotations

from stackbus.services.service import (
    AUDIT_PERIOD,
    Option,
    Payload,
    Resource,
    Service,
    as_text,
    get_nested,
    pick_values,
)


def read_project_id(event_type: str, payload: Payload) -> str:
    """Read ``tenant_id`` or ``project_id``, in scheduler and conductor events from the request."""
    del event_type
    data = payload.get("nova_object.data", payload)
    properties = get_nested(data, "request_spec", "instance_properties")
    return (
        as_text(get_nested(data, "tenant_id"))
        or as_text(get_nested(data, "project_id"))
        or as_text(get_nested(data, "request_spec", "nova_object.data", "project_id"))
        or as_text(get_nested(properties, "project_id"))
        or as_text(get_nested(data, "instance_properties", "project_id"))
    )


def read_resource_id(event_type: str, payload: Payload) -> str:
    """Read the id of the server, or of the resource that the event type names.

    A key pair is identified by its name, unique within its user. An aggregate is identified by its
    number, as in Nova's API: only the versioned format has its UUID too. A flavor's id is any text.
    """
    data = payload.get("nova_object.data", payload)
    if event_type.startswith("keypair."):
        return as_text(get_nested(data, "name")) or as_text(get_nested(data, "key_name"))
    if event_type.startswith("aggregate."):
        number = get_nested(data, "aggregate_id") or get_nested(data, "id")
        return str(number) if isinstance(number, int) else as_text(number)
    for name in ("instance_id", "instance_uuid", "uuid", "flavorid", "server_group_id"):
        if identifier := as_text(get_nested(data, name)):
            return identifier
    return ""


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
_FLAVOR = {
    "vcpus": "vcpus",
    "memory_mb": "memory_mb",
    "root_gb": "root_gb",
    "ephemeral_gb": "ephemeral_gb",
    "swap": "swap_mb",
    "name": "flavor",
    "flavorid": "flavor_id",
}
# In a server's events, host_name is the guest's own name, not the host that it runs on.
_SERVER_ATTRIBUTES = {key: name for key, name in _ATTRIBUTES.items() if key != "host_name"}
_SERVER_EVENT_TYPES = ("compute.instance", "instance", "scheduler", "compute_task")


def read_resources(event_type: str, payload: Payload) -> list[Resource]:
    """Read the resource from a legacy payload, a versioned object, or a scheduler's request."""
    data = payload.get(_OBJECT, payload)
    if not isinstance(data, dict):
        return [Resource()]
    is_server = event_type.startswith(_SERVER_EVENT_TYPES)
    request = data if "num_instances" in data else data.get("request_spec")
    request = get_nested(request, _OBJECT) or request
    attributes = _read_request(request)
    attributes |= pick_values(get_nested(data, "flavor", _OBJECT), _FLAVOR)
    attributes |= pick_values(data, _SERVER_ATTRIBUTES if is_server else _ATTRIBUTES)
    attributes |= pick_values(get_nested(data, "state_update", _OBJECT), _SERVER_ATTRIBUTES)
    if event_type.startswith("aggregate."):
        attributes |= pick_values(data, {"uuid": "uuid"})
    attributes |= pick_values(get_nested(data, "audit_period", _OBJECT), AUDIT_PERIOD)
    root, ephemeral = attributes.get("root_gb"), attributes.get("ephemeral_gb")
    if isinstance(root, int) and isinstance(ephemeral, int):
        attributes["disk_gb"] = root + ephemeral
    if is_server and (image := as_text(data.get("image_ref_url"))):
        attributes["image_id"] = image.rpartition("/")[2]
    if reason := _read_reason(data):
        attributes["reason"] = reason
    return [
        Resource(
            id=read_resource_id(event_type, payload)
            or as_text(get_nested(request, "instance_uuid"))
            or as_text(get_nested(request, "instance_properties", "uuid")),
            name=as_text(data.get("display_name"))
            or as_text(data.get("name"))
            or as_text(data.get("key_name")),
            project_id=read_project_id(event_type, payload),
            attributes=attributes,
        )
    ]


def _read_request(request: object) -> dict[str, str | int | float | bool]:
    """Read flavor and image of a request to the scheduler, a legacy or a versioned one."""
    flavor = get_nested(request, "instance_type") or get_nested(request, "flavor", _OBJECT)
    image_id = as_text(get_nested(request, "image", "id")) or as_text(
        get_nested(request, "image", _OBJECT, "id")
    )
    attributes = pick_values(flavor, _FLAVOR)
    if image_id:
        attributes["image_id"] = image_id
    return attributes


def _read_reason(data: Payload) -> str:
    """Read why an action failed: a versioned fault's message, a legacy reason or message."""
    for name in ("fault", "reason"):
        message = get_nested(data, name, _OBJECT, "exception_message") or data.get(name)
        if reason := as_text(message):
            return reason
    return as_text(data.get("message")) if "exception" in data else ""


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
    read_project_id=read_project_id,
    read_resource_id=read_resource_id,
    read_resources=read_resources,
    resource_types={
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
        # From the legacy names to those of the versioned format (nova/notifications/objects).
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
            "the notification topic that stackbus binds",
        ),
    ),
)
