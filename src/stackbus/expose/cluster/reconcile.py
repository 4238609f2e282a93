"""Reconcile RabbitMQ, the Secrets, the Service and the status with one resource.

``operator/handlers.py`` starts one run at a time: after a change, or after the resync time.
``Reconciler.reconcile`` reads the present state and makes what is missing, so a run may be
interrupted anywhere. Its steps, from top to bottom:

    resource -> deployment -> the broker's Secret -> Service -> endpoint -> CA and server
    certificate -> rotation, plan, apply -> the relay's Secret -> status

``Reconciler.withdraw`` removes all of it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, Protocol

import structlog

from stackbus.bus.names import PRIORITIES, RELAY_USER, queue_name
from stackbus.errors import (
    BrokerError,
    BrokerUnreachable,
    Conflict,
    InputError,
    KubernetesError,
    StackbusError,
    Waiting,
)
from stackbus.expose import certificates
from stackbus.expose import credentials as creds
from stackbus.expose import status as topic_status
from stackbus.expose.api import BrokerApi
from stackbus.expose.apply import Exposure, Plan
from stackbus.expose.cluster import Object, conditions, objects, reporting, rotation
from stackbus.expose.cluster.conditions import Report, TopicReport
from stackbus.expose.cluster.endpoint import SERVICE, Access, find_endpoint, read_access
from stackbus.expose.cluster.reporting import PostEvent
from stackbus.expose.cluster.store import KubernetesStore, Objects, is_ours
from stackbus.expose.credentials import Credentials, Endpoint, Generations, secret_name
from stackbus.expose.deployment import API_VERSION, KIND, NOTHING, Deployment
from stackbus.expose.secrets import NAMESPACE, OWN_NAMESPACE, Secret, as_object
from stackbus.expose.validation import parse
from stackbus.metrics import (
    BROKER_REACHABLE,
    CERTIFICATE_EXPIRES,
    CHANGES,
    RELAY_ACTIVE,
    RELAY_BEHIND,
    TOPICS,
)
from stackbus.settings import Settings

LET_GO = "stackbus.io/let-go"
"""Annotation: with the value ``true``, deletion does not wait for an unreachable broker."""

_DEFAULT_PORTS = (5672, 5671)

log = structlog.get_logger()


class RabbitMQ(BrokerApi, topic_status.StatusApi, Protocol):
    """The part of the management API that reconciling needs; see ``clients/management.py``."""

    def listener(self, protocol: str) -> int | None:
        """Return the port of a listener (``amqp``, ``amqp/ssl``); None if there is none."""


Connect = Callable[[Access], AbstractContextManager[RabbitMQ]]


@dataclass(frozen=True, slots=True)
class Brokers:
    """The brokers of the two buses; often both are the same."""

    inner: RabbitMQ
    outer: RabbitMQ
    inner_access: Access
    outer_access: Access

    @property
    def separate(self) -> RabbitMQ | None:
        """The broker of the outer bus if it is not that of the inner bus."""
        return None if self.outer is self.inner else self.outer


@dataclass(frozen=True, slots=True)
class Reconciler:
    """The work of the operator in one Kubernetes cluster, with the brokers in its settings."""

    kubernetes: Objects
    connect: Connect
    settings: Settings
    clock: Callable[[], datetime]
    namespaces: tuple[str, ...] = field(default=())
    """The namespaces that are searched for deployments; empty: all."""

    def reconcile(self, namespace: str, name: str, post_event: PostEvent) -> None:
        """Make everything as the resource describes it, and write its status.

        Raises the error that stopped it; the status contains it already.
        """
        resource = self.kubernetes.get(KIND, namespace, name)
        if resource is None or resource["metadata"].get("deletionTimestamp"):
            return
        report = Report()
        try:
            self._reconcile(resource, report, post_event)
        except StackbusError as error:
            reporting.report_error(report, error)
            self._write_status(resource, report, post_event, error)
            raise
        self._write_status(resource, report, post_event)

    def withdraw(self, namespace: str, name: str, post_event: PostEvent) -> None:
        """Remove everything that was made for the resource, and nothing else.

        Raises BrokerUnreachable while the broker is unreachable, unless the annotation ``LET_GO``
        is set.
        """
        resource = self.kubernetes.get(KIND, namespace, name)
        if resource is None or _identity(self._find_served()) != (namespace, name):
            return
        store = KubernetesStore(self.kubernetes)
        lets_go = (resource["metadata"].get("annotations") or {}).get(LET_GO) == "true"
        try:
            with self._brokers() as brokers:
                exposure = self._exposure(brokers, store, _empty_endpoint(self.settings))
                plan = exposure.plan_withdrawal()
                exposure.apply(plan, _log_step)
                _count_changes(plan)
        except (BrokerError, InputError) as error:
            if not lets_go:
                message = (
                    f"{error}. The deletion waits for the broker; to delete without it: kubectl "
                    f"-n {namespace} annotate openstackdeployment {name} {LET_GO}=true"
                )
                report = Report()
                report.set_condition(conditions.READY, "False", "Deleting", message)
                self._write_status(resource, report, post_event)
                raise BrokerUnreachable(message) from error
            post_event("Warning", "BrokerLeft", f"deleted without the broker: {error}")
            for secret_namespace in (NAMESPACE, OWN_NAMESPACE):
                for secret in store.names(secret_namespace):
                    store.remove(secret_namespace, secret)
        self._remove_objects()
        TOPICS.set(0)

    # The steps of a run

    def _reconcile(self, resource: Object, report: Report, post_event: PostEvent) -> None:
        namespace, name = _identity(resource)
        served = _identity(self._find_served())
        if served != (namespace, name):
            raise Conflict(
                f"this operator serves one {KIND}, the oldest: {'/'.join(served)}; to have "
                f"{namespace}/{name} served, delete that one"
            )
        deployment = parse(_document(resource), f"{KIND} {namespace}/{name}")
        self._create_namespaces()
        store = KubernetesStore(self.kubernetes)
        for secret_namespace in (OWN_NAMESPACE, NAMESPACE):
            store.label(secret_namespace)
        with self._brokers() as brokers:
            endpoint = self._find_endpoint(brokers, store, report)
            self._write_certificates(brokers, store, endpoint)
            report.set_condition(
                conditions.BROKER, "True", "Answers", "RabbitMQ's management API answers"
            )
            exposure = self._exposure(brokers, store, endpoint)
            exposed = exposure.generations()
            deployment, refused = _without_foreign(deployment, store.foreign(NAMESPACE), exposed)
            if not endpoint.hosts:
                if exposed:
                    raise Waiting("the topics stay unchanged until the endpoint has an address")
                deployment = replace(deployment, topics=())
            topics = {topic.name: exposed.get(topic.name) for topic in deployment.topics}
            if endpoint.hosts:
                self._rotate(resource, exposure, deployment, exposed, report, post_event)
            plan = exposure.plan(deployment)
            if plan:
                log.info("operator.applying", changes=len(plan.steps))
            exposure.apply(plan, _log_step)
            _count_changes(plan)
            reporting.post_changes(plan, topics, exposed, post_event)
            assert plan.credentials is not None
            self._write_relay_secret(brokers, store, plan.credentials)
            report.topics = (
                *_report_topics(plan.credentials, plan.parts[-1].ledger.topics),
                *(
                    TopicReport(topic, secret_name(topic), problem=reason)
                    for topic, reason in refused.items()
                ),
            )
            self._report_relay(brokers, report)
        reporting.report_success(report, refused, is_waiting=not endpoint.hosts)

    def _create_namespaces(self) -> None:
        """Create the namespaces if that is allowed; if not, the first write into one fails."""
        for name in (OWN_NAMESPACE, NAMESPACE):
            try:
                if self.kubernetes.get("Namespace", None, name) is None:
                    self.kubernetes.create(objects.namespace(name))
            except KubernetesError as error:
                log.warning("operator.namespace_not_created", namespace=name, error=str(error))

    @contextmanager
    def _brokers(self) -> Iterator[Brokers]:
        assert self.settings.broker_secret is not None  # wiring/kubernetes.py checks it
        inner = self._read_access(self.settings.broker_secret)
        with self.connect(inner) as inner_broker:
            if self.settings.outer_broker_secret is None:
                yield Brokers(inner_broker, inner_broker, inner, inner)
                return
            outer = self._read_access(self.settings.outer_broker_secret)
            with self.connect(outer) as outer_broker:
                yield Brokers(inner_broker, outer_broker, inner, outer)

    def _read_access(self, secret_path: str) -> Access:
        namespace, _, name = secret_path.partition("/")
        return read_access(self.kubernetes.get("Secret", namespace, name), secret_path)

    def _find_endpoint(self, brokers: Brokers, store: KubernetesStore, report: Report) -> Endpoint:
        """Apply the Service and return its endpoint; without an address, the previous endpoint."""
        namespace = brokers.outer_access.namespace
        present = self.kubernetes.get("Service", namespace, SERVICE)
        service = self._apply(
            present,
            objects.service(
                namespace,
                self.settings.service_type,
                _find_ports(brokers.outer, present),
                self.settings.service_selector,
                self.settings.service_annotations,
            ),
        )
        is_on_nodes = service["spec"].get("type") == "NodePort" and not self.settings.advertise
        nodes = self.kubernetes.list("Node") if is_on_nodes else []
        names = brokers.outer_access.names
        vhost = self.settings.outer_vhost
        endpoint, waiting = find_endpoint(
            service, nodes, tuple(self.settings.advertise), names, vhost
        )
        if waiting:
            previous = _read_previous_endpoint(store, vhost)
            hosts = f"; the Secrets keep {', '.join(previous.hosts)} until then" if previous else ""
            report.set_condition(conditions.ENDPOINT, "False", "Waiting", waiting + hosts)
            return replace(previous, names=endpoint.names) if previous else endpoint
        report.hosts = endpoint.hosts
        report.set_condition(
            conditions.ENDPOINT,
            "True",
            "Known",
            f"consumers connect to {', '.join(endpoint.hosts)}, port {endpoint.port_amqp}, or "
            f"{endpoint.port_amqps} with TLS",
        )
        return endpoint

    def _apply(self, present: Object | None, desired: Object) -> Object:
        """Apply an object unless it is as desired. Raises Conflict if it is not ours."""
        if present is not None and not is_ours(present):
            path = f"{desired['metadata']['namespace']}/{desired['metadata']['name']}"
            raise Conflict(
                f"the {desired['kind']} {path} exists and does not belong to stackbus: delete it"
            )
        if present is not None and _contains(present, desired):
            return present
        return self.kubernetes.apply(desired)

    def _write_certificates(
        self, brokers: Brokers, store: KubernetesStore, endpoint: Endpoint
    ) -> None:
        """Write the CA and the server's certificate. The broker may need them to start."""
        credentials = creds.prepare_credentials(
            store,
            NOTHING,
            {},
            endpoint,
            self.clock(),
            certificate_days=self.settings.certificate_days,
            renew_days=self.settings.renew_days,
        )
        for secret in credentials.secrets():
            _write_if_changed(store, secret)
        namespace = brokers.outer_access.namespace
        for desired in (
            as_object(objects.server_tls(namespace, credentials)),
            objects.configuration(namespace),
        ):
            name = desired["metadata"]["name"]
            self._apply(self.kubernetes.get(desired["kind"], namespace, name), desired)

    def _exposure(self, brokers: Brokers, store: KubernetesStore, endpoint: Endpoint) -> Exposure:
        return Exposure(
            brokers.inner, store, endpoint, self.settings, self.clock, outer=brokers.separate
        )

    def _rotate(
        self,
        resource: Object,
        exposure: Exposure,
        deployment: Deployment,
        exposed: Mapping[str, Generations],
        report: Report,
        post_event: PostEvent,
    ) -> None:
        annotations = resource["metadata"].get("annotations") or {}
        topics = {
            topic.name: exposed[topic.name] for topic in deployment.topics if topic.name in exposed
        }
        targets = rotation.decode_targets(annotations.get(rotation.ROTATING, ""))
        if not targets and rotation.ROTATE in annotations:
            if not topics and deployment.topics:
                return  # this run exposes them for the first time
            try:
                targets = rotation.parse_request(annotations[rotation.ROTATE], topics)
            except InputError as error:
                report.set_condition(conditions.ROTATED, "False", "Refused", str(error))
                return
            change = {rotation.ROTATE: None, rotation.ROTATING: rotation.encode_targets(targets)}
            patch = {"metadata": {"annotations": change}}
            self.kubernetes.patch(resource, patch, only_if_unchanged=True)
        done = []
        for target in targets:
            if target.topic not in topics:
                continue
            if topics[target.topic].current < target.generation:
                plan = exposure.plan_rotation(deployment, target.topic, grace=target.grace)
                exposure.apply(plan, _log_step)
                _count_changes(plan)
                old = f"work {target.grace} longer" if target.grace else "have ended"
                message = f"topic {target.topic}: new credentials; the old ones {old}"
                post_event("Normal", "Rotated", message)
            done.append(target.topic)
        if rotation.ROTATING in annotations or targets:
            removal = {"metadata": {"annotations": {rotation.ROTATING: None}}}
            self.kubernetes.patch(resource, removal)
        if done:
            message = f"new credentials: {', '.join(done)}"
            report.set_condition(conditions.ROTATED, "True", "Done", message)
        elif conditions.rotation_was_refused(resource.get("status") or {}):
            message = "the refused rotation request was removed"
            report.set_condition(conditions.ROTATED, "True", "Withdrawn", message)

    def _write_relay_secret(
        self, brokers: Brokers, store: KubernetesStore, credentials: Credentials
    ) -> None:
        password = credentials.own_passwords[RELAY_USER]
        inner, outer = brokers.inner_access, brokers.outer_access
        # Our CA verifies a broker that uses the server certificate made here.
        bundle = "".join(dict.fromkeys((inner.ca, outer.ca, credentials.ca.certificate)))
        _write_if_changed(
            store,
            objects.relay(
                inner.url(RELAY_USER, password, self.settings.inner_vhost),
                outer.url(RELAY_USER, password, self.settings.outer_vhost),
                bundle,
            ),
        )

    def _report_relay(self, brokers: Brokers, report: Report) -> None:
        relay = topic_status.relay(brokers.inner, self.settings.inner_vhost)
        report.relay = relay
        RELAY_ACTIVE.set(relay.state == "active")
        RELAY_BEHIND.set(relay.backlog)
        backlog = f"{relay.backlog} notifications behind"
        if relay.state == "active":
            report.set_condition(
                conditions.RELAY,
                "True",
                "Active",
                f"a relay is active, {relay.standby} standing by; {backlog}",
            )
        else:
            report.set_condition(
                conditions.RELAY,
                "False",
                "Absent",
                f"no relay consumes from the inner bus, {backlog}: look at the Deployment "
                f"{OWN_NAMESPACE}/stackbus-relay and its logs",
            )

    # Objects in Kubernetes

    def _find_served(self) -> Object | None:
        """Return the resource that this operator serves: the oldest one."""
        resources = [
            resource
            for namespace in self.namespaces or (None,)
            for resource in self.kubernetes.list(KIND, namespace)
        ]
        return min(
            resources,
            key=lambda resource: (
                resource["metadata"].get("creationTimestamp", ""),
                *_identity(resource),
            ),
            default=None,
        )

    def _remove_objects(self) -> None:
        secret_path = self.settings.outer_broker_secret or self.settings.broker_secret or ""
        namespace = secret_path.partition("/")[0]
        for kind, name in (
            ("Service", SERVICE),
            ("ConfigMap", objects.CONFIGURATION),
            ("Secret", objects.SERVER_TLS),
        ):
            present = self.kubernetes.get(kind, namespace, name)
            if present is not None and is_ours(present):
                self.kubernetes.delete(kind, namespace, name)

    def _write_status(
        self,
        resource: Object,
        report: Report,
        post_event: PostEvent,
        error: StackbusError | None = None,
    ) -> None:
        """Write the status if it changed, and post an event for each changed condition."""
        before = resource.get("status") or {}
        generation = resource["metadata"].get("generation", 0)
        after = report.to_status(before, generation, self.clock())
        for event in reporting.list_transitions(
            before.get("conditions") or [], after["conditions"]
        ):
            post_event(*event)
        reachable = report.conditions.get(conditions.BROKER)
        if reachable is not None:
            BROKER_REACHABLE.set(reachable.status == "True")
        if all(before.get(key) == value for key, value in after.items()):
            return
        namespace, name = _identity(resource)
        try:
            self.kubernetes.apply_status(
                {
                    "apiVersion": API_VERSION,
                    "kind": KIND,
                    "metadata": {"name": name, "namespace": namespace},
                    "status": after,
                }
            )
        except KubernetesError:
            if error is None:
                raise
            log.warning("operator.status_not_written", resource=f"{namespace}/{name}")


def _identity(resource: Object | None) -> tuple[str, str]:
    if resource is None:
        return ("", "")
    return resource["metadata"]["namespace"], resource["metadata"]["name"]


def _document(resource: Object) -> dict[str, Any]:
    """Return the part of the resource that the administrator writes."""
    keys = ("apiVersion", "kind", "metadata", "spec")
    return {key: resource[key] for key in keys if key in resource}


def _empty_endpoint(settings: Settings) -> Endpoint:
    return Endpoint((), *_DEFAULT_PORTS, settings.outer_vhost)


def _find_ports(broker: RabbitMQ, service: Object | None) -> tuple[int, int]:
    """Return the ports of the broker's listeners; if it is unreachable, those of the Service."""
    try:
        plain, encrypted = broker.listener("amqp"), broker.listener("amqp/ssl")
    except BrokerUnreachable:
        ports = [port["port"] for port in service["spec"]["ports"]] if service else []
        return (ports[0], ports[1]) if len(ports) == len(_DEFAULT_PORTS) else _DEFAULT_PORTS
    return plain or _DEFAULT_PORTS[0], encrypted or _DEFAULT_PORTS[1]


def _contains(present: object, desired: object) -> bool:
    """Return whether ``present`` has every value of ``desired``; it may have more."""
    if isinstance(desired, Mapping) and isinstance(present, Mapping):
        return all(key in present and _contains(present[key], desired[key]) for key in desired)
    if isinstance(desired, list) and isinstance(present, list):
        return len(desired) == len(present) and all(map(_contains, present, desired))
    return present == desired


def _read_previous_endpoint(store: KubernetesStore, vhost: str) -> Endpoint | None:
    """Return the endpoint in the original of a consumer's Secret; None without any."""
    for name in filter(creds.is_topic_secret, store.names(OWN_NAMESPACE)):
        secret = store.read(OWN_NAMESPACE, name)
        data = secret.data if secret else {}
        ports = (data.get("port_amqp", ""), data.get("port_amqp-tls", ""))
        if data.get("hosts") and all(port.isdecimal() for port in ports):
            return Endpoint(tuple(data["hosts"].split(",")), int(ports[0]), int(ports[1]), vhost)
    return None


def _without_foreign(
    deployment: Deployment, foreign: frozenset[str], exposed: Mapping[str, object]
) -> tuple[Deployment, dict[str, str]]:
    """Return the deployment without the topics whose Secret is not ours, and the reason by topic.

    Raises Conflict for an exposed topic: without it in the deployment, its queues would be removed.
    """
    refused = {}
    for topic in deployment.topics:
        if secret_name(topic.name) in foreign:
            refused[topic.name] = (
                f"the Secret {NAMESPACE}/{secret_name(topic.name)} exists and does not belong to "
                "stackbus; rename the topic, or delete that Secret"
            )
    if conflicts := refused.keys() & exposed.keys():
        raise Conflict("; ".join(refused[topic] for topic in sorted(conflicts)))
    topics = tuple(topic for topic in deployment.topics if topic.name not in refused)
    return replace(deployment, topics=topics), refused


def _write_if_changed(store: KubernetesStore, secret: Secret) -> None:
    if store.read(secret.namespace, secret.name) != secret:
        store.write(secret)


def _report_topics(
    credentials: Credentials, generations: Mapping[str, Generations]
) -> Iterator[TopicReport]:
    """Yield the report of each exposed topic, and set its metrics."""
    TOPICS.set(len(credentials.consumers))
    CERTIFICATE_EXPIRES.clear()
    for consumer in credentials.consumers:
        expires = certificates.expires(consumer.client.certificate)
        CERTIFICATE_EXPIRES.labels(consumer.topic).set(expires.timestamp())
        yield TopicReport(
            consumer.topic,
            secret_name(consumer.topic),
            tuple(queue_name(consumer.topic, priority) for priority in PRIORITIES),
            expires,
            generations[consumer.topic].rotated_at,
        )


def _count_changes(plan: Plan) -> None:
    for step in plan.steps:
        CHANGES.labels(step.kind, step.sign).inc()


def _log_step(text: str) -> None:
    log.debug("operator.step", step=text)
