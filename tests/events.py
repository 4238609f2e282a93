"""The events that each captured notification is expected to become: tests/golden-events/.

``make golden`` rewrites them with this file from the events that the code makes of tests/golden/;
review the difference before you commit it. There is one file for each service, by the
notification's file name. Payloads are left out, since the notification has them.
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


def build_events(service: str) -> dict[str, list[dict[str, object]]]:
    """Return the events of a service's captured notifications, by file name."""
    events_by_name = {}
    for path in sorted((GOLDEN / service).glob("*.json")):
        events = normalise(path.read_bytes(), "bus", RECEIVED, service)
        events_by_name[path.stem] = [
            {name: getattr(event, name) for name in FIELDS if name not in LEFT_OUT}
            for event in events
        ]
    plain = json.loads(msgspec.json.encode(events_by_name))
    assert isinstance(plain, dict)
    return plain


def services() -> list[str]:
    """Return the services with captured notifications."""
    return sorted(path.name for path in GOLDEN.iterdir() if path.is_dir())


def expected_path(service: str) -> Path:
    """Return the file with a service's expected events."""
    return EXPECTED / f"{service}.json"


if __name__ == "__main__":
    EXPECTED.mkdir(exist_ok=True)
    for name in services():
        expected_path(name).write_text(
            json.dumps(build_events(name), indent=1, sort_keys=True) + "\n"
        )
