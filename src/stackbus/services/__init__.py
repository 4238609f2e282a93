"""The ten OpenStack services, as a plain list, and how to find one in it."""

from __future__ import annotations

from stackbus.services.cinder import CINDER
from stackbus.services.designate import DESIGNATE
from stackbus.services.glance import GLANCE
from stackbus.services.heat import HEAT
from stackbus.services.ironic import IRONIC
from stackbus.services.keystone import KEYSTONE
from stackbus.services.manila import MANILA
from stackbus.services.masakari import MASAKARI
from stackbus.services.neutron import NEUTRON
from stackbus.services.nova import NOVA
from stackbus.services.service import SHARED_EXCHANGE, Service

SERVICES: tuple[Service, ...] = (
    CINDER,
    DESIGNATE,
    GLANCE,
    HEAT,
    IRONIC,
    KEYSTONE,
    MANILA,
    MASAKARI,
    NEUTRON,
    NOVA,
)

BY_EXCHANGE = {service.exchange: service for service in SERVICES}
BY_NAME = {
    name: service for service in SERVICES for name in (service.name, service.type, *service.aliases)
}
"""By name, by service type, and by the type's other spellings."""

_BY_EVENT_TYPE = {first: service for service in SERVICES for first in service.event_types}


def emitter(exchange: str, event_type: str) -> Service | None:
    """Tell which service sent a notification: its exchange's, or on the shared one its type's.

    None for an exchange, or on the shared exchange an event type, that is none of the ten's.
    """
    if exchange != SHARED_EXCHANGE:
        return BY_EXCHANGE.get(exchange)
    first, _, rest = event_type.partition(".")
    second = rest.partition(".")[0]
    return _BY_EVENT_TYPE.get(f"{first}.{second}") or _BY_EVENT_TYPE.get(first)
