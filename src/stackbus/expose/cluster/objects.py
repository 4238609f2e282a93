"""The Kubernetes objects of stackbus beside the consumers' Secrets, as values in Kubernetes' JSON.

``reconcile.py`` applies them. Each has our label; a test lists them all.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from stackbus.bus.rabbitmq_conf import RABBITMQ_CONF
from stackbus.expose.cluster import Object
from stackbus.expose.cluster.endpoint import PORT_AMQP, PORT_AMQPS, SERVICE
from stackbus.expose.credentials import Credentials
from stackbus.expose.secrets import LABELS, OWN_NAMESPACE, Secret

SERVER_TLS = "rabbitmq-external-tls"
CONFIGURATION = "rabbitmq-external-conf"
RELAY = "stackbus-relay"
_MOUNTED = "/etc/rabbitmq-tls"

_FILES = f"""\
listeners.ssl.default = 5671
ssl_options.cacertfile = {_MOUNTED}/ca.crt
ssl_options.certfile = {_MOUNTED}/tls.crt
ssl_options.keyfile = {_MOUNTED}/tls.key
"""


def namespace(name: str) -> Object:
    """Return a namespace of stackbus."""
    return {
        "apiVersion": "v1",
        "kind": "Namespace",
        "metadata": {"name": name, "labels": dict(LABELS)},
    }


def service(
    namespace_name: str,
    kind: str,
    ports: tuple[int, int],
    selector: Mapping[str, str],
    annotations: Mapping[str, str],
) -> Object:
    """Return the Service for consumers: AMQP and AMQP over TLS, no other port of the broker."""
    return {
        **_head("v1", "Service", namespace_name, SERVICE, annotations),
        "spec": {
            "type": kind,
            "selector": dict(selector),
            "ports": [
                {"name": name, "port": port, "targetPort": port, "protocol": "TCP"}
                for name, port in zip((PORT_AMQP, PORT_AMQPS), ports, strict=True)
            ],
        },
    }


def configuration(namespace_name: str) -> Object:
    """Return the ConfigMap with the lines for ``rabbitmq.conf`` and the list of plugins."""
    return {
        **_head("v1", "ConfigMap", namespace_name, CONFIGURATION),
        "data": {
            "90-stackbus.conf": f"# The Secret {SERVER_TLS} is mounted at {_MOUNTED}.\n"
            + _FILES
            + RABBITMQ_CONF,
            "enabled_plugins": "[rabbitmq_management,rabbitmq_auth_mechanism_ssl].\n",
        },
    }


def server_tls(namespace_name: str, credentials: Credentials) -> Secret:
    """Return the Secret with the server's certificate, which the broker mounts."""
    return Secret(
        namespace_name,
        SERVER_TLS,
        {
            "ca.crt": credentials.ca.certificate,
            "tls.crt": credentials.server.certificate,
            "tls.key": credentials.server.key,
        },
    )


def relay(inner_url: str, outer_url: str, ca: str) -> Secret:
    """Return the Secret that the relay's pods read; ``ca`` verifies both brokers over TLS."""
    return Secret(
        OWN_NAMESPACE, RELAY, {"inner_url": inner_url, "outer_url": outer_url, "ca.crt": ca}
    )


def _head(
    version: str,
    kind: str,
    namespace_name: str,
    name: str,
    annotations: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    metadata: dict[str, Any] = {"name": name, "namespace": namespace_name, "labels": dict(LABELS)}
    if annotations:
        metadata["annotations"] = dict(annotations)
    return {"apiVersion": version, "kind": kind, "metadata": metadata}
