"""One file for each kind of item in RabbitMQ, all with the functions that ``kind.py`` lists.

``expose/topology.py`` builds the desired items (``item``), ``expose/changes.py`` reads the present
ones (``read``) and compares (``difference``), and ``expose/apply.py`` writes (``definition``) and
removes (``delete``).
"""

from __future__ import annotations

from stackbus.expose.kinds import (
    binding,
    control_exchange,
    exchange,
    permission,
    policy,
    queue,
    user,
    vhost,
)
from stackbus.expose.kinds.kind import ItemKey, Kind

_KINDS: tuple[Kind, ...] = (
    vhost,
    user,
    permission,
    policy,
    exchange,
    control_exchange,
    queue,
    binding,
)
"""In the order in which they can be created; removed in the opposite one."""

KINDS = {kind.NAME: kind for kind in _KINDS}


def kind_of(key: ItemKey) -> Kind:
    """Return the kind of an item."""
    return KINDS[key[0]]
