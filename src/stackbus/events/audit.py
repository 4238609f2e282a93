"""What keystonemiddleware's audit filter tells: CADF ``audit.http.request`` and ``.response``.

Pure. Called by ``normalise.py`` for the event types that begin with ``audit.http``. Any service's
API can run the filter; which one it was stands in the target's type URI
(``service/compute/servers/server``; keystonemiddleware/audit/_api.py), not in the event type.
"""

from __future__ import annotations

from stackbus.services import BY_NAME
from stackbus.services.service import Payload, Resource, inside, picked, text

TYPE = "audit.http."
_REASON = {"reasonCode": "status", "reasonType": "reason_type"}


def service(payload: Payload) -> str:
    """Tell which service's API was called; empty if it is none of the ten."""
    words = _target(payload)
    found = BY_NAME.get(words[1]) if len(words) > 1 else None
    found = found or BY_NAME.get(text(inside(payload, "target", "name")) or "")
    return found.name if found else ""


def resource_type(payload: Payload) -> str:
    """Read the kind of resource: the URI's last word in the singular; empty for a bare service."""
    words = _target(payload)
    last = words[-1] if len(words) > 2 else ""  # noqa: PLR2004 -- service/<type>/<kind>
    if last in {"detail", "action"}:
        last = words[-2]
    return last[:-3] + "y" if last.endswith("ies") else last.removesuffix("s")


def action(payload: Payload) -> str:
    """Read the action: CADF's ``create``, ``read/list``, ``update/os-start``: its first word."""
    return (text(payload.get("action")) or "").partition("/")[0]


def read(payload: Payload) -> Resource:
    """Read the target: its id (``n/a`` says nothing), its address among the attributes."""
    identifier = text(inside(payload, "target", "id")) or ""
    attributes = picked(payload.get("reason"), _REASON)
    for name, told in (
        ("request_path", payload.get("requestPath")),
        ("cadf_id", payload.get("id")),
    ):
        if value := text(told):
            attributes[name] = value
    return Resource(
        "" if identifier in {"n/a", service(payload)} else identifier, attributes=attributes
    )


def _target(payload: Payload) -> list[str]:
    return (text(inside(payload, "target", "typeURI")) or "").split("/")
