"""Write tests/golden/: one file for each event type and routing key, the body as it was sent.

Called by ``__main__.py`` (``make golden``) with everything that the inner bus has seen. What is secret
in a body is replaced by something made up of the same shape, so that scrubbing has its work and
the repository holds no secret: `events/scrub.py` finds the values, and the scenario's own tokens
are looked for afterwards; in tracebacks, the folder of the cloud becomes `/srv/cloud` and Python's
`/usr`. All else is byte for byte as sent.
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
from tests.cloud.place import Failed
from tests.cloud.telling import Sent

GOLDEN = Path(__file__).parents[1] / "golden"
_PREFIXES = ("gAAAAA",)  # by which a Fernet token is known
_DEEPEST = 4
_ESCAPES = re.compile(r"(\\+(?:u[0-9a-fA-F]{4}|.))")  # must stay what they are
_KINDS = (string.digits, string.ascii_lowercase, string.ascii_uppercase)


def write(sent: Iterable[Sent], tokens: Iterable[str], cloud: Path) -> dict[str, int]:
    """Write the files anew; give how many for each service. Raises Failed if a token is left."""
    chosen: dict[tuple[str, str, str], str] = {}
    for one in sent:
        event_type = str(one.notification()["event_type"])
        chosen.setdefault((one.exchange, one.routing_key, event_type), _elsewhere(one, cloud))
    for token in tokens:
        if any(token in body for body in chosen.values()):
            raise Failed(
                "a token of the scenario is left in what was captured: see events/scrub.py"
            )
    counts: dict[str, int] = {}
    shutil.rmtree(GOLDEN, ignore_errors=True)
    for (exchange, routing_key, event_type), body in sorted(chosen.items()):
        path = GOLDEN / exchange / f"{event_type.replace(':', '_')}.{routing_key}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(body, "utf-8")
        counts[exchange] = counts.get(exchange, 0) + 1
    return counts


def _elsewhere(one: Sent, cloud: Path) -> str:
    return disguised(one).replace(str(cloud), "/srv/cloud").replace(sys.base_prefix, "/usr")


def disguised(one: Sent) -> str:
    """Give the body with everything secret replaced by something of the same shape."""
    event_type = str(one.notification()["event_type"])
    scrubbed = Scrubber().scrub(one.body.encode(), event_type)
    if not scrubbed.paths:
        return one.body
    body = one.body
    for secret in sorted(set(_hidden(one.body, scrubbed.body.decode())), key=len, reverse=True):
        # A text inside a text inside a text: each is escaped once more.
        forms = [secret]
        for _ in range(_DEEPEST):
            forms.append(json.dumps(forms[-1])[1:-1])
        for written in reversed(forms):
            body = body.replace(written, _made_up(written))
    return body


def _hidden(before: Any, after: Any) -> Iterator[str]:
    """Give each text of ``before`` that is masked in ``after``."""
    if before == after:
        return
    if after == MASK:
        yield from _texts(before)
    elif isinstance(before, dict):
        for name in before:
            yield from _hidden(before[name], after[name])
    elif isinstance(before, list):
        for one, other in zip(before, after, strict=True):
            yield from _hidden(one, other)
    elif isinstance(before, str):
        try:
            yield from _hidden(json.loads(before), json.loads(after))
        except ValueError:
            around = "(.+?)".join(re.escape(part) for part in after.split(MASK))
            found = re.fullmatch(around, before, re.DOTALL)
            assert found is not None
            yield from found.groups()


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for one in value.values() if isinstance(value, dict) else value:
            yield from _texts(one)


def _made_up(secret: str) -> str:
    """Give a text of the same length and kinds of letters, always the same for one secret."""
    draw = random.Random(hashlib.sha256(secret.encode()).digest())
    start = next((len(one) for one in _PREFIXES if secret.startswith(one)), 0)
    made = []
    for part in _ESCAPES.split(secret[start:]):
        kept = _ESCAPES.fullmatch(part) is not None
        for letter in part:
            kind = "" if kept else next((one for one in _KINDS if letter in one), "")
            made.append(draw.choice(kind) if kind else letter)
    return secret[:start] + "".join(made)
