"""Validation: read an OpenStackDeployment, and report every mistake in it.

``load`` reads a YAML file, ``parse`` a resource that the operator received; both return the value
of ``deployment.py``. Validation reports every mistake in one run, each with its path in the
document, its value, and what to do. Everything else that MOSK's resource holds beside
``spec.features.services`` and ``spec.features.messaging.notifications.external`` is ignored.
"""

from __future__ import annotations

import difflib
import re
import reprlib
import sys
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Literal

import yaml
from os_service_types import ServiceTypes
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, ValidationError
from pydantic_core import ErrorDetails, PydanticCustomError

from stackbus.bus.names import PRIORITIES
from stackbus.bus.routing import PATTERN_WORD, PROJECT_ID
from stackbus.errors import InputError, InvalidDeployment, Mistake
from stackbus.expose.deployment import (
    API_VERSION,
    KIND,
    Deployment,
    Queue,
    Topic,
    binding_keys,
    service_name,
)
from stackbus.services import BY_NAME, SERVICES
from stackbus.units import WHOLE_DURATION, parse_duration, parse_size

EXTERNAL = "spec.features.messaging.notifications.external"

MAX_TOPIC_NAME = 253 - len("openstack-") - len("-notifications")
"""Characters of a topic's name at most, so that ``openstack-<topic>-notifications`` is legal."""

MAX_BINDINGS = 1000
"""Bindings of one topic's filter; each combination of the four lists is one."""

MAX_TOPICS = 500
"""Topics of one deployment at most: Kubernetes needs a limit to bound the cost of validation."""

MAX_AGE = (2**32 - 1) // 1000
"""Seconds: RabbitMQ's message TTL is a 32-bit number of milliseconds (rabbit_misc.erl)."""

SUBDOMAIN = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
_MAX_FILE = 16 * 1024**2

# Legal in MOSK's `spec.features.services` beside the official service types (rockoon's crds).
OTHER_SERVICES = frozenset(
    """
    alarm alarming backup cloudprober coordination dashboard database descheduler
    dynamic-resource-balancer event federation ingress instance-ha libvirt memcached messaging
    metering metric monitoring networking placement redis secret stepler tempest
    """.split()  # noqa: SIM905 -- forty lines of quotes would say no more
)


def load(path: Path) -> Deployment:
    """Read and validate the deployment in the YAML file ``path`` (``-``: standard input).

    Raises InputError if the file is not one YAML document, InvalidDeployment if the document is
    not a valid deployment.
    """
    origin = "standard input" if str(path) == "-" else str(path)
    return parse(_document(origin, _text(path, origin)), origin)


def parse(document: object, origin: str) -> Deployment:
    """Validate a document that is already in memory; ``origin`` names it in errors."""
    mistakes: list[Mistake] = []
    if not isinstance(document, Mapping):
        raise InvalidDeployment(
            origin, [Mistake("(the document)", _show(document), f"must be a {KIND} object")]
        )
    mistakes += _head_mistakes(document)
    services, service_mistakes = _enabled_services(document)
    external, external_mistakes = _external_block(document)
    mistakes += [*service_mistakes, *external_mistakes]
    if external is None:
        if mistakes:
            raise InvalidDeployment(origin, mistakes)
        return Deployment(*_identity(document), services=services)
    mistakes += _reference_mistakes(external, services)
    try:
        block = _External.model_validate(external)
    except ValidationError as error:
        mistakes += [_mistake(details) for details in error.errors(include_url=False)]
        raise InvalidDeployment(origin, mistakes) from None
    topics = tuple(_topic(name, block.settings.get(name)) for name in block.topics)
    mistakes += [
        Mistake(
            f"{EXTERNAL}.settings.{topic.name}",
            f"{count} bindings",
            f"services x priorities x projects x events make more than {MAX_BINDINGS}: "
            "shorten a list, or leave one out",
        )
        for topic in topics
        if (count := len(binding_keys(topic, services))) > MAX_BINDINGS
    ]
    if mistakes:
        raise InvalidDeployment(origin, mistakes)
    return Deployment(
        *_identity(document), services=services, topics=topics if block.enabled else ()
    )


# Reading the file


def _text(path: Path, origin: str) -> str:
    try:
        raw = sys.stdin.buffer.read(_MAX_FILE + 1) if str(path) == "-" else _bytes(path)
    except FileNotFoundError:
        raise InputError(
            f"{origin}: no such file: give the path of the deployment's YAML file"
        ) from None
    except OSError as error:
        raise InputError(f"{origin}: cannot be read: {error.strerror}") from error
    if len(raw) > _MAX_FILE:
        raise InputError(
            f"{origin}: larger than {_MAX_FILE} bytes: give the deployment's YAML file"
        )
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise InputError(
            f"{origin}: not UTF-8 text (byte {error.start}): give the deployment's YAML file"
        ) from None


def _bytes(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(_MAX_FILE + 1)


class _Loader(yaml.SafeLoader):
    """The safe loader, which also refuses a key that occurs twice in one mapping."""


def _mapping(loader: _Loader, node: yaml.MappingNode) -> dict[object, object]:
    loader.flatten_mapping(node)
    members: dict[object, object] = {}
    for key_node, value_node in node.value:
        key = loader.construct_object(key_node, deep=True)
        try:
            is_duplicate = key in members
        except TypeError:
            raise yaml.constructor.ConstructorError(
                None, None, "a key must be a plain value", key_node.start_mark
            ) from None
        if is_duplicate:
            raise yaml.constructor.ConstructorError(
                None, None, f"the key {_show(key)} occurs twice", key_node.start_mark
            )
        members[key] = loader.construct_object(value_node, deep=True)
    return members


_Loader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _mapping)


def _document(origin: str, text: str) -> object:
    try:
        documents = list(yaml.load_all(text, _Loader))
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        position = f" line {mark.line + 1}, column {mark.column + 1}:" if mark else ""
        raise InputError(f"{origin}:{position} {error.problem}") from None
    except (yaml.YAMLError, ValueError) as error:
        raise InputError(f"{origin}: not YAML: {str(error).splitlines()[0]}") from None
    except RecursionError:
        raise InputError(f"{origin}: nested too deeply for a deployment") from None
    documents = [document for document in documents if document is not None]
    if not documents:
        raise InputError(f"{origin}: empty: put one {KIND} into it")
    if len(documents) > 1:
        raise InputError(f"{origin}: {len(documents)} documents: leave one {KIND} in it")
    return documents[0]


# The parts of the resource


def _identity(document: Mapping[object, object]) -> tuple[str, str]:
    metadata = document["metadata"]
    assert isinstance(metadata, Mapping)  # _head_mistakes checked it
    return metadata["name"], metadata.get("namespace", "openstack")


def _head_mistakes(document: Mapping[object, object]) -> Iterator[Mistake]:
    for key, value in (("apiVersion", API_VERSION), ("kind", KIND)):
        if document.get(key) != value:
            yield Mistake(key, _show_member(document, key), f"must be {value}")
    metadata = document.get("metadata")
    if not isinstance(metadata, Mapping):
        yield Mistake(
            "metadata", _show_member(document, "metadata"), "must be an object with a name"
        )
        return
    for key in ("name", "namespace"):
        value = metadata.get(key, "openstack" if key == "namespace" else None)
        if not isinstance(value, str) or not SUBDOMAIN.fullmatch(value):
            yield Mistake(
                f"metadata.{key}",
                _show_member(metadata, key),
                "must be a Kubernetes name: lower-case letters, digits, '-' and '.'",
            )


def _enabled_services(
    document: Mapping[object, object],
) -> tuple[tuple[str, ...] | None, list[Mistake]]:
    features, mistakes = _object_at(document, ("spec", "features"))
    path = "spec.features.services"
    if features is None or "services" not in features:
        return None, []  # _external_block reports mistakes in spec.features itself
    listed = features["services"]
    if not isinstance(listed, list):
        return None, [Mistake(path, _show(listed), "must be a list of service types")]
    official = ServiceTypes()
    legal = {*BY_NAME, *OTHER_SERVICES, *official.all_types_by_service_type}
    names = []
    for index, name in enumerate(listed):
        if not isinstance(name, str):
            mistakes.append(
                Mistake(f"{path}[{index}]", _show(name), "must be a service type, a text")
            )
        elif service := BY_NAME.get(name):
            names.append(service.name)
        elif name not in legal and not official.is_known(name):
            mistakes.append(
                Mistake(
                    f"{path}[{index}]",
                    _show(name),
                    "not an OpenStack service type" + _did_you_mean(name, legal),
                )
            )
    if not names and not mistakes:
        mistakes.append(
            Mistake(
                path,
                _show(listed),
                "no service in it emits notifications; leave the key out for all ten",
            )
        )
    return tuple(service.name for service in SERVICES if service.name in names), mistakes


def _external_block(
    document: Mapping[object, object],
) -> tuple[Mapping[object, object] | None, list[Mistake]]:
    if document.get("spec") is None:
        return None, [Mistake("spec", _show_member(document, "spec"), "must be an object")]
    holder, mistakes = _object_at(document, tuple(EXTERNAL.split(".")[:-1]))
    if holder is None or "external" not in holder:
        return None, mistakes
    external = holder["external"]
    if not isinstance(external, Mapping):
        mend = "must be an object with `enabled` and `topics`; leave the key out to expose nothing"
        return None, [*mistakes, Mistake(EXTERNAL, _show(external), mend)]
    return external, mistakes


def _object_at(
    document: Mapping[object, object], path: tuple[str, ...]
) -> tuple[Mapping[object, object] | None, list[Mistake]]:
    """Return the object at ``path``; None, without a mistake, where a key is absent or null."""
    current: Mapping[object, object] = document
    for index, key in enumerate(path):
        value = current.get(key)
        if value is None:
            return None, []
        if not isinstance(value, Mapping):
            dotted = ".".join(path[: index + 1])
            return None, [Mistake(dotted, _show(value), "must be an object")]
        current = value
    return current, []


# The `external` block: pydantic checks its shape ...


def _legal_topic(name: str) -> str:
    if len(name) > MAX_TOPIC_NAME:
        raise _refusal(
            f"{len(name)} characters; at most {MAX_TOPIC_NAME} make a legal Secret name"
            + _suggestion(name)
        )
    if not SUBDOMAIN.fullmatch(name):
        raise _refusal(
            "only lower-case letters, digits, '-' and '.', with a letter or digit at both ends "
            "of each part" + _suggestion(name)
        )
    if name == "notifications":
        raise _refusal("reserved for the inner bus; choose another name, such as the reader's")
    if name == "amq" or name.startswith("amq."):
        raise _refusal("amq.* is reserved for RabbitMQ; choose another name")
    if name == "stackbus" or name.startswith("stackbus."):
        raise _refusal("stackbus and stackbus.* are reserved for stackbus; choose another name")
    return name


def _legal_service(name: str) -> str:
    if name not in BY_NAME:
        raise _refusal("no service of this type emits notifications" + _did_you_mean(name, BY_NAME))
    return name


def _legal_priority(priority: str) -> str:
    if priority not in PRIORITIES:
        raise _refusal(
            f"must be one of {', '.join(PRIORITIES)}" + _did_you_mean(priority, PRIORITIES)
        )
    return priority


def _legal_pattern(pattern: str) -> str:
    if len(pattern) > 150:  # noqa: PLR2004 -- the rest of 255 bytes is the key's other words
        raise _refusal("longer than 150 characters")
    if not all(PATTERN_WORD.fullmatch(word) for word in pattern.split(".")):
        raise _refusal(
            "an AMQP topic pattern is words with dots between; a word is a text, * (any one "
            "word) or # (any words, or none)"
        )
    return pattern


def _legal_project(project: str) -> str:
    if not PROJECT_ID.fullmatch(project):
        raise _refusal("a project's id (not its name): 1 to 64 letters, digits, '-' or '_'")
    return project


def _age(value: object) -> object:
    if not isinstance(value, str) or not WHOLE_DURATION.fullmatch(value):
        raise _refusal("a number with a unit: s, m, h, d or w, such as 3d")
    try:
        seconds = int(parse_duration(value).total_seconds())
    except ValueError:
        seconds = 0
    if not 0 < seconds <= MAX_AGE:
        raise _refusal(f"between 1s and {MAX_AGE // 86400}d")
    return seconds


def _size(value: object) -> object:
    try:
        size = parse_size(value) if isinstance(value, str) else value
    except ValueError:
        size = None
    if not isinstance(size, int) or isinstance(size, bool):
        raise _refusal("a number of bytes, with a unit if you like: 512MiB, 1GiB, 2GB")
    if not 0 < size < 2**50:
        raise _refusal("more than 0 and less than 1024TiB")
    return size


def _refusal(mend: str) -> PydanticCustomError:
    return PydanticCustomError("refused", "{mend}", {"mend": mend})


def _no_duplicates(values: list[str]) -> list[str]:
    duplicates = sorted({value for value in values if values.count(value) > 1})
    if duplicates:
        raise _refusal(f"{', '.join(duplicates)}: listed twice; once is enough")
    if not values:
        raise _refusal("an empty list would let nothing pass; leave the key out for all")
    return values


class _Strict(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)


class _Queue(_Strict):
    type: Literal["quorum", "classic"] = "quorum"
    maxAge: Annotated[int, BeforeValidator(_age)] | None = None  # noqa: N815 -- the document's
    maxBytes: Annotated[int, BeforeValidator(_size)] | None = None  # noqa: N815 -- the same


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
            list[Annotated[str, AfterValidator(_legal_priority)]], AfterValidator(_no_duplicates)
        ]
        | None
    ) = None
    access: Literal["own", "read-only"] = "own"
    queue: _Queue = _Queue()


class _External(_Strict):
    enabled: bool
    topics: list[Annotated[str, AfterValidator(_legal_topic)]] = []
    settings: dict[str, _Settings] = {}


# ... and these functions what refers from one part to another, on the raw block, so that one run
# reports all mistakes


def _reference_mistakes(
    external: Mapping[object, object], enabled: tuple[str, ...] | None
) -> Iterator[Mistake]:
    listed = external.get("topics")
    if listed is None and external.get("enabled") is True:
        yield Mistake(
            f"{EXTERNAL}.topics",
            _show_member(external, "topics"),
            "list the topics, or set enabled: false",
        )
    names = listed if isinstance(listed, list) else []
    if len(names) > MAX_TOPICS:
        mend = f"at most {MAX_TOPICS} topics"
        yield Mistake(f"{EXTERNAL}.topics", f"{len(names)} topics", mend)
    first_index: dict[str, int] = {}
    for index, name in enumerate(names):
        if not isinstance(name, str):
            continue
        path = f"{EXTERNAL}.topics[{index}]"
        if name in first_index:
            yield Mistake(
                path, _show(name), f"the same as topics[{first_index[name]}]: list it once"
            )
        first_index.setdefault(name, index)
        owner, _, word = name.rpartition(".")
        if word in PRIORITIES and owner in names:
            yield Mistake(
                path,
                _show(name),
                f"is the name of a queue of topic {owner}: choose another, such as {owner}-{word}",
            )
    settings = external.get("settings")
    if not isinstance(settings, Mapping):
        return
    for topic, topic_settings in settings.items():
        path = f"{EXTERNAL}.settings.{topic}"
        if topic not in first_index:
            yield Mistake(
                path, _show(topic), "no such topic in topics" + _did_you_mean(topic, first_index)
            )
        services = topic_settings.get("services") if isinstance(topic_settings, Mapping) else None
        for index, name in enumerate(services if isinstance(services, list) else []):
            service = BY_NAME.get(name) if isinstance(name, str) else None
            if service and enabled is not None and service.name not in enabled:
                yield Mistake(
                    f"{path}.services[{index}]",
                    _show(name),
                    "is not among spec.features.services: enable it there, or leave it out here",
                )


def _topic(name: str, settings: _Settings | None) -> Topic:
    if settings is None:
        return Topic(name)
    services = settings.services and tuple(
        service.name
        for service in SERVICES
        if service.name in {service_name(listed) for listed in settings.services}
    )
    priorities = settings.priorities and tuple(sorted(settings.priorities))
    return Topic(
        name,
        services=services or None,
        events=tuple(settings.events) if settings.events else None,
        projects=tuple(settings.projects) if settings.projects else None,
        priorities=None if priorities == PRIORITIES else priorities or None,
        read_only=settings.access == "read-only",
        queue=Queue(settings.queue.type, settings.queue.maxAge, settings.queue.maxBytes),
    )


# How a mistake reads


def _mistake(details: ErrorDetails) -> Mistake:
    path = EXTERNAL
    for step in details["loc"]:
        if step == "[key]":
            continue
        path += f"[{step}]" if isinstance(step, int) else f".{step}"
    value = "(absent)" if details["type"] == "missing" else _show(details["input"])
    return Mistake(path, value, _mend(details))


def _mend(details: ErrorDetails) -> str:
    context = details.get("ctx", {})
    match details["type"]:
        case "refused":
            return str(context["mend"])
        case "extra_forbidden":
            return "unknown key" + _did_you_mean(details["loc"][-1], _keys_beside(details["loc"]))
        case "missing":
            return "must be given: say true or false"
        case "bool_type":
            return "must be true or false"
        case "literal_error":
            return f"must be {context['expected']}"
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


def _did_you_mean(name: object, legal: Collection[str]) -> str:
    """Return ``; did you mean 'x'?`` for the nearest of ``legal``, or nothing."""
    near = difflib.get_close_matches(str(name)[:100].lower(), list(legal), 1) if legal else []
    return f"; did you mean {near[0]!r}?" if near else ""


def _suggestion(name: str) -> str:
    """Return ``; did you mean 'x'?`` for the nearest legal topic name, or nothing."""
    nearest = re.sub(r"[^a-z0-9.-]+", "-", name.lower())[:MAX_TOPIC_NAME]
    nearest = ".".join(part.strip("-") for part in nearest.split(".") if part.strip("-"))
    return f"; did you mean {nearest!r}?" if nearest and SUBDOMAIN.fullmatch(nearest) else ""


_short = reprlib.Repr()
_short.maxstring = _short.maxother = 80
_short.maxlevel = 2
_short.maxlist = _short.maxdict = 4


def _show(value: object) -> str:
    """Return a value of the document, cut to the length of a line."""
    return "(empty)" if value is None else _short.repr(value)


def _show_member(members: Mapping[object, object], key: str) -> str:
    return _show(members[key]) if key in members else "(absent)"
