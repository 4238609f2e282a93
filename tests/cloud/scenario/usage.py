"""What services tell on their own, or when an administrator's tool asks: usage, in periods."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from tests.cloud.scenario.cinder import volume
from tests.cloud.scenario.walk import Actor, Walk


def usage(walk: Walk) -> None:
    """Run the usage audit tools of Cinder and Neutron over a volume and a network that exist."""
    place, alice = walk.place, walk.person("alice")
    one = volume(alice)
    api = alice.cloud.network
    net = alice.do("neutron.network.create", api.create_network, name="audited")
    now = datetime.now(UTC)
    period = [
        part
        for option, moment in (
            ("--start_time", now - timedelta(hours=1)),
            ("--end_time", now + timedelta(seconds=5)),
        )
        for part in (option, moment.strftime("%Y-%m-%d %H:%M:%S"))
    ]
    _tool(walk, alice, "cinder", "cinder-volume-usage-audit", *period, "--send_actions")
    _tool(walk, alice, "neutron", "neutron-usage-audit")
    alice.do("cinder.volume.delete", alice.cloud.block_storage.delete_volume, one)
    alice.do("neutron.network.delete", api.delete_network, net)
    del place


def _tool(walk: Walk, actor: Actor, name: str, program: str, *arguments: str) -> None:
    place = walk.place
    file = place.etc(name) / f"{name}.conf"
    command = [str(place.venv(name) / "bin" / program), "--config-file", str(file), *arguments]
    environment = place.environment(name, {})
    actor.do(
        f"{name}.usage.audit",
        lambda: place.run(name, command, environment),
        id_of=lambda _: None,
    )
