"""Malformed notifications for tests: captured ones with a wrong value in any place."""

from __future__ import annotations

import json
from collections.abc import Sequence

from hypothesis import strategies as st

from tests.conftest import Captured

VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=20),
    lambda children: (
        st.lists(children, max_size=4) | st.dictionaries(st.text(max_size=8), children, max_size=4)
    ),
    max_leaves=12,
)
"""Any JSON value of moderate size."""


def spoil(captured: Captured, path: Sequence[int], value: object) -> bytes:
    """Return the enveloped notification with ``value`` in place of the member at ``path``.

    Each number of the path chooses a member, modulo how many there are; the path ends where a
    value has none.
    """
    message = captured.message()
    parent: dict[str, object] | list[object] = message
    keys = iter(path)
    key = _member(parent, next(keys))
    for step in keys:
        child = parent[key]  # type: ignore[index]
        if not isinstance(child, dict | list) or not child:
            break
        parent, key = child, _member(child, step)
    parent[key] = value  # type: ignore[index]
    return json.dumps({"oslo.version": "2.0", "oslo.message": json.dumps(message)}).encode()


def _member(parent: dict[str, object] | list[object], step: int) -> str | int:
    if isinstance(parent, dict):
        return sorted(parent)[step % len(parent)]
    return step % len(parent)
