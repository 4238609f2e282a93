"""CADF records of HTTP requests, as keystonemiddleware's audit filter publishes them. Pure.

``normalise.py`` reads the event types ``audit.http.request`` and ``audit.http.response`` with this
file. Any service's API can run the filter. The event type does not name the service; the target's
type URI does (``service/compute/servers/server``; keystonemiddleware/audit/_api.py).
"""

from __future__ import annotations

from stackbus.services import BY_NAME
from stackbus.services.service import Payload, Resource, as_text, get_nested, pick_values

EVENT_TYPE_PREFIX = "audit.http."
_REASON = {"reasonCode": "status", "reasonType": "reason_type"}
_RESPONSE = {"requestPath": "request_path", "id": "cadf_id"}
_NO_ID = "n/a"
_WORDS_BEFORE_RESOURCE = 2  # service/<service type>


def read_service(payload: Payload) -> str:
    """Read the name of the service whose API was called; "" if it is not one of the ten."""
    words = _split_target(payload)
    service = BY_NAME.get(words[1]) if len(words) > 1 else None
    service = service or BY_NAME.get(as_text(get_nested(payload, "target", "name")))
    return service.name if service else ""


def read_resource_type(payload: Payload) -> str:
    """Read the last word of the target's URI, in the singular; "" if it names only a service."""
    words = _split_target(payload)
    plural = words[-1] if len(words) > _WORDS_BEFORE_RESOURCE else ""
    if plural in {"detail", "action"}:
        plural = words[-2]
    return plural[:-3] + "y" if plural.endswith("ies") else plural.removesuffix("s")


def read_action(payload: Payload) -> str:
    """Read the first word of CADF's action (``create``, ``read/list``, ``update/os-start``)."""
    return as_text(payload.get("action")).partition("/")[0]


def read_resource(payload: Payload) -> Resource:
    """Read the target's id, and the request's path and status as attributes."""
    identifier = as_text(get_nested(payload, "target", "id"))
    attributes = pick_values(payload.get("reason"), _REASON)
    for key, name in _RESPONSE.items():
        if value := as_text(payload.get(key)):
            attributes[name] = value
    if identifier in {_NO_ID, read_service(payload)}:
        identifier = ""
    return Resource(id=identifier, attributes=attributes)


def _split_target(payload: Payload) -> list[str]:
    return as_text(get_nested(payload, "target", "typeURI")).split("/")
