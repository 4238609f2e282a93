"""stackbus: the notifications of an OpenStack cloud for the systems outside it."""

__version__ = "0.1.0"
