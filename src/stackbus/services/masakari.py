"""Masakari, instance high availability: ``masakari_object.*`` under a topic fixed in its code."""

from __future__ import annotations

from stackbus.services.service import Payload, Service


def project(event_type: str, payload: Payload) -> str | None:
    """Give None: segments, hosts and their failures belong to no project (masakari/objects)."""
    del event_type, payload
    return None


MASAKARI = Service(
    name="masakari",
    type="instance-ha",
    aliases=("ha",),
    exchange="masakari",
    event_types=("segment", "host", "notification"),
    project=project,
)
