"""The vocabulary of phases, outcomes and actions that all services share. Pure values.

``normalise.py`` translates event types with it; ``docs/reference/history.md`` is generated from it.
A service's own words are translated in its file (``services/<service>.py``). A word that neither
knows stays as it is.
"""

from __future__ import annotations

PHASES = {
    "start": "start",
    "end": "end",
    "error": "error",
    "success": "end",  # ironic, glance's tasks
    "fail": "error",  # ironic
    "failure": "error",  # glance's tasks
}
"""Phase of an action by the last word of its event type."""

NO_PHASE = "none"
"""Phase of an action that is published in one notification."""

OUTCOMES = ("success", "failure", "unknown")
"""Outcomes of an action; that of a start is not known yet."""

EXISTS = "exists"
"""Action of periodic reports."""

ACTIONS = {
    "create": "the resource was created",
    "update": "the resource was changed",
    "delete": "the resource was deleted",
    "disable": "the resource was disabled",
    EXISTS: "a periodic report: the resource existed, and nobody did anything. Includes the "
    "creations and deletions that Cinder's usage audit sends again",
    "login": "a user authenticated, or tried to",
    "resize": "a server's flavor was changed; `resize_prep`, `resize_finish`, `resize_confirm` "
    "and `resize_revert` are its steps",
    "extend": "a volume or a share was made larger",
    "shrink": "a share was made smaller",
    "migrate": "a server, a volume or a share was moved to another host",
    "schedule": "the scheduler looked for a host",
    "attach": "a volume was attached to a server (event of the volume)",
    "detach": "a volume was detached from a server (event of the volume)",
    "attach_volume": "a volume was attached to a server (event of the server)",
    "detach_volume": "a volume was detached from a server (event of the server)",
    "attach_interface": "a port was attached to a server",
    "detach_interface": "a port was detached from a server",
    "add_interface": "a subnet was connected to a router",
    "remove_interface": "a subnet was disconnected from a router",
    "add_host": "a host was added to an aggregate",
    "remove_host": "a host was removed from an aggregate",
    "add_member": "a server was added to a server group, or an image was shared with a project",
    "update_member": "a project accepted or rejected a shared image",
    "remove_member": "an image is no longer shared with a project",
    "add_access": "a project was given access to a volume type",
    "remove_access": "a project's access to a volume type was removed",
    "update_metadata": "the metadata of an aggregate was changed",
    "power_on": "a server was started",
    "power_off": "a server was stopped",
    "reboot": "a server was rebooted",
    "rebuild": "a server was rebuilt from an image",
    "set_power": "a node was powered on or off",
    "set_provision_state": "a node's provision state was changed",
    "set_maintenance": "a node was put into maintenance, or taken out of it",
    "set_console": "a node's console was enabled or disabled",
    "upload": "the data of an image was uploaded",
    "activate": "an image became active",
    "download": "the data of an image was downloaded",
    "process": "the failure of a host or a server was handled",
    "list": "somebody read the resource (only keystonemiddleware's audit filter reports reads)",
}
"""Meaning by action. Other actions mean what their service's documentation says."""

SYNONYMS = {
    "created": "create",
    "updated": "update",
    "deleted": "delete",
    "disabled": "disable",
    "read": "list",
}
"""The action by another word that services use for it."""
