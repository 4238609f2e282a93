"""The ten OpenStack services as a plain list, and the look-ups in it."""

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

_BY_EVENT_TYPE = {prefix: service for service in SERVICES for prefix in service.event_types}


def find_service(exchange: str, event_type: str) -> Service | None:
    """Return the service that published ``event_type`` on ``exchange``, None if it is not known.

    The exchange decides; on the shared exchange, the first words of the event type do.
    """
    if exchange != SHARED_EXCHANGE:
        return BY_EXCHANGE.get(exchange)
    words = event_type.split(".", 2)
    return _BY_EVENT_TYPE.get(".".join(words[:2])) or _BY_EVENT_TYPE.get(words[0])
