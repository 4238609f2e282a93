"""The one way from the inner to the outer bus. Begin at ``relay.py``."""
