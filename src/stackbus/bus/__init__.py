"""The language of the bus: names, routing keys, messages. Pure: no network, no files."""
