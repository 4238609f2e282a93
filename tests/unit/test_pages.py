"""The pages in docs/: each can be reached from README, and decisions have one form."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
DOCS = ROOT / "docs"
DECISIONS = sorted((DOCS / "decisions").glob("[0-9]*.md"))
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(DOCS.rglob("*.md"))]


def links(page: Path) -> list[tuple[Path, str]]:
    """Return the linked files of a page, each with the heading after #."""
    targets = re.findall(r"\]\(([^)]+)\)", page.read_text("utf-8"))
    return [
        ((page.parent / path).resolve() if path else page, heading)
        for path, _, heading in (target.partition("#") for target in targets)
        if "://" not in path
    ]


def anchors(page: Path) -> set[str]:
    """Return the anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", page.read_text("utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_every_page_can_be_reached_from_readme() -> None:
    reached = {ROOT / "README.md"}
    unread = list(reached)
    while unread:
        page = unread.pop()
        for target, _ in links(page):
            pages = [target] if target.suffix == ".md" else sorted(target.glob("*.md"))
            unread += [page for page in pages if page not in reached]
            reached |= set(pages)
    assert set(PAGES) - reached == set()


def test_links_lead_to_headings_that_exist() -> None:
    for page in PAGES:
        for target, heading in links(page):
            assert target.exists(), f"{page}: {target}"
            assert not heading or heading in anchors(target), f"{page}: {target}#{heading}"


@pytest.mark.parametrize("page", DECISIONS, ids=lambda page: page.stem)
def test_a_decision_has_a_date_and_three_parts(page: Path) -> None:
    text = page.read_text("utf-8")
    assert re.match(rf"# {int(page.name[:4])}\. .+\n\nDate: \d{{4}}-\d\d-\d\d\n\n", text)
    assert re.findall(r"^## (.+)$", text, re.MULTILINE) == ["Context", "Decision", "Consequence"]


def test_the_index_lists_every_decision_with_its_title_and_date() -> None:
    rows = re.findall(
        r"^\| (\d+) \| \[(.+?)\]\((.+?)\) \| (.+?) \|$",
        (DOCS / "decisions" / "README.md").read_text("utf-8"),
        re.MULTILINE,
    )
    assert [page.name for page in DECISIONS] == [name for _, _, name, _ in rows]
    for number, title, name, day in rows:
        text = (DOCS / "decisions" / name).read_text("utf-8")
        assert text.startswith(f"# {number}. {title}\n\nDate: {day}\n")
