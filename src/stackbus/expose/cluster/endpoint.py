"""Where consumers of a cluster connect: from the Service and the broker's Secret, pure.

Called by ``reconcile.py``. ``Access`` is the broker as the administrator's Secret describes it;
``endpoint`` is what consumers are told, read from the Service ``rabbitmq-external``.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterable
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from stackbus.bus.url import amqp_url
from stackbus.errors import InputError
from stackbus.expose.cluster import Object
from stackbus.expose.credentials import Endpoint

SERVICE = "rabbitmq-external"
PORT_AMQP, PORT_AMQPS = "amqp", "amqp-tls"
_KEYS = ("management_url", "amqp_url", "username", "password")


@dataclass(frozen=True, slots=True)
class Access:
    """One broker: where it is, and its administrator's credentials."""

    namespace: str
    management_url: str
    amqp_url: str
    username: str
    password: str = field(repr=False)
    ca: str = field(repr=False, default="")

    @property
    def names(self) -> tuple[str, ...]:
        """Give the names by which the broker is reached inside the cluster."""
        hosts = (urlsplit(url).hostname for url in (self.amqp_url, self.management_url))
        return tuple(dict.fromkeys(host for host in hosts if host))

    def url(self, user: str, password: str, vhost: str) -> str:
        """Give the AMQP URL by which ``user`` gets into ``vhost``."""
        return amqp_url(self.amqp_url, user, password, vhost)


def access(secret: Object | None, place: str) -> Access:
    """Read the broker's Secret at ``place``, NAMESPACE/NAME.

    Raises InputError that names every key that is missing or no text, and never a value.
    """
    namespace = place.partition("/")[0]
    if secret is None:
        raise InputError(
            f"the broker's Secret {place} does not exist: create it with the keys "
            f"{', '.join(_KEYS)} and, for a private CA, ca_cert"
        )
    values = {}
    for key in (*_KEYS, "ca_cert"):
        try:
            encoded = (secret.get("data") or {}).get(key, "")
            values[key] = base64.b64decode(encoded, validate=True).decode().strip()
        except (binascii.Error, ValueError, TypeError):
            raise InputError(f"the broker's Secret {place}: {key}: no base64 of a text") from None
    missing = [key for key in _KEYS if not values[key]]
    if missing:
        raise InputError(f"the broker's Secret {place}: {', '.join(missing)}: must be given")
    for key, schemes in (("management_url", ("http", "https")), ("amqp_url", ("amqp", "amqps"))):
        if not _is_url(values[key], schemes):
            raise InputError(
                f"the broker's Secret {place}: {key}: {schemes[0]}:// or {schemes[1]}:// and a "
                "host, without user and path, were expected"
            )
    return Access(
        namespace,
        values["management_url"],
        values["amqp_url"].rstrip("/"),
        values["username"],
        values["password"],
        values["ca_cert"] and values["ca_cert"] + "\n",
    )


def _is_url(url: str, schemes: tuple[str, str]) -> bool:
    try:
        parts = urlsplit(url)
        is_plain = parts.port is None or parts.port > 0
    except ValueError:
        return False
    is_bare = not parts.path.strip("/") if schemes[0] == "amqp" else True
    return (
        parts.scheme in schemes
        and bool(parts.hostname)
        and parts.username is None
        and is_plain
        and is_bare
    )


def endpoint(
    service: Object,
    nodes: Iterable[Object],
    advertise: tuple[str, ...],
    names: tuple[str, ...],
    vhost: str,
) -> tuple[Endpoint, str]:
    """Say where consumers connect, and what is being waited for ('' if nothing).

    ``advertise`` stands for the addresses of the Service if it is not empty; ``nodes`` are those
    of the cluster, asked for a NodePort only.
    """
    metadata, spec = service["metadata"], service["spec"]
    kind = spec.get("type", "ClusterIP")
    ports = {
        port["name"]: port["nodePort"] if kind == "NodePort" else port["port"]
        for port in spec["ports"]
        if kind != "NodePort" or port.get("nodePort")
    }
    inside = f"{metadata['name']}.{metadata['namespace']}.svc"
    hosts, waiting = advertise, ""
    if not hosts:
        match kind:
            case "LoadBalancer":
                hosts = _balancer(service)
                waiting = "an address of the load balancer"
            case "NodePort":
                hosts = _nodes(nodes)
                waiting = "a node with an address"
            case _:
                hosts = (inside,)
    if not {PORT_AMQP, PORT_AMQPS} <= ports.keys():
        hosts, waiting = (), "the node ports"
    found = Endpoint(
        hosts, ports.get(PORT_AMQP, 0), ports.get(PORT_AMQPS, 0), vhost, (*names, inside)
    )
    if hosts:
        return found, ""
    return found, f"waiting for {waiting} of the Service {metadata['namespace']}/{SERVICE}"


def _balancer(service: Object) -> tuple[str, ...]:
    status = (service.get("status") or {}).get("loadBalancer") or {}
    addresses = (one.get("ip") or one.get("hostname") for one in status.get("ingress") or [])
    return tuple(dict.fromkeys(address for address in addresses if address))


def _nodes(nodes: Iterable[Object]) -> tuple[str, ...]:
    """Give each node's external address, or where none has one, the internal ones."""
    found: dict[str, list[str]] = {"ExternalIP": [], "InternalIP": []}
    for node in nodes:
        for address in (node.get("status") or {}).get("addresses") or []:
            if address["type"] in found:
                found[address["type"]].append(address["address"])
    return tuple(sorted(set(found["ExternalIP"] or found["InternalIP"])))
