"""Limit how deep a JSON text is nested. Pure, and linear in the length of the text.

``envelope.py`` and ``scrub.py`` cut a text that a decoder's recursion could not read.
"""

from __future__ import annotations

import re

MAX_DEPTH = 100
"""Levels of objects and lists. Services send fewer than 20; Python's decoder ends at about 900."""

CUT = "-0.0e-0000000000"
"""The number that stands in place of a subtree that is nested too deep."""

_TOKEN = re.compile(r'"(?:[^"\\]++|\\.)*+"?|[\[{\]}]', re.DOTALL)


def may_be_too_deep(text: str | bytes) -> bool:
    """Return whether ``text`` has enough brackets to exceed the limit."""
    if isinstance(text, bytes):
        return text.count(b"[") + text.count(b"{") > MAX_DEPTH
    return text.count("[") + text.count("{") > MAX_DEPTH


def cut_deep(text: str, limit: int = MAX_DEPTH) -> str:
    """Replace each subtree below ``limit`` levels by CUT; the same object if there is none."""
    if text.count("[") + text.count("{") <= limit:
        return text
    parts, position, depth = [], 0, 0
    for token in _TOKEN.finditer(text):
        bracket = token[0]
        if bracket in ("[", "{"):
            depth += 1
            if depth == limit + 1:
                parts.append(text[position : token.start()] + CUT)
                position = len(text)
        elif bracket in ("]", "}"):
            if depth == limit + 1:
                position = token.end()
            depth -= 1
    return "".join(parts) + text[position:] if parts else text
