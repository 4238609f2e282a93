"""scripts/language.py: each count rises with its habit, and stays down for plain English."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from scripts.language import (
    CLAUSES,
    FUNCTIONS,
    HABITS,
    OPENINGS,
    VARIABLES,
    Habit,
    examine,
    has_noun_clause,
    is_function_word,
    is_participle,
    measure,
)

SCRIPT = Path(__file__).parent.parent.parent / "scripts" / "language.py"

PLAIN = '''"""Deliver batches to the history."""

class Batch:
    """A list of events, with the position of its last delivery."""

    def close(self, timeout: float) -> bool:
        """Return whether the batch was stored before the timeout."""
        is_stored = timeout > 0
        return is_stored
'''


def offenders(source: str, habit: Habit) -> list[str]:
    return [s.text for s in examine(source) if s.habit is habit and s.is_offender]


@pytest.mark.parametrize(
    ("source", "habit", "expected"),
    [
        ("for one in events: pass", VARIABLES, ["one"]),
        ("where = connect()", VARIABLES, ["where"]),
        ("def store(_told): pass", VARIABLES, ["_told"]),
        ("with connect() as found: pass", VARIABLES, ["found"]),
        ("[first for first in events]", VARIABLES, ["first"]),
        ("def renewed(): pass", FUNCTIONS, ["renewed"]),
        ("async def _kept(): pass", FUNCTIONS, ["_kept"]),
        ("class Batch:\n    def told(self): pass", FUNCTIONS, ["told"]),
        ('def load():\n    """Give the events."""', OPENINGS, ["Give the events."]),
        ('class Batch:\n    """Tells its size."""', OPENINGS, ["Tells its size."]),
        ('"""Say it."""', OPENINGS, ["Say it."]),
        ('"""Store what came."""', CLAUSES, ["Store what came."]),
        ('"""Return. Ask whoever holds the lock."""', CLAUSES, ["Ask whoever holds the lock."]),
        ('"""Read which are there."""', CLAUSES, ["Read which are there."]),
    ],
)
def test_each_habit_is_found(source: str, habit: Habit, expected: list[str]) -> None:
    assert offenders(source, habit) == expected


def test_plain_english_has_no_offender() -> None:
    samples = list(examine(PLAIN))
    assert {sample.habit for sample in samples} == set(HABITS)
    assert not [sample for sample in samples if sample.is_offender]


@pytest.mark.parametrize("name", ["seed", "read", "feed", "store_events", "is_closed", "__enter__"])
def test_verbs_and_questions_are_no_participles(name: str) -> None:
    assert not is_participle(name)


@pytest.mark.parametrize("name", ["event", "first_event", "kept_events", "here_document"])
def test_nouns_are_no_function_words(name: str) -> None:
    assert not is_function_word(name)


def test_a_relative_clause_with_its_noun_is_plain() -> None:
    assert not has_noun_clause("Return the body, which may hold a secret, of a queue that is full.")


def test_the_share_counts_against_all_samples_of_the_tree(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "events.py").write_text("event = batch = offset = one = 1\n")
    (variables,) = [share for share in measure(tmp_path) if share.habit is VARIABLES]
    assert variables.percent == 25
    assert variables.is_exceeded
    assert variables.offenders == (f"{tmp_path}/folder/events.py:1 one",)


@pytest.mark.parametrize(
    ("source", "code"), [(PLAIN, 0), (PLAIN.replace("Return whether", "Tell whether"), 1)]
)
def test_the_exit_code_is_1_above_a_threshold(tmp_path: Path, source: str, code: int) -> None:
    (tmp_path / "batch.py").write_text(source)
    process = subprocess.run(
        [sys.executable, SCRIPT, "-v", str(tmp_path)], capture_output=True, text=True, check=False
    )
    assert process.returncode == code, process.stdout + process.stderr
    assert (f"{tmp_path}/batch.py:6 Tell whether the batch" in process.stdout) == bool(code)
