"""The ways by which notifications come: each brings deliveries, and reads what it brought.

``bus.py`` a topic's queues, ``log.py`` the services' log files (``lines.py`` reads a line),
``opensearch.py`` an index (``documents.py`` reads a document).
"""
