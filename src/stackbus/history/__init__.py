"""The history: the store of events, in ClickHouse's dialect of SQL.

``history.py`` opens the tables, each in a file of its own, over one session (``session.py``). The
session speaks to an engine: ``engine.py`` reaches a ClickHouse server, ``embedded.py`` the process
(``server.py``) that has an embedded history open. ``queries.sql`` holds every query by name,
``schema/`` the numbered migrations. ``batches.py`` writes events in batches whose hashes
(``chain.py``) reveal a later change.
"""
