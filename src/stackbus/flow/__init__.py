"""The one shape of every stream: a source, batches, a sink, and positions committed in order.

``stream.py`` defines the parts, ``loop.py`` runs one stream, ``runner.py`` runs the streams of one
command. This room opens no file and no connection: sources and sinks do.
"""
