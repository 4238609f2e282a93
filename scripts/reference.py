#!/usr/bin/env python3
"""Write docs/reference/ from the code; with --check, exit 1 if a page differs from the code."""

from __future__ import annotations

import json
import sys
from collections import defaultdict
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import typer

from stackbus import metrics
from stackbus import settings as stackbus_settings
from stackbus.bus.names import NOTIFICATION_TOPICS, PRIORITIES
from stackbus.cli.app import LazyCommand, app
from stackbus.events import scrub
from stackbus.events.actions import ACTIONS, NO_PHASE, PHASES
from stackbus.events.model import FIELD_INFO
from stackbus.events.normalise import normalise
from stackbus.services import SERVICES
from stackbus.services.service import SHARED_EXCHANGE

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))
from tests.cloud.check import read_table  # noqa: E402 -- the tests are not an installed package

MISSING_PARTS = {"who": "actor", "what": "resource", "result": "result"}
PAGES = ROOT / "docs" / "reference"
GOLDEN = ROOT / "tests" / "golden"
NOTE = "<!-- scripts/reference.py writes this page. Change the code, then run `make docs`. -->\n\n"


def settings() -> str:
    """Return the page of all settings: variable, default and meaning."""
    lines = [
        "# Settings",
        "",
        "Each setting is an environment variable. An option of a command overrides it for one run.",
        "Write lists as JSON.",
        "",
        "| variable | default | meaning |",
        "|---|---|---|",
    ]
    for setting in stackbus_settings.reference():
        default = "" if setting.default is None else f"`{setting.default}`"
        lines.append(f"| `STACKBUS_{setting.name.upper()}` | {default} | {setting.description} |")
    return "\n".join(lines) + "\n"


def commands() -> str:
    """Return the page of all commands and their options, from the text of --help."""
    lines = [
        "# Commands",
        "",
        "| exit code | meaning |",
        "|---|---|",
        "| 0 | done |",
        "| 1 | failed |",
        "| 2 | the input is wrong; nothing was changed |",
        "",
        "Results go to stdout, progress and logs to stderr. `stackbus --install-completion` enables",
        "completion in your shell.",
        "",
    ]
    for name, command in _all_commands(typer.main.get_command(app)):
        lines += [f"## stackbus {name}", "", *_paragraphs(command.help or ""), ""]
        lines += ["| option | meaning |", "|---|---|"]
        for parameter in command.params:
            names = ", ".join(f"`{option}`" for option in parameter.opts) or f"`{parameter.name}`"
            if parameter.param_type_name == "argument":
                names = f"`{str(parameter.name).upper()}`"
            text = (getattr(parameter, "help", "") or "").replace("|", "\\|")
            lines.append(f"| {names} | {text} |")
        lines.append("")
    return "\n".join(lines)


def _all_commands(group: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, entry in group.commands.items():
        command = entry.load() if isinstance(entry, LazyCommand) else entry
        if hasattr(command, "commands"):
            yield from _all_commands(command, f"{prefix}{name} ")
        else:
            yield prefix + name, command


def _paragraphs(text: str) -> list[str]:
    return [line.strip() for line in text.strip().splitlines()]


def metric_list() -> str:
    """Return the page of all metrics: meaning, and what to do when a value is high."""
    lines = [
        "# Metrics",
        "",
        "`stackbus relay`, `record` and `operator` serve these metrics in Prometheus' format with",
        "`--metrics ADDRESS:PORT`.",
        "",
        "| metric | type | meaning, and what to do when it is high |",
        "|---|---|---|",
    ]
    for metric in metrics.ALL:
        (family,) = metric.collect()
        ending = "_total" if family.type == "counter" else ""
        lines.append(f"| `{family.name}{ending}` | {family.type} | {family.documentation} |")
    return "\n".join(lines) + "\n"


def outer_bus() -> str:
    """Return the page about the messages of a topic: routing key, properties, scrubbing."""
    names = ", ".join(f"`{name}`" for name in scrub.SENSITIVE_NAMES)
    suffixes = ", ".join(f"`{suffix}`" for suffix in scrub.HARMLESS_SUFFIXES)
    secrets = "; ".join(
        f"`{field}` in `{prefix}.*`" for service in SERVICES for prefix, field in service.secrets
    )
    services = "\n".join(
        f"| {service.name} | `{service.type}` | `{service.exchange}` | "
        f"{', '.join(f'`{word}`' for word in service.event_types)} |"
        for service in SERVICES
    )
    return f"""# The outer bus

This page describes the messages that a consumer of a topic receives.

## Routing key

`<priority>.<service>.<project>.<event_type>`, for example
`info.nova.6f70656e737461636b20342065766572.instance.create.end`.

- priority: one of {", ".join(f"`{word}`" for word in PRIORITIES)}. Each has its own queue,
  `<topic>.<priority>`.
- service: derived from the control exchange, or from the event type if the service published to the
  shared exchange `{SHARED_EXCHANGE}`. `-` if it is none of the ten.
- project: the id of the owner. `-` if the notification contains none.
- event type: as the service sent it. A key longer than 255 bytes is cut.

| service | type in the deployment | control exchange | first words of its event types |
|---|---|---|---|
{services}

stackbus receives these routing keys of each control exchange, and no others:
{", ".join(f"`{topic}.*`" for topic in NOTIFICATION_TOPICS)}.

## Properties

| property | value |
|---|---|
| `message_id` | the notification's id; the same if it is delivered twice |
| `type` | event type |
| `app_id` | service, or `-` |
| `timestamp` | the notification's timestamp, in seconds since 1970, UTC |
| `content_type` | `application/json` |
| `content_encoding` | `utf-8` |
| header `x-stackbus-scrubbed` | the paths of scrubbed values, 100 at most |

The body is byte for byte the body that the service sent, unless a value was scrubbed. It is
oslo.messaging's envelope (`oslo.version`, and `oslo.message` with the notification as a JSON text), or
the bare notification.

## Scrubbing

The relay replaces a value by `***` if its name contains one of these words, in any case and with any
separators: {names}.

Exceptions: the name ends with one of {suffixes}; the value is empty, true, false or null; the value is
masked already.

These fields are secret in some events only: {secrets}. The relay reads
`{{"key": <name>, "value": ...}}` as a name and its value.

The relay also replaces parts of a text that have the shape of a secret: a Fernet token, a JWT, a PEM
private key, the password in `scheme://user:password@host` or `?password=...`. It finds them at any
depth, also in JSON inside a text. `STACKBUS_SCRUB_NAMES` and `STACKBUS_SCRUB_SHAPES` extend the lists.

The relay does not forward a body that it cannot search (not JSON, nested too deeply, or with the same
key twice in one object). It moves the body to the queue `stackbus.quarantine` of the inner vhost, with
the reason in the header `x-stackbus-reason`.
"""


def events() -> str:
    """Return the page of all event types that the test cloud captured, and of silent calls."""
    lines = [
        "# Events",
        "",
        "The ten services of the test cloud (`tests/cloud/`) sent these notifications on the inner bus.",
        "Services send others too: one scenario cannot cause all of them.",
        "",
        "| column | meaning |",
        "|---|---|",
        "| kind, action | `resource_type` and `action` of the event in [the history](history.md) |",
        "| format | `nova_object`, `ironic_object`, `masakari_object`: versioned objects; `cadf`: CADF; `plain`: a JSON object of the service; `text`: a bare text |",
        "| resource | `yes` if a captured notification contains the id of its resource |",
        "| project | `yes` if one contains the id of the project that owns it: a filter by project can match |",
        "| actor | `yes` if one contains the id of the user who acted |",
        "",
    ]
    for service in SERVICES:
        requirements = (ROOT / f"tests/cloud/requirements/{service.name}.txt").read_text("utf-8")
        package = {"heat": "openstack-heat"}.get(service.name, service.name)
        version = next(
            line.partition("==")[2]
            for line in requirements.splitlines()
            if line.startswith(f"{package}==")
        )
        lines += [f"## {service.name} {version}", ""]
        lines += [
            "| event type | kind | action | priorities | format | resource | project | actor |"
        ]
        lines += ["|---|---|---|---|---|---|---|---|"]
        rows: dict[tuple[str, str], list[tuple[str, list[bool]]]] = defaultdict(list)
        kinds: dict[str, tuple[str, str]] = {}
        for path in sorted((GOLDEN / service.name).glob("*.json")):
            notification = _notification(path)
            event_type, payload = str(notification["event_type"]), notification["payload"]
            event = normalise(path.read_bytes(), "bus", datetime.now(UTC), service.name)[0]
            kinds[event_type] = event.resource_type, event.action
            has_ids = [False, False, bool(event.user_id)]
            if isinstance(payload, Mapping):
                has_ids[0] = bool(service.read_resource_id(event_type, payload))
                has_ids[1] = bool(service.read_project_id(event_type, payload))
            rows[event_type, _format(payload)].append((event.priority, has_ids))
        for (event_type, form), captured in sorted(rows.items()):
            priorities = ", ".join(sorted({priority for priority, _ in captured}))
            columns = zip(*(flags for _, flags in captured), strict=True)
            marks = ["yes" if any(column) else "-" for column in columns]
            kind, action = kinds[event_type]
            lines.append(
                f"| `{event_type}` | {kind} | {action} | {priorities} | {form} "
                f"| {' | '.join(marks)} |"
            )
        lines.append("")
    return "\n".join([*lines, *_silent_calls()]) + "\n"


def history() -> str:
    """Return the page of an event's fields, phases and actions."""
    lines = [
        "# The history",
        "",
        "The history stores one event for each resource that a notification names.",
        "`stackbus events -o json` prints these fields. A value that the service did not send is an",
        "empty text.",
        "",
        "| field | meaning |",
        "|---|---|",
        *(f"| `{name}` | {field.description} |" for name, field in FIELD_INFO.items()),
        "",
        "## Phases",
        "",
        "The last word of the event type decides the phase. Otherwise it is `" + NO_PHASE + "`.",
        "",
        "| last word | phase |",
        "|---|---|",
        *(f"| `{word}` | {phase} |" for word, phase in PHASES.items()),
        "",
        "## Actions",
        "",
        "The action is derived from the event type, in one vocabulary for all services. An action that",
        "is not in this table is the service's own word.",
        "",
        "| action | meaning |",
        "|---|---|",
        *(f"| `{action}` | {meaning} |" for action, meaning in ACTIONS.items()),
    ]
    return "\n".join(lines) + "\n"


def _silent_calls() -> list[str]:
    table = read_table()
    lines = [
        "## Calls without a notification",
        "",
        "`make test-cloud` compares the calls of a scenario with the notifications. Only polling the",
        "API finds the changes of these calls. Refused calls appear in the service's log only.",
        "",
        "| call | why there is no notification |",
        "|---|---|",
    ]
    lines += [f"| {name} | {call.silent} |" for name, call in table.calls.items() if call.silent]
    lines += [
        "",
        "## Notifications without a call",
        "",
        "| service | event types | why |",
        "|---|---|---|",
    ]
    for background in table.background:
        types = background.types.pattern.replace("\\", "").replace("|", "\\|")
        lines.append(f"| {background.service} | `{types}` | {background.reason} |")
    lines += [
        "",
        "## Incomplete notifications",
        "",
        "`make test-cloud` also compares `stackbus audit` with the same calls: the actor, the resource",
        "and the result. Notifications of all other calls contain all three.",
        "",
        "| calls | missing | why |",
        "|---|---|---|",
    ]
    for gap in table.gaps:
        calls = f"{gap.calls}*" if gap.calls.endswith((".", "_")) else gap.calls
        missing = ", ".join(MISSING_PARTS[part] for part in gap.lacks)
        lines.append(f"| {calls} | {missing} | {gap.reason} |")
    return lines


def _notification(path: Path) -> Mapping[str, object]:
    body = json.loads(path.read_text("utf-8"))
    notification: Mapping[str, object] = (
        json.loads(body["oslo.message"]) if "oslo.message" in body else body
    )
    return notification


def _format(payload: object) -> str:
    if not isinstance(payload, Mapping):
        return "text"
    if "typeURI" in payload:
        return "cadf"
    kinds = ("nova_object", "ironic_object", "masakari_object")
    return next((kind for kind in kinds if f"{kind}.data" in payload), "plain")


def main() -> int:
    """Write the pages; with --check, compare them with the code and return 1 if one differs."""
    pages = {
        "settings.md": settings(),
        "commands.md": commands(),
        "metrics.md": metric_list(),
        "outer-bus.md": outer_bus(),
        "events.md": events(),
        "history.md": history(),
    }
    stale = []
    for name, text in pages.items():
        path = PAGES / name
        if "--check" not in sys.argv:
            path.write_text(NOTE + text, "utf-8")
        elif not path.exists() or path.read_text("utf-8") != NOTE + text:
            stale.append(name)
    if stale:
        print(
            f"docs/reference: {', '.join(stale)} differs from the code: run `make docs`",
            file=sys.stderr,
        )
    return 1 if stale else 0


if __name__ == "__main__":
    sys.exit(main())
