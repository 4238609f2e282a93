"""Event: a notification in stackbus' own shape. A value; its field names are a contract.

Made by ``normalise.py``, kept by ``history/``, printed by the doors.
"""

from __future__ import annotations

from datetime import datetime

import msgspec

from stackbus.services.service import Attributes


class Event(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What one notification tells of one resource; what is not told is an empty text.

    ``phase`` is start, end, error or none; ``outcome`` is success, failure or unknown.

    ``id`` is the notification's message_id and ``index`` counts within it: together they are the
    event's identity. ``project_id`` owns the resource; ``user_id``, ``user_name`` and
    ``actor_project_id`` say who did it, from ``address``. ``payload`` is the notification's own,
    as JSON, scrubbed.
    """

    id: str
    index: int
    time: datetime
    received: datetime
    service: str
    type: str
    action: str
    phase: str
    outcome: str
    priority: str
    publisher: str
    host: str
    resource_type: str
    resource_id: str
    resource_name: str
    project_id: str
    user_id: str
    user_name: str
    actor_project_id: str
    request_id: str
    global_request_id: str
    address: str
    attributes: Attributes
    payload: msgspec.Raw
    channels: tuple[str, ...]

    def encode_json(self) -> str:
        """Return the event as one line of JSON."""
        return msgspec.json.encode(self).decode()


FIELDS = tuple(field.name for field in msgspec.structs.fields(Event))
"""The fields' names, in the order in which they are printed."""
