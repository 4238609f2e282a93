"""The places that batches are written to, one file each: see ``flow.stream.Sink``.

``wiring.py`` connects each source to a sink.
"""
