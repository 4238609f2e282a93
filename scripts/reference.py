#!/usr/bin/env python3
"""Write docs/reference/ from the code; with --check, fail if a page is not what the code says."""

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
from stackbus.cli.app import LazyCommand, app
from stackbus.events import scrub
from stackbus.events.actions import ACTIONS, NO_PHASE, PHASES
from stackbus.events.model import FIELD_INFO
from stackbus.events.normalise import normalise
from stackbus.services import SERVICES
from stackbus.services.service import NOTIFICATION_TOPICS, PRIORITIES, SHARED_EXCHANGE

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))
from tests.cloud.check import read_table  # noqa: E402 -- the tests are no installed package

PAGES = ROOT / "docs" / "reference"
GOLDEN = ROOT / "tests" / "golden"
NOTE = (
    "<!-- Written by scripts/reference.py from the code: change it there, then `make docs`. -->\n\n"
)


def settings() -> str:
    """Every setting: its variable, default and meaning."""
    lines = [
        "# Settings",
        "",
        "Each is an environment variable; an option of a command overrides it for that run.",
        "Lists are written as JSON.",
        "",
        "| variable | default | meaning |",
        "|---|---|---|",
    ]
    for setting in stackbus_settings.reference():
        default = "" if setting.default is None else f"`{setting.default}`"
        lines.append(f"| `STACKBUS_{setting.name.upper()}` | {default} | {setting.description} |")
    return "\n".join(lines) + "\n"


def commands() -> str:
    """Every command with its options, from the same text as --help."""
    lines = [
        "# Commands",
        "",
        "Exit code 0: done. 1: it could not be done. 2: the input is wrong, nothing was touched.",
        "Results go to stdout, progress and logs to stderr. `stackbus --install-completion` sets up",
        "the completion of your shell.",
        "",
    ]
    for name, command in _all_commands(typer.main.get_command(app)):
        lines += [f"## stackbus {name}", "", *_paragraphs(command.help or ""), ""]
        lines += ["| option | meaning |", "|---|---|"]
        for parameter in command.params:
            names = ", ".join(f"`{one}`" for one in parameter.opts) or f"`{parameter.name}`"
            if parameter.param_type_name == "argument":
                names = f"`{str(parameter.name).upper()}`"
            text = (getattr(parameter, "help", "") or "").replace("|", "\\|")
            lines.append(f"| {names} | {text} |")
        lines.append("")
    return "\n".join(lines)


def _all_commands(group: Any, before: str = "") -> Iterator[tuple[str, Any]]:
    for name, entry in group.commands.items():
        command = entry.load() if isinstance(entry, LazyCommand) else entry
        if hasattr(command, "commands"):
            yield from _all_commands(command, f"{before}{name} ")
        else:
            yield before + name, command


def _paragraphs(text: str) -> list[str]:
    return [line.strip() for line in text.strip().splitlines()]


def metric() -> str:
    """Every metric: what it counts, and what to do when it is high."""
    lines = [
        "# Metrics",
        "",
        "Served in Prometheus' format by `--metrics ADDRESS:PORT` of `stackbus relay`, `record` and",
        "`operator`.",
        "",
        "| metric | type | what it counts, and what to do when it is high |",
        "|---|---|---|",
    ]
    for one in metrics.ALL:
        (family,) = one.collect()
        ending = "_total" if family.type == "counter" else ""
        lines.append(f"| `{family.name}{ending}` | {family.type} | {family.documentation} |")
    return "\n".join(lines) + "\n"


def outer_bus() -> str:
    """Routing key, properties and scrubbing, as consumers meet them."""
    names = ", ".join(f"`{name}`" for name in scrub.SENSITIVE_NAMES)
    endings = ", ".join(f"`{ending}`" for ending in scrub.HARMLESS_SUFFIXES)
    secrets = "; ".join(
        f"`{field}` in `{prefix}.*`" for one in SERVICES for prefix, field in one.secrets
    )
    services = "\n".join(
        f"| {one.name} | `{one.type}` | `{one.exchange}` | "
        f"{', '.join(f'`{word}`' for word in one.event_types)} |"
        for one in SERVICES
    )
    return f"""# The outer bus

What a consumer of a topic receives.

## Routing key

`<priority>.<service>.<project>.<event_type>`, for example
`info.nova.6f70656e737461636b20342065766572.instance.create.end`.

- priority: one of {", ".join(f"`{word}`" for word in PRIORITIES)}; each has its queue,
  `<topic>.<priority>`.
- service: by the control exchange it came over; over the shared exchange `{SHARED_EXCHANGE}`, by
  the event type. `-` if it is none of the ten.
- project: the owner's id; `-` if the notification does not tell one.
- event type: as the service sent it. A key longer than 255 bytes is cut there.

| service | type in the deployment | control exchange | first words of its event types |
|---|---|---|---|
{services}

From each control exchange these keys are taken, and no others:
{", ".join(f"`{topic}.*`" for topic in NOTIFICATION_TOPICS)}.

## Properties

| property | value |
|---|---|
| `message_id` | the notification's; the same again if it is delivered twice |
| `type` | event type |
| `app_id` | service, or `-` |
| `timestamp` | the notification's, in seconds since 1970, UTC |
| `content_type` | `application/json` |
| `content_encoding` | `utf-8` |
| header `x-stackbus-scrubbed` | where something was taken out: paths, 100 at most |

The body is the service's, byte for byte, unless something was scrubbed: oslo.messaging's envelope
(`oslo.version`, and `oslo.message`, the notification as a JSON text), or the bare notification.

## Scrubbing

A value becomes `***` if its name, whatever its case and separators, contains one of
{names}.

It is left if that name ends with one of
{endings}; if it is empty, true, false or null; or if it is masked already. Secret in some events
alone: {secrets}. `{{"key": <name>, "value": ...}}` is read as a name and its value.

Of any text, what has the shape of a Fernet token, a JWT, a PEM private key, the password of
`scheme://user:password@host` or of `?password=...` becomes `***`, wherever it stands: in JSON
inside texts, at any depth. `STACKBUS_SCRUB_NAMES` and `STACKBUS_SCRUB_SHAPES` extend the lists.

A body that cannot be searched (no JSON, nested too deep, a key twice in one object) does not
leave: it goes to the queue `stackbus.quarantine` of the inner vhost, with its reason in the header
`x-stackbus-reason`.
"""


def events() -> str:
    """Every event type seen on the live bus of the test cloud, and what its calls do not tell."""
    lines = [
        "# Events",
        "",
        "What the ten services told in the test cloud (`tests/cloud/`), captured on the inner bus.",
        "Others exist: a service tells more than one scenario can make it tell. What is meant by",
        "*resource*, *project* and *actor*: the id of what the notification is about, the id of the",
        "project that owns it, the id of the user who did it. `-`: none of the captured ones tells.",
        "",
        "Formats: `nova_object`, `ironic_object` and `masakari_object` are versioned objects; `cadf`",
        "is CADF; `plain` is a JSON object of the service's own; `text` is a bare text.",
        "*Kind* and *action* are what the history calls it: [history.md](history.md).",
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
            told = [False, False, bool(event.user_id)]
            if isinstance(payload, Mapping):
                told[0] = bool(service.read_resource_id(event_type, payload))
                told[1] = bool(service.read_project_id(event_type, payload))
            priority = str(notification["priority"]).lower()
            rows[event_type, _format(payload)].append((priority, told))
        for (event_type, form), some in sorted(rows.items()):
            priorities = ", ".join(sorted({priority for priority, _ in some}))
            marks = ["yes" if any(told[place] for _, told in some) else "-" for place in range(3)]
            kind, action = kinds[event_type]
            lines.append(
                f"| `{event_type}` | {kind} | {action} | {priorities} | {form} "
                f"| {' | '.join(marks)} |"
            )
        lines.append("")
    return "\n".join([*lines, *_untold()]) + "\n"


def history() -> str:
    """Every field of an event, and the vocabulary of actions."""
    lines = [
        "# The history",
        "",
        "One event for each resource that a notification speaks of. Its fields, as",
        "`stackbus events -o json` prints them; what is not told is an empty text.",
        "",
        "| field | what it says |",
        "|---|---|",
        *(f"| `{name}` | {field.description} |" for name, field in FIELD_INFO.items()),
        "",
        "## Phases",
        "",
        "By the last word of the event type; `" + NO_PHASE + "` where it is none of these.",
        "",
        "| last word | phase |",
        "|---|---|",
        *(f"| `{word}` | {phase} |" for word, phase in PHASES.items()),
        "",
        "## Actions",
        "",
        "What follows the kind of resource in the event type, in one spelling for all services. An",
        "action that is not listed is the service's own word.",
        "",
        "| action | what happened |",
        "|---|---|",
        *(f"| `{action}` | {meaning} |" for action, meaning in ACTIONS.items()),
    ]
    return "\n".join(lines) + "\n"


def _untold() -> list[str]:
    table = read_table()
    lines = [
        "## What is done and not told",
        "",
        "Found by holding a scenario's calls against what was told of them (`make test-cloud`). Only",
        "polling the API finds these changes; refusals leave no other trace than the service's log.",
        "",
        "| call | why nothing is told |",
        "|---|---|",
    ]
    lines += [f"| {name} | {one.silent} |" for name, one in table.calls.items() if one.silent]
    lines += [
        "",
        "## What is told of no call",
        "",
        "| service | event types | why |",
        "|---|---|---|",
    ]
    for one in table.background:
        types = one.types.pattern.replace("\\", "").replace("|", "\\|")
        lines.append(f"| {one.service} | `{types}` | {one.reason} |")
    lines += [
        "",
        "## What is told and does not say everything",
        "",
        "Found by holding `stackbus audit` against the same calls: who did it, to what, with which",
        "result. Of all calls that tell something and are not here, it says all three.",
        "",
        "| calls | what is missing | why |",
        "|---|---|---|",
    ]
    for lack in table.gaps:
        calls = f"{lack.calls}*" if lack.calls.endswith((".", "_")) else lack.calls
        lines.append(f"| {calls} | {', '.join(lack.lacks)} | {lack.reason} |")
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
    """Write the pages, or hold them against the code."""
    pages = {
        "settings.md": settings(),
        "commands.md": commands(),
        "metrics.md": metric(),
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
            f"docs/reference: {', '.join(stale)} is not what the code says: make docs",
            file=sys.stderr,
        )
    return 1 if stale else 0


if __name__ == "__main__":
    sys.exit(main())
