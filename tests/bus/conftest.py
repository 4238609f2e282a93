"""Fixtures of the tests on a real broker: a bus for the relay, a topic for the recorder."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.conftest import Broker, deployment, exposure
from tests.recording import Recorded, expose_on
from tests.relaying import RelayedBus


@pytest.fixture
def relayed(clean: Broker, tmp_path: Path) -> Iterator[RelayedBus]:
    """Return a bus with the topic ``t`` and the probe; the test starts its relays."""
    bus = RelayedBus(clean, exposure(clean, tmp_path), tmp_path)
    try:
        bus.apply(deployment("t"))
        bus.declare_probe()
        yield bus
    finally:
        bus.end_relays()


@pytest.fixture
def topic(clean: Broker, tmp_path: Path) -> Recorded:
    """Return the topic ``siem`` with an empty history beside it."""
    return expose_on(clean, tmp_path, deployment("siem"))
