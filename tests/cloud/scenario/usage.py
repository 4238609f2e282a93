"""Usage reports of Cinder and Neutron, which their audit tools send."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from tests.cloud.scenario.cinder import volume
from tests.cloud.scenario.run import Actor, ScenarioRun


def usage(run: ScenarioRun) -> None:
    """Run the usage audit tools while a volume and a network exist."""
    alice = run.person("alice")
    disk = volume(alice)
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
    _run_tool(run, alice, "cinder", "cinder-volume-usage-audit", *period, "--send_actions")
    _run_tool(run, alice, "neutron", "neutron-usage-audit")
    alice.do("cinder.volume.delete", alice.cloud.block_storage.delete_volume, disk)
    alice.do("neutron.network.delete", api.delete_network, net)


def _run_tool(run: ScenarioRun, actor: Actor, name: str, program: str, *arguments: str) -> None:
    home = run.home
    file = home.etc(name) / f"{name}.conf"
    command = [str(home.venv(name) / "bin" / program), "--config-file", str(file), *arguments]
    environment = home.environment(name, {})
    actor.do(
        f"{name}.usage.audit",
        lambda: home.run(name, command, environment),
        id_of=lambda _: None,
    )
