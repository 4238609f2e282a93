"""The one vocabulary of actions, for all services. Pure values.

Read by ``normalise.py``; ``docs/reference/events.md`` is generated from it. A service's own words
are translated in its file; what is in neither stays the service's word.
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
"""What the last word of an event type says of the action, if it is one of these."""

NO_PHASE = "none"
"""The phase of what is told in one notification."""

OUTCOMES = ("success", "failure", "unknown")
"""How it went; of a start nobody knows yet."""

EXISTS = "exists"
"""The action of periodic reports."""

ACTIONS = {
    "create": "it came to be",
    "update": "something about it was changed",
    "delete": "it was taken away",
    "disable": "it may no longer be used",
    EXISTS: "what was there at that time: a periodic report, nobody did anything. So is what "
    "Cinder's usage audit sends again under the names of creations and removals",
    "login": "a user authenticated, or tried to",
    "resize": "a server was given another flavor; `resize_prep`, `resize_finish`, "
    "`resize_confirm` and `resize_revert` are steps of it",
    "extend": "a volume or a share was made larger",
    "shrink": "a share was made smaller",
    "migrate": "it was moved to another host",
    "schedule": "a place was sought for it",
    "attach": "a volume was attached to a server",
    "detach": "a volume was detached from its server",
    "attach_volume": "a server was given a volume",
    "detach_volume": "a volume was taken from a server",
    "attach_interface": "a server was given a port",
    "detach_interface": "a port was taken from a server",
    "add_interface": "a router was connected to a subnet",
    "remove_interface": "a router was disconnected from a subnet",
    "add_host": "a host joined an aggregate",
    "remove_host": "a host left an aggregate",
    "add_member": "a member joined a server group, or a project was given an image",
    "update_member": "a project accepted or refused an image",
    "remove_member": "an image was taken back from a project",
    "add_access": "a project was given the use of a volume type",
    "remove_access": "a project lost the use of a volume type",
    "update_metadata": "an aggregate's metadata was changed",
    "power_on": "a server was started",
    "power_off": "a server was stopped",
    "reboot": "a server was rebooted",
    "rebuild": "a server was made anew from an image",
    "set_power": "a node was switched on or off",
    "set_provision_state": "a node was moved through its life",
    "set_maintenance": "a node was put into or out of maintenance",
    "set_console": "a node's console was switched on or off",
    "upload": "an image's data came in",
    "activate": "an image became ready",
    "download": "an image's data went out",
    "process": "a failure of a host or a server was dealt with",
    "list": "somebody looked (keystonemiddleware's audit filter alone tells of that)",
}
"""Action and meaning; services have more, which mean what their own documentation says."""

SYNONYMS = {
    "created": "create",
    "updated": "update",
    "deleted": "delete",
    "disabled": "disable",
    "read": "list",
}
"""Words of several services for one action."""
