"""The places that deliveries come from, one file each.

A source brings deliveries to ``flow/loop.py`` and knows how to read them: its ``extract`` returns
the notification in the body of a delivery. ``wiring.py`` lists the sources and gives each one's
``extract`` to its sink.
"""
