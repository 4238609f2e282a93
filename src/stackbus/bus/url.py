"""AMQP URLs, ``amqp[s]://user:password@host:port/vhost``: made here, parsed by pika. Pure.

The relay, ``stackbus tail``, the operator and the services' drop-ins get theirs from ``amqp_url``.
``clients/amqp.py`` hands them to pika, which undoes the escapes.
"""

from __future__ import annotations

from urllib.parse import quote


def amqp_url(base: str, user: str, password: str, vhost: str) -> str:
    """Return ``base`` (``amqp://host:port``) with credentials and a vhost, all escaped."""
    scheme, _, address = base.partition("://")
    credentials = f"{quote(user, safe='')}:{quote(password, safe='')}"
    return f"{scheme}://{credentials}@{address}/{quote(vhost, safe='')}"
