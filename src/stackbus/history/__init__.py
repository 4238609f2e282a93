"""The history: where events are kept, in ClickHouse's dialect.

``history.py`` is what the other rooms call; ``engine.py`` reaches the embedded engine or a
cluster; ``schema/`` holds the numbered migrations, ``queries.sql`` every question by name,
``proof.py`` the hashes by which a change would be seen.
"""
