"""The door to Kubernetes: operator."""

from __future__ import annotations

import os
from typing import Annotated

import typer

from stackbus import logs, wiring
from stackbus.cli import common
from stackbus.cli.output import errors
from stackbus.errors import InputError

_TALKATIVE = ("httpx", "httpx2", "kopf.activities", "kopf.objects", "aiohttp.access")


def operator(
    broker_secret: Annotated[
        str | None,
        typer.Option(
            metavar="NAMESPACE/NAME",
            help="The broker's Secret: management_url, amqp_url, username, password, ca_cert.",
            show_default=False,
        ),
    ] = None,
    outer_broker_secret: Annotated[
        str | None,
        typer.Option(
            metavar="NAMESPACE/NAME",
            help="Such a Secret of a broker that has the outer bus alone.",
            show_default=False,
        ),
    ] = None,
    namespace: Annotated[
        list[str] | None,
        typer.Option(
            "-n",
            "--namespace",
            help="Look for an OpenStackDeployment in this namespace alone; may be repeated. "
            "Default: in all.",
            show_default=False,
        ),
    ] = None,
    service_type: Annotated[
        str | None,
        typer.Option(
            metavar="TYPE",
            help="LoadBalancer (default), NodePort or ClusterIP: how consumers come in.",
            show_default=False,
        ),
    ] = None,
    advertise: common.Advertise = None,
    peering: Annotated[
        str | None,
        typer.Option(
            help="Name of the kopf peering by which replicas agree who is active. "
            "Default: this one is alone.",
            show_default=False,
        ),
    ] = None,
    liveness: Annotated[
        str | None,
        typer.Option(metavar="ADDRESS:PORT", help="Answer /healthz there.", show_default=False),
    ] = None,
    metrics: common.Metrics = None,
    state: common.State = None,
) -> None:
    """Run in Kubernetes: keep RabbitMQ and the Secrets in line with the OpenStackDeployment.

    Where the cluster is: the pod's service account, else KUBECONFIG, else ~/.kube/config.
    Example: stackbus operator --broker-secret openstack/stackbus-broker
    """
    with errors():
        as_json = not os.isatty(2)
        logs.configure(json=as_json)
        logs.configure_libraries(json=as_json, quiet=_TALKATIVE)
        hosts = common.hosts(advertise)
        chosen = common.settings(
            state,
            broker_secret=broker_secret,
            outer_broker_secret=outer_broker_secret,
            service_type=service_type,
            advertise=list(hosts) if hosts else None,
        )
        namespaces = tuple(dict.fromkeys(namespace or ()))
        if liveness is not None and not liveness.rpartition(":")[2].isdecimal():
            raise InputError(f"--liveness: {liveness!r}: ADDRESS:PORT was expected")
        common.serve_metrics(metrics)
        from stackbus.operator import handlers, watching  # noqa: PLC0415 -- kopf takes a second

        objects = wiring.kubernetes()
        # kopf would wait for it without a word.
        if peering is not None and objects.get("ClusterKopfPeering", None, peering) is None:
            raise InputError(
                f"--peering: {peering!r}: no such ClusterKopfPeering; `kubectl apply -k "
                "deploy/base` makes the one named stackbus"
            )
        handlers.run(
            wiring.cluster(chosen, objects, namespaces),
            watching.watcher(objects),
            namespaces=namespaces,
            peering=peering,
            liveness=f"http://{liveness}/healthz" if liveness else None,
        )
