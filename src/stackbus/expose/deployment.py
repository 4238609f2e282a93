"""The OpenStackDeployment: read, checked, and turned into a value.

Called by the doors with a file (``load``) or by the operator with a resource (``parse``); the
value goes to ``topology.py``. Every mistake is found in one run, each with its path in the
document, the value that stands there, and the mend. What MOSK's resource holds besides
``spec.features.services`` and ``spec.features.messaging.notifications.external`` is let through.
"""

from __future__ import annotations

import difflib
import re
import reprlib
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import yaml
from os_service_types import ServiceTypes
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, ValidationError
from pydantic_core import ErrorDetails, PydanticCustomError

from stackbus.errors import InputError, InvalidDeployment, Mistake
from stackbus.services import BY_NAME, SERVICES
from stackbus.services.service import PRIORITIES, PROJECT_ID

API_VERSION = "lcm.mirantis.com/v1alpha1"
KIND = "OpenStackDeployment"
EXTERNAL = "spec.features.messaging.notifications.external"

MAX_TOPIC_NAME = 253 - len("openstack-") - len("-notifications")
"""Characters: beyond it ``openstack-<topic>-notifications`` is no legal Secret name."""

MAX_BINDINGS = 1000
"""Bindings of one topic's filter; each combination of the four lists is one."""

MAX_TOPICS = 500
"""Topics of one deployment at most: Kubernetes wants a limit, to know what its checks cost."""

MAX_AGE = (2**32 - 1) // 1000
"""Seconds: RabbitMQ's message TTL is a 32-bit number of milliseconds (rabbit_misc.erl)."""

SUBDOMAIN = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
PATTERN_WORD = re.compile(r"\*|#|[A-Za-z0-9_:@-]+")
AGE = re.compile(r"([0-9]{1,9})(s|m|h|d|w)")
BYTES = re.compile(r"([0-9]{1,15})(B|[kKMGT]B|[KMGT]iB)")
SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}
_MAX_FILE = 16 * 1024**2

# What MOSK's `spec.features.services` names beside the official service types (rockoon's crds).
OTHER_SERVICES = frozenset(
    """
    alarm alarming backup cloudprober coordination dashboard database descheduler
    dynamic-resource-balancer event federation ingress instance-ha libvirt memcached messaging
    metering metric monitoring networking placement redis secret stepler tempest
    """.split()  # noqa: SIM905 -- forty lines of quotes would say no more
)


@dataclass(frozen=True, slots=True)
class Queue:
    """How a topic's queues keep notifications; None: the settings' default."""

    type: str = "quorum"
    max_age: int | None = None
    max_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class Topic:
    """One topic: its name, what passes its filter (None: all), and what its consumer may do."""

    name: str
    services: tuple[str, ...] | None = None
    events: tuple[str, ...] | None = None
    projects: tuple[str, ...] | None = None
    priorities: tuple[str, ...] | None = None
    read_only: bool = False
    queue: Queue = field(default_factory=Queue)


@dataclass(frozen=True, slots=True)
class Deployment:
    """What an administrator asked for. ``services``: names of the enabled ones, None for all."""

    name: str
    namespace: str
    services: tuple[str, ...] | None = None
    topics: tuple[Topic, ...] = ()

    def to_document(self) -> dict[str, object]:
        """Give the resource that ``parse`` reads as this deployment."""
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


RECORD_TOPIC = "stackbus.record"
"""The topic of the recorder that runs beside the private broker; no deployment may list it."""

NOTHING = Deployment(name="openstack", namespace="openstack")
"""The deployment of a bus to which none was applied yet: no topics."""


def load(path: Path) -> Deployment:
    """Read and check the deployment in the YAML file ``path`` (``-``: standard input).

    Raises InputError for a file that cannot be read as one YAML document, InvalidDeployment for
    one that is no valid deployment.
    """
    origin = "standard input" if str(path) == "-" else str(path)
    return parse(_document(origin, _text(path, origin)), origin)


def parse(document: object, origin: str) -> Deployment:
    """Check a document that is already in memory; ``origin`` names it in errors."""
    mistakes: list[Mistake] = []
    if not isinstance(document, Mapping):
        raise InvalidDeployment(
            origin, [Mistake("(the document)", _shown(document), f"must be a {KIND} object")]
        )
    mistakes += _head(document)
    services, found = _enabled_services(document)
    mistakes += found
    external, found = _external(document)
    mistakes += found
    if external is None:
        if mistakes:
            raise InvalidDeployment(origin, mistakes)
        return Deployment(*_identity(document), services=services)
    mistakes += _names_and_references(external, services)
    try:
        checked = _External.model_validate(external)
    except ValidationError as error:
        mistakes += [_mistake(details) for details in error.errors(include_url=False)]
        raise InvalidDeployment(origin, mistakes) from None
    topics = tuple(_topic(name, checked.settings.get(name)) for name in checked.topics)
    mistakes += [
        Mistake(
            f"{EXTERNAL}.settings.{topic.name}",
            f"{bindings} bindings",
            f"services x priorities x projects x events make more than {MAX_BINDINGS}: "
            "shorten a list, or leave one out",
        )
        for topic in topics
        if (bindings := len(filters(topic, services))) > MAX_BINDINGS
    ]
    if mistakes:
        raise InvalidDeployment(origin, mistakes)
    return Deployment(
        *_identity(document), services=services, topics=topics if checked.enabled else ()
    )


def filters(topic: Topic, enabled: tuple[str, ...] | None) -> tuple[str, ...]:
    """Give the routing keys by which ``topic`` is bound to the outer exchange.

    One for each combination of priority, service, project and event pattern.
    """
    services = topic.services if topic.services is not None else enabled
    lists = (topic.priorities, services, topic.projects, topic.events)
    if all(chosen is None for chosen in lists):
        return ("#",)
    priorities, names, projects, events = (("*",) if chosen is None else chosen for chosen in lists)
    events = ("#",) if topic.events is None else events
    return tuple(
        f"{priority}.{name}.{project}.{event}"
        for priority in priorities
        for name in names
        for project in projects
        for event in events
    )


def service_named(name: str) -> str | None:
    """Give the service's name for its name or type (``compute`` gives ``nova``), None for none."""
    service = BY_NAME.get(name)
    return service.name if service else None


# Reading the file


def _text(path: Path, origin: str) -> str:
    try:
        raw = sys.stdin.buffer.read(_MAX_FILE + 1) if str(path) == "-" else _bytes(path)
    except FileNotFoundError:
        raise InputError(f"{origin}: no such file; name the deployment's YAML file") from None
    except OSError as error:
        raise InputError(f"{origin}: cannot be read: {error.strerror}") from error
    if len(raw) > _MAX_FILE:
        raise InputError(f"{origin}: larger than {_MAX_FILE} bytes; this is no deployment")
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise InputError(
            f"{origin}: no UTF-8 text (byte {error.start}); give the deployment's YAML file"
        ) from None


def _bytes(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(_MAX_FILE + 1)


class _Loader(yaml.SafeLoader):
    """The safe loader, which also refuses a key that stands twice in one mapping."""


def _mapping(loader: _Loader, node: yaml.MappingNode) -> dict[object, object]:
    loader.flatten_mapping(node)
    members: dict[object, object] = {}
    for key_node, value_node in node.value:
        key = loader.construct_object(key_node, deep=True)
        try:
            doubled = key in members
        except TypeError:
            raise yaml.constructor.ConstructorError(
                None, None, "a key must be a plain value", key_node.start_mark
            ) from None
        if doubled:
            raise yaml.constructor.ConstructorError(
                None, None, f"the key {_shown(key)} stands twice", key_node.start_mark
            )
        members[key] = loader.construct_object(value_node, deep=True)
    return members


_Loader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _mapping)


def _document(origin: str, text: str) -> object:
    try:
        documents = list(yaml.load_all(text, _Loader))
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f" line {mark.line + 1}, column {mark.column + 1}:" if mark else ""
        raise InputError(f"{origin}:{where} {error.problem}") from None
    except (yaml.YAMLError, ValueError) as error:
        raise InputError(f"{origin}: no YAML: {str(error).splitlines()[0]}") from None
    except RecursionError:
        raise InputError(f"{origin}: nested too deep to be a deployment") from None
    documents = [document for document in documents if document is not None]
    if not documents:
        raise InputError(f"{origin}: empty; an {KIND} was expected")
    if len(documents) > 1:
        raise InputError(f"{origin}: {len(documents)} documents; one {KIND} was expected")
    return documents[0]


# The parts of the resource


def _identity(document: Mapping[object, object]) -> tuple[str, str]:
    metadata = document["metadata"]
    assert isinstance(metadata, Mapping)  # _head has seen it
    return metadata["name"], metadata.get("namespace", "openstack")


def _head(document: Mapping[object, object]) -> Iterator[Mistake]:
    for key, wanted in (("apiVersion", API_VERSION), ("kind", KIND)):
        if document.get(key) != wanted:
            yield Mistake(key, _shown_member(document, key), f"must be {wanted}")
    metadata = document.get("metadata")
    if not isinstance(metadata, Mapping):
        yield Mistake(
            "metadata", _shown_member(document, "metadata"), "must be an object with a name"
        )
        return
    for key in ("name", "namespace"):
        value = metadata.get(key, "openstack" if key == "namespace" else None)
        if not isinstance(value, str) or not SUBDOMAIN.fullmatch(value):
            yield Mistake(
                f"metadata.{key}",
                _shown_member(metadata, key),
                "must be a Kubernetes name: lower-case letters, digits, '-' and '.'",
            )


def _enabled_services(
    document: Mapping[object, object],
) -> tuple[tuple[str, ...] | None, list[Mistake]]:
    features, mistakes = _object_at(document, ("spec", "features"))
    path = "spec.features.services"
    if features is None or "services" not in features:
        return None, []  # _external tells what is wrong with spec.features itself
    listed = features["services"]
    if not isinstance(listed, list):
        return None, [Mistake(path, _shown(listed), "must be a list of service types")]
    official = ServiceTypes()
    known = {*BY_NAME, *OTHER_SERVICES, *official.all_types_by_service_type}
    names = []
    for index, name in enumerate(listed):
        if not isinstance(name, str):
            mistakes.append(
                Mistake(f"{path}[{index}]", _shown(name), "must be a service type, a text")
            )
        elif service := BY_NAME.get(name):
            names.append(service.name)
        elif name not in known and not official.is_known(name):
            mistakes.append(
                Mistake(
                    f"{path}[{index}]",
                    _shown(name),
                    "no OpenStack service type" + _near(name, known),
                )
            )
    if not names and not mistakes:
        mistakes.append(
            Mistake(
                path,
                _shown(listed),
                "names no service that emits notifications; leave it out for all ten",
            )
        )
    chosen = tuple(service.name for service in SERVICES if service.name in names)
    return chosen, mistakes


def _external(
    document: Mapping[object, object],
) -> tuple[Mapping[object, object] | None, list[Mistake]]:
    if document.get("spec") is None:
        return None, [Mistake("spec", _shown_member(document, "spec"), "must be an object")]
    holder, mistakes = _object_at(document, tuple(EXTERNAL.split(".")[:-1]))
    if holder is None or "external" not in holder:
        return None, mistakes
    external = holder["external"]
    if not isinstance(external, Mapping):
        mend = "must be an object with `enabled` and `topics`; leave the key out to expose nothing"
        return None, [*mistakes, Mistake(EXTERNAL, _shown(external), mend)]
    return external, mistakes


def _object_at(
    document: Mapping[object, object], path: tuple[str, ...]
) -> tuple[Mapping[object, object] | None, list[Mistake]]:
    """Walk to an object of the resource; absent or null on the way is None, and no mistake."""
    here: Mapping[object, object] = document
    for index, key in enumerate(path):
        below = here.get(key)
        if below is None:
            return None, []
        if not isinstance(below, Mapping):
            place = ".".join(path[: index + 1])
            return None, [Mistake(place, _shown(below), "must be an object")]
        here = below
    return here, []


# The `external` block: its shape is checked by pydantic ...


def _legal_topic(name: str) -> str:
    if len(name) > MAX_TOPIC_NAME:
        raise _refused(
            f"{len(name)} characters; at most {MAX_TOPIC_NAME} make a legal Secret name"
            + _suggestion(name)
        )
    if not SUBDOMAIN.fullmatch(name):
        raise _refused(
            "only lower-case letters, digits, '-' and '.', with a letter or digit at both ends "
            "of each part" + _suggestion(name)
        )
    if name == "notifications":
        raise _refused("kept for the inner bus; choose a name that says who reads it")
    if name == "amq" or name.startswith("amq."):
        raise _refused("amq.* is RabbitMQ's own; choose another name")
    if name == "stackbus" or name.startswith("stackbus."):
        raise _refused("stackbus and stackbus.* are kept for stackbus itself; choose another name")
    return name


def _legal_service(name: str) -> str:
    if name not in BY_NAME:
        raise _refused("no service type that emits notifications" + _near(name, BY_NAME))
    return name


def _legal_pattern(pattern: str) -> str:
    if len(pattern) > 150:  # noqa: PLR2004 -- the rest of 255 bytes is the key's other words
        raise _refused("longer than 150 characters")
    if not all(PATTERN_WORD.fullmatch(word) for word in pattern.split(".")):
        raise _refused(
            "an AMQP topic pattern is words with dots between; a word is a text, * (any one "
            "word) or # (any words, or none)"
        )
    return pattern


def _legal_project(project: str) -> str:
    if not PROJECT_ID.fullmatch(project):
        raise _refused("a project's id (not its name): 1 to 64 letters, digits, '-' or '_'")
    return project


def _age(value: object) -> object:
    match = AGE.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        raise _refused("a number with a unit: s, m, h, d or w, such as 3d")
    seconds = int(match[1]) * SECONDS[match[2]]
    if not 0 < seconds <= MAX_AGE:
        raise _refused(f"between 1s and {MAX_AGE // 86400}d")
    return seconds


def _bytes_of(value: object) -> object:
    if isinstance(value, int) and not isinstance(value, bool):
        number = value
    else:
        match = BYTES.fullmatch(value) if isinstance(value, str) else None
        if match is None:
            raise _refused("a number of bytes, with a unit if you like: 512MiB, 1GiB, 2GB")
        power = "BKMGT".index(match[2][0].upper())
        number = int(match[1]) * (1024 if "i" in match[2] else 1000) ** power
    if not 0 < number < 2**50:
        raise _refused("more than 0 and less than 1024TiB")
    return number


def _refused(mend: str) -> PydanticCustomError:
    return PydanticCustomError("refused", "{mend}", {"mend": mend})


def _no_duplicates(values: list[str]) -> list[str]:
    doubled = sorted({value for value in values if values.count(value) > 1})
    if doubled:
        raise _refused(f"{', '.join(doubled)}: listed twice; once is enough")
    if not values:
        raise _refused("an empty list would let nothing through; leave the key out for all")
    return values


class _Strict(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)


class _Queue(_Strict):
    type: Literal["quorum", "classic"] = "quorum"
    maxAge: Annotated[int, BeforeValidator(_age)] | None = None  # noqa: N815 -- the document's
    maxBytes: Annotated[int, BeforeValidator(_bytes_of)] | None = None  # noqa: N815 -- the same


class _Settings(_Strict):
    services: (
        Annotated[
            list[Annotated[str, AfterValidator(_legal_service)]], AfterValidator(_no_duplicates)
        ]
        | None
    ) = None
    events: (
        Annotated[
            list[Annotated[str, AfterValidator(_legal_pattern)]], AfterValidator(_no_duplicates)
        ]
        | None
    ) = None
    projects: (
        Annotated[
            list[Annotated[str, AfterValidator(_legal_project)]], AfterValidator(_no_duplicates)
        ]
        | None
    ) = None
    priorities: (
        Annotated[
            list[Literal["audit", "critical", "debug", "error", "info", "sample", "warn"]],
            AfterValidator(_no_duplicates),
        ]
        | None
    ) = None
    access: Literal["own", "read-only"] = "own"
    queue: _Queue = _Queue()


class _External(_Strict):
    enabled: bool
    topics: list[Annotated[str, AfterValidator(_legal_topic)]] = []
    settings: dict[str, _Settings] = {}


# ... and what one part says of another by this, on the raw block, so that all is told in one run


def _names_and_references(
    external: Mapping[object, object], enabled: tuple[str, ...] | None
) -> Iterator[Mistake]:
    listed = external.get("topics")
    if listed is None and external.get("enabled") is True:
        yield Mistake(
            f"{EXTERNAL}.topics",
            _shown_member(external, "topics"),
            "list the topics, or set enabled: false",
        )
    names = listed if isinstance(listed, list) else []
    if len(names) > MAX_TOPICS:
        mend = f"at most {MAX_TOPICS} topics"
        yield Mistake(f"{EXTERNAL}.topics", f"{len(names)} topics", mend)
    first: dict[str, int] = {}
    for index, name in enumerate(names):
        if not isinstance(name, str):
            continue
        path = f"{EXTERNAL}.topics[{index}]"
        if name in first:
            yield Mistake(path, _shown(name), f"the same as topics[{first[name]}]: list it once")
        first.setdefault(name, index)
        owner, _, last = name.rpartition(".")
        if last in PRIORITIES and owner in names:
            yield Mistake(
                path,
                _shown(name),
                f"is the name of a queue of topic {owner}: choose another, such as {owner}-{last}",
            )
    settings = external.get("settings")
    if not isinstance(settings, Mapping):
        return
    for topic, chosen in settings.items():
        path = f"{EXTERNAL}.settings.{topic}"
        if topic not in first:
            yield Mistake(path, _shown(topic), "no such topic in topics" + _near(topic, first))
        services = chosen.get("services") if isinstance(chosen, Mapping) else None
        for index, name in enumerate(services if isinstance(services, list) else []):
            service = BY_NAME.get(name) if isinstance(name, str) else None
            if service and enabled is not None and service.name not in enabled:
                yield Mistake(
                    f"{path}.services[{index}]",
                    _shown(name),
                    "is not among spec.features.services: enable it there, or leave it out here",
                )


def _topic(name: str, chosen: _Settings | None) -> Topic:
    if chosen is None:
        return Topic(name)
    services = chosen.services and tuple(
        service.name
        for service in SERVICES
        if service.name in {service_named(listed) for listed in chosen.services}
    )
    priorities = chosen.priorities and tuple(sorted(chosen.priorities))
    return Topic(
        name,
        services=services or None,
        events=tuple(chosen.events) if chosen.events else None,
        projects=tuple(chosen.projects) if chosen.projects else None,
        priorities=None if priorities == PRIORITIES else priorities or None,
        read_only=chosen.access == "read-only",
        queue=Queue(chosen.queue.type, chosen.queue.maxAge, chosen.queue.maxBytes),
    )


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
        **{name: chosen for name, chosen in lists.items() if chosen},
        "access": "read-only" if topic.read_only else "own",
        "queue": queue,
    }


# Telling mistakes


def _mistake(details: ErrorDetails) -> Mistake:
    path = EXTERNAL
    for step in details["loc"]:
        if step == "[key]":
            continue
        path += f"[{step}]" if isinstance(step, int) else f".{step}"
    shown = "(absent)" if details["type"] == "missing" else _shown(details["input"])
    return Mistake(path, shown, _mend(details))


def _mend(details: ErrorDetails) -> str:
    context = details.get("ctx", {})
    match details["type"]:
        case "refused":
            return str(context["mend"])
        case "extra_forbidden":
            return "unknown key" + _near(details["loc"][-1], _keys_beside(details["loc"]))
        case "missing":
            return "must be given: say true or false"
        case "bool_type":
            return "must be true or false"
        case "literal_error":
            return f"must be {context['expected']}" + _near(details["input"], PRIORITIES)
        case "string_type":
            return "must be a text; put it in quotes"
        case "list_type":
            return "must be a list"
        case "dict_type" | "model_type" | "model_attributes_type":
            return "must be an object"
        case _:
            return details["msg"]


def _keys_beside(loc: tuple[int | str, ...]) -> list[str]:
    model: type[BaseModel] = _External
    if len(loc) > 1:
        model = _Queue if "queue" in loc[2:-1] else _Settings
    return list(model.model_fields)


def _near(
    name: object, known: Mapping[str, object] | set[str] | list[str] | tuple[str, ...]
) -> str:
    """Give ``; did you mean 'x'?`` for the nearest of ``known``, or nothing."""
    near = difflib.get_close_matches(str(name)[:100].lower(), list(known), 1) if known else []
    return f"; did you mean {near[0]!r}?" if near else ""


def _suggestion(name: str) -> str:
    """Give the nearest legal topic name, as a question."""
    nearest = re.sub(r"[^a-z0-9.-]+", "-", name.lower())[:MAX_TOPIC_NAME]
    nearest = ".".join(part.strip("-") for part in nearest.split(".") if part.strip("-"))
    return f"; did you mean {nearest!r}?" if nearest and SUBDOMAIN.fullmatch(nearest) else ""


_short = reprlib.Repr()
_short.maxstring = _short.maxother = 80
_short.maxlevel = 2
_short.maxlist = _short.maxdict = 4


def _shown(value: object) -> str:
    """Show a value of the document, cut to a size that fits a line."""
    return "(empty)" if value is None else _short.repr(value)


def _shown_member(members: Mapping[object, object], key: str) -> str:
    return _shown(members[key]) if key in members else "(absent)"
