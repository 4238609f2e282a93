#!/usr/bin/env python3
"""Write deploy/crd/openstackdeployments.yaml; with --check, exit 1 if it differs from the code.

Kubernetes validates the resource by this definition. It uses the lists and patterns of
``expose/validation.py``; tests/kubernetes/test_crd.py gives both the same table of wrong resources.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import yaml
from os_service_types import ServiceTypes

from stackbus import units
from stackbus.bus.names import PRIORITIES
from stackbus.bus.routing import PATTERN_WORD, PROJECT_ID
from stackbus.expose import validation as checks
from stackbus.services import BY_NAME, SERVICES

DEFINITION = Path(__file__).parent.parent / "deploy" / "crd" / "openstackdeployments.yaml"
NOTE = "# scripts/crd.py writes this file. Change the code, then run `make docs`.\n"

Schema = dict[str, Any]
EXTERNAL = "self.messaging.notifications.external"
HAS_SETTINGS = (
    "has(self.messaging) && self.messaging != null && has(self.messaging.notifications) && "
    "self.messaging.notifications != null && has(self.messaging.notifications.external) && "
    f"has({EXTERNAL}.settings)"
)
SERVICE_NAMES = json.dumps({name: service.name for name, service in BY_NAME.items()})
TOO_MANY = (
    f"services x priorities x projects x events of a topic are more than {checks.MAX_BINDINGS}"
)
EMITTING_SERVICES = json.dumps([service.name for service in SERVICES])


def rule(expression: str, message: str) -> Schema:
    """Return a CEL rule."""
    return {"rule": expression, "message": message}


def text(pattern: str, **keywords: object) -> Schema:
    """Return the schema of a string that matches the whole pattern."""
    return {"type": "string", "pattern": f"^({pattern})$", **keywords}


def unique_list(items: Schema, max_items: int) -> Schema:
    """Return the schema of a list without duplicates; null means absent, an empty list is wrong.

    An empty list would be a filter that no notification passes.
    """
    return {
        "type": "array",
        "nullable": True,
        "x-kubernetes-list-type": "set",
        "minItems": 1,
        "maxItems": max_items,
        "items": items,
    }


def topic() -> Schema:
    """Return the schema of a topic's name."""
    return text(
        checks.SUBDOMAIN.pattern,
        maxLength=checks.MAX_TOPIC_NAME,
        **{
            "x-kubernetes-validations": [
                rule("self != 'notifications'", "reserved for the inner bus"),
                rule("self != 'amq' && !self.startsWith('amq.')", "amq.* is reserved for RabbitMQ"),
                rule(
                    "self != 'stackbus' && !self.startsWith('stackbus.')",
                    "stackbus and stackbus.* are reserved for stackbus",
                ),
            ]
        },
    )


def _product(settings: str, *additional: str) -> str:
    """Return the CEL product of the lengths of the lists in a topic's settings."""
    return " * ".join(
        f"(has({settings}.{name}) ? size({settings}.{name}) : 1)"
        for name in ("events", "projects", "priorities", *additional)
    )


def topic_settings() -> Schema:
    """Return the schema of a topic's settings."""
    seconds = json.dumps(units.SECONDS)
    powers = {unit: 1000**power for power, unit in enumerate(("B", "kB", "MB", "GB", "TB"))}
    powers |= {"KB": 1000} | {
        unit: 1024**power for power, unit in enumerate(("KiB", "MiB", "GiB", "TiB"), 1)
    }
    number = "int(self.find('^[0-9]+'))"
    size = f"{number} * {json.dumps(powers)}[self.find('[A-Za-z]+$')]"
    return {
        "type": "object",
        "properties": {
            "services": unique_list(
                {"type": "string", "maxLength": 32, "enum": sorted(BY_NAME)}, len(BY_NAME)
            ),
            "events": unique_list(
                text(
                    rf"({PATTERN_WORD.pattern})(\.({PATTERN_WORD.pattern}))*",
                    maxLength=150,
                ),
                checks.MAX_BINDINGS,
            ),
            "projects": unique_list(text(PROJECT_ID.pattern, maxLength=64), checks.MAX_BINDINGS),
            "priorities": unique_list(
                {"type": "string", "enum": list(PRIORITIES)}, len(PRIORITIES)
            ),
            "access": {"type": "string", "enum": ["own", "read-only"]},
            "queue": {
                "type": "object",
                "properties": {
                    "type": {"type": "string", "enum": ["quorum", "classic"]},
                    "maxAge": text(
                        units.WHOLE_DURATION.pattern,
                        nullable=True,
                        maxLength=10,
                        **{
                            "x-kubernetes-validations": [
                                rule(
                                    f"{number} * {seconds}[self.find('[a-z]$')] > 0 && "
                                    f"{number} * {seconds}[self.find('[a-z]$')] <= "
                                    f"{checks.MAX_AGE}",
                                    f"between 1s and {checks.MAX_AGE // 86400}d",
                                )
                            ]
                        },
                    ),
                    "maxBytes": {
                        "x-kubernetes-int-or-string": True,
                        "nullable": True,
                        "maxLength": 18,
                        "pattern": f"^({units.SIZE.pattern})$",
                        "x-kubernetes-validations": [
                            rule(
                                f"type(self) == int ? self > 0 && self < {2**50} : "
                                f"{size} > 0 && {size} < {2**50}",
                                "more than 0 and less than 1024TiB",
                            )
                        ],
                    },
                },
            },
        },
        "x-kubernetes-validations": [
            rule(f"{_product('self', 'services')} <= {checks.MAX_BINDINGS}", TOO_MANY)
        ],
    }


def external() -> Schema:
    """Return the schema of the block ``external``."""
    endings = "|".join(PRIORITIES)
    clash = (
        f"self.all(t, !t.matches('[.]({endings})$') || "
        "!(t.substring(0, t.lastIndexOf('.')) in self))"
    )
    return {
        "type": "object",
        "required": ["enabled"],
        "properties": {
            "enabled": {"type": "boolean"},
            "topics": {
                "type": "array",
                "maxItems": checks.MAX_TOPICS,
                "x-kubernetes-list-type": "set",
                "items": topic(),
                "x-kubernetes-validations": [
                    rule(clash, "a topic has the name of another topic's queue")
                ],
            },
            "settings": {
                "type": "object",
                "maxProperties": checks.MAX_TOPICS,
                "additionalProperties": topic_settings(),
            },
        },
        "x-kubernetes-validations": [
            rule("!self.enabled || has(self.topics)", "list the topics, or set enabled: false"),
            rule(
                "!has(self.settings) || self.settings.all(t, has(self.topics) && t in self.topics)",
                "settings of a topic that is not listed in topics",
            ),
        ],
    }


def features() -> Schema:
    """Return the schema of ``spec.features``; it allows MOSK's other keys."""
    official = ServiceTypes().all_types_by_service_type.values()
    types = {*BY_NAME, *checks.OTHER_SERVICES, *(name for names in official for name in names)}
    types |= {name.replace("-", "_") for name in types}
    # The enabled services, as a list with one element, so that CEL evaluates it once.
    enabled = f"[{EMITTING_SERVICES}.filter(n, self.services.exists(s, s in {SERVICE_NAMES} && {SERVICE_NAMES}[s] == n))]"
    settings = f"{EXTERNAL}.settings"
    is_enabled = (
        f"{enabled}.all(on, {settings}.all(t, !has({settings}[t].services) || "
        f"{settings}[t].services.all(s, {SERVICE_NAMES}[s] in on)))"
    )
    few = (
        f"{enabled}.all(on, {settings}.all(t, has({settings}[t].services) || "
        f"on.size() * {_product(f'{settings}[t]')} <= {checks.MAX_BINDINGS}))"
    )
    return {
        "type": "object",
        "nullable": True,
        "x-kubernetes-preserve-unknown-fields": True,
        "properties": {
            "services": {
                "type": "array",
                "maxItems": 100,
                "items": {"type": "string", "maxLength": 64, "enum": sorted(types)},
                "x-kubernetes-validations": [
                    rule(
                        f"self.exists(s, s in {SERVICE_NAMES})",
                        "no service in it emits notifications; leave it out to enable all ten",
                    )
                ],
            },
            "messaging": {
                "type": "object",
                "nullable": True,
                "x-kubernetes-preserve-unknown-fields": True,
                "properties": {
                    "notifications": {
                        "type": "object",
                        "nullable": True,
                        "x-kubernetes-preserve-unknown-fields": True,
                        "properties": {"external": external()},
                    }
                },
            },
        },
        "x-kubernetes-validations": [
            rule(
                f"!has(self.services) || !({HAS_SETTINGS}) || {is_enabled}",
                "a topic's settings name a service that is not in spec.features.services",
            ),
            rule(
                f"!has(self.services) || !({HAS_SETTINGS}) || {few}",
                "with spec.features.services: " + TOO_MANY,
            ),
        ],
    }


def status() -> Schema:
    """Return the schema of the status; ``expose/cluster/conditions.py`` writes it."""
    words: Schema = {"type": "string"}
    moment: Schema = {"type": "string", "format": "date-time"}
    count: Schema = {"type": "integer"}
    return {
        "type": "object",
        "x-kubernetes-preserve-unknown-fields": True,
        "properties": {
            "observedGeneration": {"type": "integer", "format": "int64"},
            "exposedTopics": count,
            "conditions": {
                "type": "array",
                "x-kubernetes-list-type": "map",
                "x-kubernetes-list-map-keys": ["type"],
                "items": {
                    "type": "object",
                    "required": ["type", "status"],
                    "properties": {
                        "type": words,
                        "status": {"type": "string", "enum": ["True", "False", "Unknown"]},
                        "reason": words,
                        "message": words,
                        "lastTransitionTime": moment,
                    },
                },
            },
            "topics": {
                "type": "array",
                "x-kubernetes-list-type": "map",
                "x-kubernetes-list-map-keys": ["name"],
                "items": {
                    "type": "object",
                    "required": ["name"],
                    "properties": {
                        "name": words,
                        "secret": words,
                        "queues": {"type": "array", "items": words},
                        "certificateExpires": moment,
                        "lastRotation": moment,
                        "problem": words,
                    },
                },
            },
            "endpoint": {
                "type": "object",
                "properties": {"hosts": {"type": "array", "items": words}},
            },
            "relay": {
                "type": "object",
                "properties": {
                    "state": words,
                    "standby": count,
                    "behind": count,
                    "quarantined": count,
                },
            },
        },
    }


def definition() -> Schema:
    """Return the CustomResourceDefinition."""
    spec: Schema = {
        "type": "object",
        "x-kubernetes-preserve-unknown-fields": True,
        "properties": {"features": features()},
    }
    columns = [
        ("Ready", "string", '.status.conditions[?(@.type=="Ready")].status'),
        ("Topics", "integer", ".status.exposedTopics"),
        ("Age", "date", ".metadata.creationTimestamp"),
    ]
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": "openstackdeployments.lcm.mirantis.com"},
        "spec": {
            "group": "lcm.mirantis.com",
            "scope": "Namespaced",
            "names": {
                "kind": checks.KIND,
                "plural": "openstackdeployments",
                "singular": "openstackdeployment",
                "shortNames": ["osdpl"],
            },
            "versions": [
                {
                    "name": "v1alpha1",
                    "served": True,
                    "storage": True,
                    "subresources": {"status": {}},
                    "additionalPrinterColumns": [
                        {"name": name, "type": kind, "jsonPath": path}
                        for name, kind, path in columns
                    ],
                    "schema": {
                        "openAPIV3Schema": {
                            "type": "object",
                            "required": ["spec"],
                            "properties": {"spec": spec, "status": status()},
                        }
                    },
                }
            ],
        },
    }


class _Dumper(yaml.SafeDumper):
    """Write every list and object in full, without anchors."""

    def ignore_aliases(self, data: Any) -> bool:  # noqa: ARG002 -- yaml's hook
        return True


def main() -> int:
    """Write the file; with --check, compare it with the code and return 1 if it differs."""
    definition_text = NOTE + yaml.dump(definition(), Dumper=_Dumper, sort_keys=False, width=100)
    if "--check" in sys.argv:
        if DEFINITION.read_text("utf-8") != definition_text:
            print(f"{DEFINITION} differs from the code: run `make docs`", file=sys.stderr)
            return 1
        return 0
    DEFINITION.parent.mkdir(parents=True, exist_ok=True)
    DEFINITION.write_text(definition_text, "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
