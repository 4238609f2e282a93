#!/usr/bin/env python3
"""Measure how plain the English of the code is; exit 1 if a share is above its threshold.

It parses every Python file of a tree and counts four habits that make code hard to read: variables
named by a function word, functions named by a bare participle, docstrings that begin with Give,
Tell or Say, and docstring sentences that use a clause ("what is there") where a noun would do.
``make check`` runs it: src/stackbus must pass, tests are reported only. Use -v to list offenders.
"""

from __future__ import annotations

import argparse
import ast
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent

FUNCTION_WORDS = re.compile(
    "a|again|all|another|any|both|chosen|each|else|first|found|given|had|has|here|how|it|its|kept|"
    "known|last|least|made|more|most|nothing|ones?|others?|own|place|rest|same|some|something|such|"
    "taken|that|the|them|there|these|they|this|those|told|wanted|what|whatever|when|where|which|"
    "whichever|who|whoever|whole|whom|whose|why"
)
PARTICIPLES = re.compile(
    "[a-z]+ed|begun|bound|built|chosen|done|found|given|gone|grown|held|kept|known|left|lost|made|"
    "meant|paid|said|seen|sent|shown|sought|stood|taken|thought|told|understood|withdrawn|written"
)
NOUNS_IN_ED = frozenset({"bed", "embed", "feed", "need", "seed", "shed", "speed"})
VAGUE_OPENINGS = frozenset({"give", "gives", "giving", "say", "says", "tell", "tells", "telling"})

SENTENCE_END = re.compile(r"(?<=[.:;?!])\s+|\n\s*\n")
NOUN_CLAUSE = re.compile(
    r"\b(?:what|whatever|whoever|whichever)\s+\w+"
    r"|(?<!, )\b(?:which|who)\s+(?:is|are|was|were|has|have|had|does|do|did|can|may|must|will)\b",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Habit:
    """One habit that is counted: its name and the largest share of it, in per cent."""

    name: str
    threshold: float


VARIABLES = Habit("variables that are function words", 1)
FUNCTIONS = Habit("functions that are bare participles", 2)
OPENINGS = Habit("docstrings that begin with Give, Tell or Say", 1)
CLAUSES = Habit("docstring sentences with a clause in place of a noun", 4)
HABITS = (VARIABLES, FUNCTIONS, OPENINGS, CLAUSES)


@dataclass(frozen=True)
class Sample:
    """One name, docstring or sentence that was examined for a habit."""

    habit: Habit
    line: int
    text: str
    is_offender: bool


@dataclass(frozen=True)
class Share:
    """How often a habit occurs in a tree, and the places where it does."""

    habit: Habit
    total: int
    offenders: tuple[str, ...]

    @property
    def percent(self) -> float:
        """Return the share of offenders, 0 for a tree without samples."""
        return 100 * len(self.offenders) / max(self.total, 1)

    @property
    def is_exceeded(self) -> bool:
        """Return whether the share is above the threshold."""
        return self.percent > self.habit.threshold

    def __str__(self) -> str:
        """Return the line of the report."""
        return (
            f"{self.habit.name}: {self.percent:.1f} % of {self.total} "
            f"(at most {self.habit.threshold:g} %)"
        )


def is_function_word(name: str) -> bool:
    """Return whether a variable's name is a pronoun, an article or the like, and no noun."""
    return FUNCTION_WORDS.fullmatch(name.strip("_").lower()) is not None


def is_participle(name: str) -> bool:
    """Return whether a function's name is one participle, such as ``renewed``, and no verb."""
    word = name.strip("_")
    return word not in NOUNS_IN_ED and PARTICIPLES.fullmatch(word) is not None


def has_vague_opening(docstring: str) -> bool:
    """Return whether a docstring begins with Give, Tell or Say."""
    return docstring.split(maxsplit=1)[0].lower().strip(",.:") in VAGUE_OPENINGS


def has_noun_clause(sentence: str) -> bool:
    """Return whether a sentence has a clause in place of a noun, such as "store what came"."""
    return NOUN_CLAUSE.search(sentence) is not None


def examine(source: str) -> Iterator[Sample]:
    """Yield every sample of one Python file."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield from _examine_variable(node.id, node.lineno)
        elif isinstance(node, ast.arg):
            yield from _examine_variable(node.arg, node.lineno)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and not _is_special(node.name):
            yield Sample(FUNCTIONS, node.lineno, node.name, is_participle(node.name))
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            yield from _examine_docstring(ast.get_docstring(node), getattr(node, "lineno", 1))


def _examine_variable(name: str, line: int) -> Iterator[Sample]:
    if name not in {"self", "cls", "_"}:
        yield Sample(VARIABLES, line, name, is_function_word(name))


def _examine_docstring(docstring: str | None, line: int) -> Iterator[Sample]:
    if not docstring:
        return
    yield Sample(OPENINGS, line, docstring.splitlines()[0], has_vague_opening(docstring))
    for sentence in SENTENCE_END.split(docstring):
        yield Sample(CLAUSES, line, " ".join(sentence.split()), has_noun_clause(sentence))


def _is_special(name: str) -> bool:
    return name.startswith("__") and name.endswith("__")


def measure(tree: Path) -> list[Share]:
    """Return the share of each habit over all Python files below a folder."""
    samples: dict[Habit, list[tuple[str, Sample]]] = {habit: [] for habit in HABITS}
    for file in sorted(tree.rglob("*.py")):
        for sample in examine(file.read_text("utf-8")):
            samples[sample.habit].append((f"{file}:{sample.line}", sample))
    return [
        Share(
            habit,
            len(pairs),
            tuple(f"{location} {sample.text}" for location, sample in pairs if sample.is_offender),
        )
        for habit, pairs in samples.items()
    ]


def report(shares: list[Share], *, verbose: bool) -> None:
    """Print one line for each share; verbose adds the offenders below it."""
    for share in shares:
        print(f"{'FAIL' if share.is_exceeded else '  ok'}  {share}")
        for offender in share.offenders if verbose else ():
            print(f"        {offender}")


def main() -> int:
    """Check the trees of the command line; without any, check src/stackbus and report tests."""
    parser = argparse.ArgumentParser(description="Measure how plain the English of the code is.")
    parser.add_argument("trees", nargs="*", type=Path, help="folders to check")
    parser.add_argument("-v", "--verbose", action="store_true", help="list every offender")
    arguments = parser.parse_args()
    is_exceeded = False
    for tree in arguments.trees or [ROOT / "src" / "stackbus"]:
        shares = measure(tree)
        print(tree)
        report(shares, verbose=arguments.verbose)
        is_exceeded |= any(share.is_exceeded for share in shares)
    if not arguments.trees:
        print("tests (reported only)")
        report(measure(ROOT / "tests"), verbose=arguments.verbose)
    return int(is_exceeded)


if __name__ == "__main__":
    sys.exit(main())
