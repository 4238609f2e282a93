"""The events that each captured notification is expected to become: tests/golden-events/.

``python -m tests.events`` (``make golden``) writes them anew from what the code makes of
tests/golden/; the difference is for a reader to judge before it is committed. One file for each
service, by the notification's file name; payloads are left out, since they are in the notification.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from stackbus.events.model import FIELDS
from stackbus.events.normalise import normalise
from tests.conftest import GOLDEN

EXPECTED = GOLDEN.parent / "golden-events"
RECEIVED = datetime(2026, 1, 1, tzinfo=UTC)
LEFT_OUT = {"payload", "received", "channels", "region"}


def made(service: str) -> dict[str, list[dict[str, object]]]:
    """Give what the code makes of a service's captured notifications, by file name."""
    found = {}
    for path in sorted((GOLDEN / service).glob("*.json")):
        events = normalise(path.read_bytes(), "bus", RECEIVED, service)
        found[path.stem] = [
            {name: getattr(event, name) for name in FIELDS if name not in LEFT_OUT}
            for event in events
        ]
    plain = json.loads(msgspec.json.encode(found))
    assert isinstance(plain, dict)
    return plain


def services() -> list[str]:
    """List the services of which notifications were captured."""
    return sorted(path.name for path in GOLDEN.iterdir() if path.is_dir())


def path_of(service: str) -> Path:
    """Tell where a service's expected events are."""
    return EXPECTED / f"{service}.json"


if __name__ == "__main__":
    EXPECTED.mkdir(exist_ok=True)
    for name in services():
        path_of(name).write_text(json.dumps(made(name), indent=1, sort_keys=True) + "\n")
