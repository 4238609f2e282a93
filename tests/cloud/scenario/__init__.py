"""The scenario: what people do in the test cloud, section by section, and its record."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from tests.cloud.place import Place
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
from tests.cloud.scenario.usage import usage
from tests.cloud.scenario.walk import Walk, section

_SECTIONS = (nova, heat, cinder, neutron, designate, manila, ironic, keystone, glance)
"""These know nothing of each other, and run side by side; the longest first."""

_AFTER = {masakari: ("masakari", "nova"), usage: ("cinder", "neutron")}
"""These need the cloud for themselves: one ends a host, one audits all that there is."""

_USED: dict[str, tuple[str, ...]] = {
    "nova": ("glance", "neutron", "cinder"),
    "heat": ("neutron", "cinder"),
    "masakari": ("nova",),
}
"""What a section uses besides its own service."""

_AT_ONCE = 3


def with_used(names: list[str]) -> list[str]:
    """Give these services and all that their sections use, Keystone first of all."""
    wanted = ["keystone", *names]
    for name in wanted:
        wanted += [used for used in _USED.get(name, ()) if used not in wanted]
    return list(dict.fromkeys(wanted))


def run(place: Place, members: list[str], progress: Callable[[str], None]) -> Walk:
    """Walk the sections of these members; give the record of what was done."""
    walk = Walk(place, progress)
    with section(walk, "people"):
        people(walk)
    with section(walk, "preparations"):
        if "neutron" in members:
            outside(walk, walk.admin())
        if "cinder" in members:
            volume_type(walk, walk.admin())
        if "nova" in members:
            prepare(walk)

    def one(part: Callable[[Walk], None]) -> None:
        with section(walk, part.__name__):
            part(walk)

    with ThreadPoolExecutor(_AT_ONCE) as pool:
        list(pool.map(one, [part for part in _SECTIONS if part.__name__ in members]))
    for part, needs in _AFTER.items():
        if set(needs) <= set(members):
            one(part)
    return walk
