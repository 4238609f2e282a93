"""The check that no notification was quarantined because stackbus itself failed on it.

Relay and recorder quarantine a notification that makes their code raise an unforeseen exception,
so that one body never stops the others. In a test of malformed input such a quarantine is a bug.
"""

from __future__ import annotations

from collections.abc import Iterable

CATCH_ALL = "stackbus cannot read this"
"""How relay and recorder begin the reason of a quarantine that their own failure caused."""


def check_reasons(reasons: Iterable[str]) -> None:
    """Raise AssertionError if one of the quarantine's ``reasons`` is the catch-all, or empty."""
    unexpected = [reason for reason in reasons if not reason or CATCH_ALL in reason]
    assert not unexpected, f"{len(unexpected)} notifications made stackbus fail: {unexpected[:5]}"
