"""The command ``stackbus operator``."""

from __future__ import annotations

import os
from typing import Annotated

import typer

from stackbus import logs
from stackbus.cli import options
from stackbus.cli.output import errors
from stackbus.errors import InputError

_QUIET_LIBRARIES = ("httpx", "httpx2", "kopf.activities", "kopf.objects", "aiohttp.access")


def operator(
    broker_secret: Annotated[
        str | None,
        typer.Option(
            metavar="NAMESPACE/NAME",
            help="Secret of the broker, with the keys management_url, amqp_url, username, "
            "password and ca_cert.",
            show_default=False,
        ),
    ] = None,
    outer_broker_secret: Annotated[
        str | None,
        typer.Option(
            metavar="NAMESPACE/NAME",
            help="Such a Secret of a second broker for the outer bus.",
            show_default=False,
        ),
    ] = None,
    namespace: Annotated[
        list[str] | None,
        typer.Option(
            "-n",
            "--namespace",
            help="Watch for an OpenStackDeployment in this namespace. Repeatable. Default: all "
            "namespaces.",
            show_default=False,
        ),
    ] = None,
    service_type: Annotated[
        str | None,
        typer.Option(
            metavar="TYPE",
            help="Type of the Service to which consumers connect: LoadBalancer (default), NodePort "
            "or ClusterIP.",
            show_default=False,
        ),
    ] = None,
    advertise: options.Advertise = None,
    peering: Annotated[
        str | None,
        typer.Option(
            help="Name of the kopf peering by which replicas agree on the active one. "
            "Default: there is one replica.",
            show_default=False,
        ),
    ] = None,
    liveness: Annotated[
        str | None,
        typer.Option(
            metavar="ADDRESS:PORT", help="Serve /healthz at this address.", show_default=False
        ),
    ] = None,
    metrics: options.Metrics = None,
    state: options.State = None,
) -> None:
    """Run the Kubernetes operator.

    It keeps RabbitMQ and the Secrets as the OpenStackDeployment wants them. It finds the cluster by
    the pod's service account, else by KUBECONFIG, else by ~/.kube/config.
    Example: stackbus operator --broker-secret openstack/stackbus-broker
    """
    with errors():
        as_json = not os.isatty(2)
        logs.configure(json=as_json)
        logs.configure_libraries(json=as_json, quiet=_QUIET_LIBRARIES)
        hosts = options.parse_hosts(advertise)
        settings = options.settings(
            state,
            broker_secret=broker_secret,
            outer_broker_secret=outer_broker_secret,
            service_type=service_type,
            advertise=list(hosts) if hosts else None,
        )
        namespaces = tuple(dict.fromkeys(namespace or ()))
        if liveness is not None and not liveness.rpartition(":")[2].isdecimal():
            raise InputError(f"--liveness: {liveness!r} is not ADDRESS:PORT")
        options.serve_metrics(metrics)
        # Wrong options are refused at once; these imports take more than a second.
        from stackbus.operator import handlers, watches  # noqa: PLC0415
        from stackbus.wiring import kubernetes as wiring  # noqa: PLC0415

        objects = wiring.kubernetes()
        # Without this check kopf waits for it silently.
        if peering is not None and objects.get("ClusterKopfPeering", None, peering) is None:
            raise InputError(
                f"--peering: the cluster has no ClusterKopfPeering named {peering!r}; `kubectl "
                "apply -k deploy/base` creates the one named stackbus"
            )
        handlers.run(
            wiring.reconciler(settings, objects, namespaces),
            watches.make_watcher(objects),
            namespaces=namespaces,
            peering=peering,
            liveness=f"http://{liveness}/healthz" if liveness else None,
        )
