"""The history that the settings name, the folder of its digests, and the scrubber before it."""

from __future__ import annotations

import re
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import quote
from uuid import uuid4

from stackbus.events.scrub import Scrubber
from stackbus.history.history import History
from stackbus.history.session import Layout, open_engine
from stackbus.settings import Settings
from stackbus.state import StateFolder


@contextmanager
def open_history(settings: Settings) -> Iterator[History]:
    """Open the history, and bring its tables up to date."""
    history = connect_history(settings)
    try:
        history.migrate()
        yield history
    finally:
        history.close()


def connect_history(settings: Settings) -> History:
    """Connect to the history; the caller migrates and closes it.

    The batches that this process inserts form a chain of their own, named after the host, the
    time and a random number.
    """
    dsn = settings.history.value if settings.history else None
    engine = open_engine(dsn or f"chdb://{quote(str(StateFolder(settings.state).history))}")
    host = re.sub(r"[^A-Za-z0-9.-]", "-", socket.gethostname())
    chain = f"{host}-{datetime.now(UTC):%Y%m%dT%H%M%S}-{uuid4().hex[:8]}"
    return History(engine, Layout(settings.history_cluster), chain)


def retention_start(settings: Settings) -> datetime | None:
    """Return the time from which on events are kept; None: all are kept."""
    if settings.history_keep_days is None:
        return None
    return datetime.now(UTC) - timedelta(days=settings.history_keep_days)


def digest_folder(settings: Settings) -> Path:
    """Return the folder of the signed digests."""
    return settings.digests or StateFolder(settings.state).digests


def scrubber(settings: Settings) -> Scrubber:
    """Return the scrubber with the names and shapes of the settings."""
    return Scrubber(settings.scrub_names, settings.scrub_shapes)
