"""The broker that the administrator's Secret describes, and the endpoint for its consumers. Pure.

``read_access`` reads the Secret. ``find_endpoint`` reads the addresses and ports for consumers from
the Service ``rabbitmq-external``; they go into the consumers' Secrets.
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
    """The addresses of a broker, and its administrator's credentials."""

    namespace: str
    management_url: str
    amqp_url: str
    username: str
    password: str = field(repr=False)
    ca: str = field(repr=False, default="")

    @property
    def names(self) -> tuple[str, ...]:
        """The host names of the broker inside the Kubernetes cluster."""
        hosts = (urlsplit(url).hostname for url in (self.amqp_url, self.management_url))
        return tuple(dict.fromkeys(host for host in hosts if host))

    def url(self, user: str, password: str, vhost: str) -> str:
        """Return the AMQP URL of ``user`` in ``vhost``."""
        return amqp_url(self.amqp_url, user, password, vhost)


def read_access(secret: Object | None, secret_path: str) -> Access:
    """Return the contents of the broker's Secret; ``secret_path`` is NAMESPACE/NAME.

    Raises InputError that names each invalid key, and never a value.
    """
    namespace = secret_path.partition("/")[0]
    if secret is None:
        raise InputError(
            f"the broker's Secret {secret_path} does not exist: create it with the keys "
            f"{', '.join(_KEYS)} and, for a private CA, ca_cert"
        )
    values = {}
    for key in (*_KEYS, "ca_cert"):
        try:
            encoded = (secret.get("data") or {}).get(key, "")
            values[key] = base64.b64decode(encoded, validate=True).decode().strip()
        except (binascii.Error, ValueError, TypeError):
            raise InputError(
                f"the broker's Secret {secret_path}: {key} is not the base64 of a text"
            ) from None
    missing = [key for key in _KEYS if not values[key]]
    if missing:
        raise InputError(f"the broker's Secret {secret_path}: missing: {', '.join(missing)}")
    for key, schemes in (("management_url", ("http", "https")), ("amqp_url", ("amqp", "amqps"))):
        if not _is_url(values[key], schemes):
            raise InputError(
                f"the broker's Secret {secret_path}: {key} is not a URL of the form "
                f"{schemes[0]}://HOST or {schemes[1]}://HOST, without user and path"
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


def find_endpoint(
    service: Object,
    nodes: Iterable[Object],
    advertise: tuple[str, ...],
    names: tuple[str, ...],
    vhost: str,
) -> tuple[Endpoint, str]:
    """Return the endpoint for consumers, and a message if it has no address yet ('' if it has).

    ``advertise``, if not empty, replaces the addresses of the Service. ``nodes`` are the nodes of
    the Kubernetes cluster, needed for a NodePort only.
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
                hosts = _list_balancer_addresses(service)
                waiting = "an address of the load balancer"
            case "NodePort":
                hosts = _list_node_addresses(nodes)
                waiting = "a node with an address"
            case _:
                hosts = (inside,)
    if not {PORT_AMQP, PORT_AMQPS} <= ports.keys():
        hosts, waiting = (), "the node ports"
    result = Endpoint(
        hosts, ports.get(PORT_AMQP, 0), ports.get(PORT_AMQPS, 0), vhost, (*names, inside)
    )
    if hosts:
        return result, ""
    return result, f"waiting for {waiting} of the Service {metadata['namespace']}/{SERVICE}"


def _list_balancer_addresses(service: Object) -> tuple[str, ...]:
    status = (service.get("status") or {}).get("loadBalancer") or {}
    addresses = (
        ingress.get("ip") or ingress.get("hostname") for ingress in status.get("ingress") or []
    )
    return tuple(dict.fromkeys(address for address in addresses if address))


def _list_node_addresses(nodes: Iterable[Object]) -> tuple[str, ...]:
    """Return the external addresses of the nodes; without any, the internal ones."""
    addresses: dict[str, list[str]] = {"ExternalIP": [], "InternalIP": []}
    for node in nodes:
        for address in (node.get("status") or {}).get("addresses") or []:
            if address["type"] in addresses:
                addresses[address["type"]].append(address["address"])
    return tuple(sorted(set(addresses["ExternalIP"] or addresses["InternalIP"])))
