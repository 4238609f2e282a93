"""The OpenStackDeployment as a value: its topics, their filters and their queues.

``validation.py`` makes it from a file or a resource; ``topology.py`` builds the items in RabbitMQ
from it.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from stackbus.bus.routing import RoutingFilter
from stackbus.services import BY_NAME

API_VERSION = "lcm.mirantis.com/v1alpha1"
KIND = "OpenStackDeployment"


@dataclass(frozen=True, slots=True)
class Queue:
    """How long and how much a topic's queues keep; None stands for the default in the settings."""

    type: str = "quorum"
    max_age: int | None = None
    max_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class Topic:
    """One topic: its name, its filter (None lets all pass), and its consumer's access."""

    name: str
    services: tuple[str, ...] | None = None
    events: tuple[str, ...] | None = None
    projects: tuple[str, ...] | None = None
    priorities: tuple[str, ...] | None = None
    read_only: bool = False
    queue: Queue = field(default_factory=Queue)


@dataclass(frozen=True, slots=True)
class Deployment:
    """The deployment. ``services``: names of the enabled services, None for all ten."""

    name: str
    namespace: str
    services: tuple[str, ...] | None = None
    topics: tuple[Topic, ...] = ()

    def to_document(self) -> dict[str, object]:
        """Return the resource that ``parse`` reads as this deployment."""
        external: dict[str, object] = {
            "enabled": True,
            "topics": [topic.name for topic in self.topics],
            "settings": {topic.name: _settings_document(topic) for topic in self.topics},
        }
        features: dict[str, object] = {"messaging": {"notifications": {"external": external}}}
        if self.services is not None:
            features["services"] = [BY_NAME[name].type for name in self.services]
        return {
            "apiVersion": API_VERSION,
            "kind": KIND,
            "metadata": {"name": self.name, "namespace": self.namespace},
            "spec": {"features": features},
        }


NOTHING = Deployment(name="openstack", namespace="openstack")
"""The deployment before the first apply: no topics."""


def binding_keys(topic: Topic, enabled: tuple[str, ...] | None) -> tuple[str, ...]:
    """Return the routing keys by which ``topic`` is bound to the outer exchange.

    ``enabled``: the deployment's services, which hold for a topic without a list of its own.
    """
    services = topic.services if topic.services is not None else enabled
    return RoutingFilter(
        services=services or (),
        event_types=topic.events or (),
        projects=topic.projects or (),
        priorities=topic.priorities or (),
    ).binding_keys()


def service_name(name_or_type: str) -> str | None:
    """Return a service's name for its name or type (``compute`` is ``nova``), None if unknown."""
    service = BY_NAME.get(name_or_type)
    return service.name if service else None


def _settings_document(topic: Topic) -> dict[str, object]:
    queue: dict[str, object] = {"type": topic.queue.type}
    if topic.queue.max_age is not None:
        queue["maxAge"] = f"{topic.queue.max_age}s"
    if topic.queue.max_bytes is not None:
        queue["maxBytes"] = topic.queue.max_bytes
    lists = {
        "services": topic.services and [BY_NAME[name].type for name in topic.services],
        "events": topic.events and list(topic.events),
        "projects": topic.projects and list(topic.projects),
        "priorities": topic.priorities and list(topic.priorities),
    }
    return {
        **{name: values for name, values in lists.items() if values},
        "access": "read-only" if topic.read_only else "own",
        "queue": queue,
    }
