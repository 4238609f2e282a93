"""History: the tables of one history, over one session.

``sinks``, ``query/`` and the doors receive a History from ``wiring.py`` and use its tables.
"""

from __future__ import annotations

from stackbus.history.confirmations import Confirmations
from stackbus.history.engine import Engine
from stackbus.history.events import Events
from stackbus.history.positions import Positions
from stackbus.history.quarantine import Quarantine
from stackbus.history.session import Layout, Session


class History:
    """The tables of one history. Threads may share it.

    ``recorder`` names the chain of batches that its events are written to; no other History may
    write to the same chain.
    """

    def __init__(self, engine: Engine, layout: Layout, recorder: str) -> None:
        self.session = Session(engine, layout)
        self.confirmations = Confirmations(self.session)
        self.events = Events(self.session, self.confirmations, recorder)
        self.quarantine = Quarantine(self.session)
        self.positions = Positions(self.session)

    def migrate(self) -> None:
        """Bring the tables up to date. Raises HistoryError if a newer stackbus wrote them."""
        self.session.migrate()

    def close(self) -> None:
        """Close the engine."""
        self.session.close()
