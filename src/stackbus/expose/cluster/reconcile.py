"""Keep RabbitMQ, the Secrets, the Service and the status in line with one resource.

Called by ``operator/``, one run at a time, for whatever reason: something changed, or time has
passed. ``Cluster.reconcile`` reads everything anew and does what is left, so it may be stopped
anywhere. It reads top to bottom:

    resource -> deployment -> the broker's Secret -> Service -> endpoint -> CA and server
    certificate -> rotation, plan, apply -> the relay's Secret -> status

``Cluster.withdraw`` takes all of it away again.
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
from stackbus.expose import status as exposed
from stackbus.expose.api import BrokerApi
from stackbus.expose.apply import Exposure, Plan
from stackbus.expose.cluster import Object, objects, rotation, telling
from stackbus.expose.cluster import status as told
from stackbus.expose.cluster.endpoint import SERVICE, Access, access, endpoint
from stackbus.expose.cluster.status import Report, TopicReport
from stackbus.expose.cluster.store import KubernetesStore, Objects, is_ours
from stackbus.expose.cluster.telling import Tell
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
"""An annotation: with the value ``true``, a deletion does not wait for a broker that is gone."""

_DEFAULT_PORTS = (5672, 5671)

log = structlog.get_logger()


class RabbitMQ(BrokerApi, exposed.StatusApi, Protocol):
    """What is needed of a broker; ``clients/management.py`` is the real one."""

    def listener(self, protocol: str) -> int | None:
        """Tell the port of a listener (``amqp``, ``amqp/ssl``), None if there is none."""


Connect = Callable[[Access], AbstractContextManager[RabbitMQ]]


@dataclass(frozen=True, slots=True)
class Brokers:
    """The brokers of the two buses; most often one and the same."""

    inner: RabbitMQ
    outer: RabbitMQ
    inner_access: Access
    outer_access: Access

    @property
    def separate(self) -> RabbitMQ | None:
        """Give the outer bus' broker if it is one of its own."""
        return None if self.outer is self.inner else self.outer


@dataclass(frozen=True, slots=True)
class Cluster:
    """One Kubernetes cluster with the broker that its settings name."""

    kubernetes: Objects
    connect: Connect
    settings: Settings
    clock: Callable[[], datetime]
    namespaces: tuple[str, ...] = field(default=())
    """Where deployments are looked for; none: everywhere."""

    def reconcile(self, namespace: str, name: str, tell: Tell) -> None:
        """Make everything as the resource wants it, and write its status.

        Raises what stopped it; the status tells that already.
        """
        found = self.kubernetes.get(KIND, namespace, name)
        if found is None or found["metadata"].get("deletionTimestamp"):
            return
        report = Report()
        try:
            self._make_so(found, report, tell)
        except StackbusError as error:
            telling.blame(error, report)
            self._publish(found, report, tell, error)
            raise
        self._publish(found, report, tell)

    def withdraw(self, namespace: str, name: str, tell: Tell) -> None:
        """Take away everything that was made for the resource, and nothing else.

        Raises BrokerUnreachable while the broker is gone, until the annotation ``LET_GO`` says
        that it is not to be waited for.
        """
        found = self.kubernetes.get(KIND, namespace, name)
        if found is None or _identity(self._served()) != (namespace, name):
            return
        store = KubernetesStore(self.kubernetes)
        lets_go = (found["metadata"].get("annotations") or {}).get(LET_GO) == "true"
        try:
            with self._brokers() as brokers:
                exposure = self._exposure(brokers, store, _nowhere(self.settings))
                plan = exposure.plan_withdrawal()
                exposure.apply(plan, _debug)
                _count(plan)
        except (BrokerError, InputError) as error:
            if not lets_go:
                mend = (
                    f"{error}. What is in the broker is waited for; to delete without it: kubectl "
                    f"-n {namespace} annotate openstackdeployment {name} {LET_GO}=true"
                )
                report = Report()
                report.say(told.READY, "False", "Deleting", mend)
                self._publish(found, report, tell)
                raise BrokerUnreachable(mend) from error
            tell("Warning", "BrokerLeft", f"deleted without the broker: {error}")
            for where in (NAMESPACE, OWN_NAMESPACE):
                for secret in store.names(where):
                    store.remove(where, secret)
        self._remove_objects()
        TOPICS.set(0)

    # The steps of a run

    def _make_so(self, found: Object, report: Report, tell: Tell) -> None:
        namespace, name = _identity(found)
        served = _identity(self._served())
        if served != (namespace, name):
            raise Conflict(
                f"this operator serves one {KIND}, the oldest: {'/'.join(served)}; delete that one "
                "to have this one served"
            )
        deployment = parse(_document(found), f"{KIND} {namespace}/{name}")
        self._namespaces()
        store = KubernetesStore(self.kubernetes)
        for one in (OWN_NAMESPACE, NAMESPACE):
            store.label(one)
        with self._brokers() as brokers:
            where = self._endpoint(brokers, store, report)
            self._certificates(brokers, store, where)
            report.say(told.BROKER, "True", "Answers", "RabbitMQ's management API answers")
            exposure = self._exposure(brokers, store, where)
            known = exposure.generations()
            deployment, refused = _without_foreign(deployment, store.foreign(NAMESPACE), known)
            if not where.hosts:
                if known:
                    raise Waiting("the topics keep what they have until there is an address")
                deployment = replace(deployment, topics=())
            wanted_topics = {topic.name: known.get(topic.name) for topic in deployment.topics}
            if where.hosts:
                self._rotate(found, exposure, deployment, known, report, tell)
            plan = exposure.plan(deployment)
            if plan:
                log.info("operator.applying", changes=len(plan.steps))
            exposure.apply(plan, _debug)
            _count(plan)
            telling.tell_changes(plan, wanted_topics, known, tell)
            assert plan.credentials is not None
            self._relay_secret(brokers, store, plan.credentials)
            report.topics = (
                *_topics(plan.credentials, plan.parts[-1].ledger.topics),
                *(TopicReport(one, secret_name(one), problem=why) for one, why in refused.items()),
            )
            self._relay_status(brokers, report)
        telling.say_ready(report, refused, waits=not where.hosts)

    def _namespaces(self) -> None:
        """Make the namespaces if that is allowed; if not, the first write into one tells it."""
        for name in (OWN_NAMESPACE, NAMESPACE):
            try:
                if self.kubernetes.get("Namespace", None, name) is None:
                    self.kubernetes.create(objects.namespace(name))
            except KubernetesError as error:
                log.warning("operator.no-namespace", namespace=name, error=str(error))

    @contextmanager
    def _brokers(self) -> Iterator[Brokers]:
        assert self.settings.broker_secret is not None  # wiring.py has seen to it
        inner = self._access(self.settings.broker_secret)
        with self.connect(inner) as first:
            if self.settings.outer_broker_secret is None:
                yield Brokers(first, first, inner, inner)
                return
            outer = self._access(self.settings.outer_broker_secret)
            with self.connect(outer) as second:
                yield Brokers(first, second, inner, outer)

    def _access(self, place: str) -> Access:
        namespace, _, name = place.partition("/")
        return access(self.kubernetes.get("Secret", namespace, name), place)

    def _endpoint(self, brokers: Brokers, store: KubernetesStore, report: Report) -> Endpoint:
        """Make the Service, and say where consumers connect; what was said before stays valid."""
        where = brokers.outer_access.namespace
        present = self.kubernetes.get("Service", where, SERVICE)
        service = self._keep(
            present,
            objects.service(
                where,
                self.settings.service_type,
                _ports(brokers.outer, present),
                self.settings.service_selector,
                self.settings.service_annotations,
            ),
        )
        is_on_nodes = service["spec"].get("type") == "NodePort" and not self.settings.advertise
        nodes = self.kubernetes.list("Node") if is_on_nodes else []
        names = brokers.outer_access.names
        vhost = self.settings.outer_vhost
        found, waiting = endpoint(service, nodes, tuple(self.settings.advertise), names, vhost)
        if waiting:
            kept = _kept_endpoint(store, vhost)
            report.say(
                told.ENDPOINT,
                "False",
                "Waiting",
                waiting
                + (f"; the Secrets keep {', '.join(kept.hosts)} until then" if kept else ""),
            )
            return replace(kept, names=found.names) if kept else found
        report.hosts = found.hosts
        report.say(
            told.ENDPOINT,
            "True",
            "Known",
            f"consumers connect to {', '.join(found.hosts)}, port {found.port_amqp}, or "
            f"{found.port_amqps} with TLS",
        )
        return found

    def _keep(self, present: Object | None, wanted: Object) -> Object:
        """Write an object unless it is as wanted. Raises Conflict if it is somebody else's."""
        if present is not None and not is_ours(present):
            place = f"{wanted['metadata']['namespace']}/{wanted['metadata']['name']}"
            raise Conflict(
                f"the {wanted['kind']} {place} is not stackbus': it is left as it is; remove it"
            )
        if present is not None and _holds(present, wanted):
            return present
        return self.kubernetes.apply(wanted)

    def _certificates(self, brokers: Brokers, store: KubernetesStore, where: Endpoint) -> None:
        """Make what the broker mounts; it may need that to start, so it is not asked anything."""
        credentials = creds.prepare_credentials(
            store,
            NOTHING,
            {},
            where,
            self.clock(),
            certificate_days=self.settings.certificate_days,
            renew_days=self.settings.renew_days,
        )
        for secret in credentials.secrets():
            _write_if_changed(store, secret)
        where_mounted = brokers.outer_access.namespace
        for wanted in (
            as_object(objects.server_tls(where_mounted, credentials)),
            objects.configuration(where_mounted),
        ):
            name = wanted["metadata"]["name"]
            self._keep(self.kubernetes.get(wanted["kind"], where_mounted, name), wanted)

    def _exposure(self, brokers: Brokers, store: KubernetesStore, where: Endpoint) -> Exposure:
        return Exposure(
            brokers.inner, store, where, self.settings, self.clock, outer=brokers.separate
        )

    def _rotate(
        self,
        found: Object,
        exposure: Exposure,
        deployment: Deployment,
        known: Mapping[str, Generations],
        report: Report,
        tell: Tell,
    ) -> None:
        annotations = found["metadata"].get("annotations") or {}
        topics = {
            topic.name: known[topic.name] for topic in deployment.topics if topic.name in known
        }
        wanted = rotation.read(annotations.get(rotation.ROTATING, ""))
        if not wanted and rotation.ROTATE in annotations:
            if not topics and deployment.topics:
                return  # they are about to be exposed for the first time
            try:
                wanted = rotation.targets(annotations[rotation.ROTATE], topics)
            except InputError as error:
                report.say(told.ROTATED, "False", "Refused", str(error))
                return
            change = {rotation.ROTATE: None, rotation.ROTATING: rotation.written(wanted)}
            patch = {"metadata": {"annotations": change}}
            self.kubernetes.patch(found, patch, only_if_unchanged=True)
        done = []
        for target in wanted:
            if target.topic not in topics:
                continue
            if topics[target.topic].current < target.generation:
                plan = exposure.plan_rotation(deployment, target.topic, grace=target.grace)
                exposure.apply(plan, _debug)
                _count(plan)
                old = f"work {target.grace} longer" if target.grace else "have ended"
                sentence = f"topic {target.topic}: new credentials; the old ones {old}"
                tell("Normal", "Rotated", sentence)
            done.append(target.topic)
        if rotation.ROTATING in annotations or wanted:
            gone = {"metadata": {"annotations": {rotation.ROTATING: None}}}
            self.kubernetes.patch(found, gone)
        if done:
            report.say(told.ROTATED, "True", "Done", f"new credentials: {', '.join(done)}")
        elif told.was_refused(found.get("status") or {}):
            report.say(told.ROTATED, "True", "Withdrawn", "no rotation is asked for any more")

    def _relay_secret(
        self, brokers: Brokers, store: KubernetesStore, credentials: Credentials
    ) -> None:
        password = credentials.own_passwords[RELAY_USER]
        inner, outer = brokers.inner_access, brokers.outer_access
        # A broker that has the certificate made here is verified by our CA.
        bundle = "".join(dict.fromkeys((inner.ca, outer.ca, credentials.ca.certificate)))
        _write_if_changed(
            store,
            objects.relay(
                inner.url(RELAY_USER, password, self.settings.inner_vhost),
                outer.url(RELAY_USER, password, self.settings.outer_vhost),
                bundle,
            ),
        )

    def _relay_status(self, brokers: Brokers, report: Report) -> None:
        found = exposed.relay(brokers.inner, self.settings.inner_vhost)
        report.relay = found
        RELAY_ACTIVE.set(found.state == "active")
        RELAY_BEHIND.set(found.backlog)
        behind = f"{found.backlog} notifications behind"
        if found.state == "active":
            report.say(
                told.RELAY,
                "True",
                "Active",
                f"a relay is active, {found.standby} standing by; {behind}",
            )
        else:
            report.say(
                told.RELAY,
                "False",
                "Absent",
                f"no relay takes from the inner bus, {behind}: look at the Deployment "
                f"{OWN_NAMESPACE}/stackbus-relay and its logs",
            )

    # What is asked of the cluster

    def _served(self) -> Object | None:
        """Give the one resource that is served: the oldest that can be."""
        listed = [
            one
            for namespace in self.namespaces or (None,)
            for one in self.kubernetes.list(KIND, namespace)
        ]
        return min(
            listed,
            key=lambda one: (one["metadata"].get("creationTimestamp", ""), *_identity(one)),
            default=None,
        )

    def _remove_objects(self) -> None:
        place = self.settings.outer_broker_secret or self.settings.broker_secret or ""
        namespace = place.partition("/")[0]
        for kind, name in (
            ("Service", SERVICE),
            ("ConfigMap", objects.CONFIGURATION),
            ("Secret", objects.SERVER_TLS),
        ):
            present = self.kubernetes.get(kind, namespace, name)
            if present is not None and is_ours(present):
                self.kubernetes.delete(kind, namespace, name)

    def _publish(
        self, found: Object, report: Report, tell: Tell, error: StackbusError | None = None
    ) -> None:
        """Write the status if it says anything new, and tell people what turned."""
        before = found.get("status") or {}
        generation = found["metadata"].get("generation", 0)
        after = report.to_status(before, generation, self.clock())
        for line in telling.turned(before.get("conditions") or [], after["conditions"]):
            tell(*line)
        reachable = report.conditions.get(told.BROKER)
        if reachable is not None:
            BROKER_REACHABLE.set(reachable.status == "True")
        if all(before.get(key) == value for key, value in after.items()):
            return
        namespace, name = _identity(found)
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
            log.warning("operator.status-unwritten", resource=f"{namespace}/{name}")


def _identity(found: Object | None) -> tuple[str, str]:
    if found is None:
        return ("", "")
    return found["metadata"]["namespace"], found["metadata"]["name"]


def _document(found: Object) -> dict[str, Any]:
    """Give the part of the resource that is an administrator's."""
    return {key: found[key] for key in ("apiVersion", "kind", "metadata", "spec") if key in found}


def _nowhere(settings: Settings) -> Endpoint:
    return Endpoint((), *_DEFAULT_PORTS, settings.outer_vhost)


def _ports(broker: RabbitMQ, service: Object | None) -> tuple[int, int]:
    """Ask where the broker listens; while it is away the Service keeps its ports."""
    try:
        plain, encrypted = broker.listener("amqp"), broker.listener("amqp/ssl")
    except BrokerUnreachable:
        known = [port["port"] for port in service["spec"]["ports"]] if service else []
        return (known[0], known[1]) if len(known) == len(_DEFAULT_PORTS) else _DEFAULT_PORTS
    return plain or _DEFAULT_PORTS[0], encrypted or _DEFAULT_PORTS[1]


def _holds(present: object, wanted: object) -> bool:
    """Tell whether everything that is ``wanted`` is so in ``present``, which may hold more."""
    if isinstance(wanted, Mapping) and isinstance(present, Mapping):
        return all(key in present and _holds(present[key], wanted[key]) for key in wanted)
    if isinstance(wanted, list) and isinstance(present, list):
        return len(wanted) == len(present) and all(map(_holds, present, wanted))
    return present == wanted


def _kept_endpoint(store: KubernetesStore, vhost: str) -> Endpoint | None:
    """Read from the original of a consumer's Secret what consumers were told last."""
    for name in filter(creds.is_topic_secret, store.names(OWN_NAMESPACE)):
        kept = store.read(OWN_NAMESPACE, name)
        data = kept.data if kept else {}
        ports = (data.get("port_amqp", ""), data.get("port_amqp-tls", ""))
        if data.get("hosts") and all(port.isdecimal() for port in ports):
            return Endpoint(tuple(data["hosts"].split(",")), int(ports[0]), int(ports[1]), vhost)
    return None


def _without_foreign(
    deployment: Deployment, foreign: frozenset[str], known: Mapping[str, object]
) -> tuple[Deployment, dict[str, str]]:
    """Leave out the topics whose Secret is somebody else's; say why, by topic.

    Raises Conflict for one that is exposed already: leaving it out would remove its queues.
    """
    refused = {}
    for topic in deployment.topics:
        if secret_name(topic.name) in foreign:
            refused[topic.name] = (
                f"the Secret {NAMESPACE}/{secret_name(topic.name)} is not stackbus': it is left as "
                "it is; name the topic otherwise, or remove that Secret"
            )
    if taken := refused.keys() & known.keys():
        raise Conflict("; ".join(refused[topic] for topic in sorted(taken)))
    kept = tuple(topic for topic in deployment.topics if topic.name not in refused)
    return replace(deployment, topics=kept), refused


def _write_if_changed(store: KubernetesStore, secret: Secret) -> None:
    if store.read(secret.namespace, secret.name) != secret:
        store.write(secret)


def _topics(credentials: Credentials, known: Mapping[str, Generations]) -> Iterator[TopicReport]:
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
            known[consumer.topic].rotated_at,
        )


def _count(plan: Plan) -> None:
    for step in plan.steps:
        CHANGES.labels(step.kind, step.sign).inc()


def _debug(text: str) -> None:
    log.debug("operator.step", step=text)
