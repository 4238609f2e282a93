"""The record: notifications that come over several channels become events of the history.

``recorder.py`` is the loop of one channel, ``recording.py`` runs those of one command;
``channels/`` brings deliveries; ``storing.py`` reads (``reading.py``) and stores them, in a process
of its own.
"""
