"""The scenario: calls that people make in a cloud, a section for each service."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from tests.cloud.home import CloudHome
from tests.cloud.scenario.cinder import cinder, volume_type
from tests.cloud.scenario.designate import designate
from tests.cloud.scenario.glance import glance
from tests.cloud.scenario.heat import heat
from tests.cloud.scenario.ironic import ironic
from tests.cloud.scenario.keystone import keystone, people
from tests.cloud.scenario.manila import manila
from tests.cloud.scenario.masakari import masakari
from tests.cloud.scenario.neutron import neutron, outside
from tests.cloud.scenario.nova import nova, prepare
from tests.cloud.scenario.run import ScenarioRun, section
from tests.cloud.scenario.usage import usage

_SECTIONS = (nova, heat, cinder, neutron, designate, manila, ironic, keystone, glance)
"""Independent sections, which run side by side, the longest first."""

_AFTER = {masakari: ("masakari", "nova"), usage: ("cinder", "neutron")}
"""Sections that run alone, with the services they need: one ends a host, one audits everything."""

_USES: dict[str, tuple[str, ...]] = {
    "nova": ("glance", "neutron", "cinder"),
    "heat": ("neutron", "cinder"),
    "masakari": ("nova",),
}
"""Services that a section uses besides its own."""

_PARALLEL = 3


def with_used(names: list[str]) -> list[str]:
    """Return these services and all that their sections use, Keystone first."""
    services = ["keystone", *names]
    for name in services:
        services += [used for used in _USES.get(name, ()) if used not in services]
    return list(dict.fromkeys(services))


def run_scenario(
    home: CloudHome, members: list[str], progress: Callable[[str], None]
) -> ScenarioRun:
    """Run the sections of these members; return the record of the calls."""
    run = ScenarioRun(home, progress)
    with section(run, "people"):
        people(run)
    with section(run, "preparations"):
        if "neutron" in members:
            outside(run.admin())
        if "cinder" in members:
            volume_type(run.admin())
        if "nova" in members:
            prepare(run)

    def run_section(part: Callable[[ScenarioRun], None]) -> None:
        with section(run, part.__name__):
            part(run)

    with ThreadPoolExecutor(_PARALLEL) as pool:
        list(pool.map(run_section, [part for part in _SECTIONS if part.__name__ in members]))
    for part, needs in _AFTER.items():
        if set(needs) <= set(members):
            run_section(part)
    return run
