"""Write tests/golden/: one file for each event type and routing key, the body as it was sent.

``make golden`` passes every notification of the inner bus. A secret is replaced by an invented text
of the same shape, so that the tests of scrubbing have work and the repository holds no secret.
`events/scrub.py` finds the secrets; afterwards the bodies are searched for the scenario's own
tokens. In tracebacks, the folder of the cloud becomes `/srv/cloud` and Python's `/usr`. Everything
else is byte for byte as sent.
"""

from __future__ import annotations

import hashlib
import json
import random
import re
import shutil
import string
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from stackbus.events.scrub import MASK, Scrubber
from tests.cloud.home import Failed
from tests.cloud.traffic import Sent

GOLDEN = Path(__file__).parents[1] / "golden"
_PREFIXES = ("gAAAAA",)  # of a Fernet token, which is recognised by it
_MAX_DEPTH = 4
_ESCAPES = re.compile(r"(\\+(?:u[0-9a-fA-F]{4}|.))")  # are kept
_LETTER_KINDS = (string.digits, string.ascii_lowercase, string.ascii_uppercase)


def write(sent: Iterable[Sent], tokens: Iterable[str], cloud: Path) -> dict[str, int]:
    """Rewrite the files; return their count by service. Raises Failed if a token is left."""
    bodies: dict[tuple[str, str, str], str] = {}
    for message in sent:
        event_type = str(message.notification()["event_type"])
        key = (message.exchange, message.routing_key, event_type)
        bodies.setdefault(key, _replace_paths(disguise(message), cloud))
    for token in tokens:
        if any(token in body for body in bodies.values()):
            raise Failed(
                "a token of the scenario is left in a captured body: extend events/scrub.py"
            )
    counts: dict[str, int] = {}
    shutil.rmtree(GOLDEN, ignore_errors=True)
    for (exchange, routing_key, event_type), body in sorted(bodies.items()):
        path = GOLDEN / exchange / f"{event_type.replace(':', '_')}.{routing_key}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(body, "utf-8")
        counts[exchange] = counts.get(exchange, 0) + 1
    return counts


def _replace_paths(body: str, cloud: Path) -> str:
    return body.replace(str(cloud), "/srv/cloud").replace(sys.base_prefix, "/usr")


def disguise(message: Sent) -> str:
    """Return the body with every secret replaced by an invented text of the same shape."""
    event_type = str(message.notification()["event_type"])
    scrubbed = Scrubber().scrub(message.body.encode(), event_type)
    if not scrubbed.paths:
        return message.body
    body = message.body
    secrets = set(_find_masked(message.body, scrubbed.body.decode()))
    for secret in sorted(secrets, key=len, reverse=True):
        # A string inside a JSON string is escaped once more at each level.
        forms = [secret]
        for _ in range(_MAX_DEPTH):
            forms.append(json.dumps(forms[-1])[1:-1])
        for form in reversed(forms):
            body = body.replace(form, _invent(form))
    return body


def _find_masked(before: Any, after: Any) -> Iterator[str]:
    """Yield each string of ``before`` that is masked in ``after``."""
    if before == after:
        return
    if after == MASK:
        yield from _iterate_strings(before)
    elif isinstance(before, dict):
        for name in before:
            yield from _find_masked(before[name], after[name])
    elif isinstance(before, list):
        for old, new in zip(before, after, strict=True):
            yield from _find_masked(old, new)
    elif isinstance(before, str):
        try:
            yield from _find_masked(json.loads(before), json.loads(after))
        except ValueError:
            pattern = "(.+?)".join(re.escape(part) for part in after.split(MASK))
            match = re.fullmatch(pattern, before, re.DOTALL)
            assert match is not None
            yield from match.groups()


def _iterate_strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for member in value.values() if isinstance(value, dict) else value:
            yield from _iterate_strings(member)


def _invent(secret: str) -> str:
    """Return a text with the length and the kinds of letters of ``secret``, always the same."""
    draw = random.Random(hashlib.sha256(secret.encode()).digest())
    prefix = next((prefix for prefix in _PREFIXES if secret.startswith(prefix)), "")
    letters = []
    for part in _ESCAPES.split(secret.removeprefix(prefix)):
        is_escape = _ESCAPES.fullmatch(part) is not None
        for letter in part:
            kind = "" if is_escape else next((kind for kind in _LETTER_KINDS if letter in kind), "")
            letters.append(draw.choice(kind) if kind else letter)
    return prefix + "".join(letters)
