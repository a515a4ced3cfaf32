"""The documents tell of all that there is and of nothing else; what is made from the sources is fresh."""

import re
from collections.abc import Iterator
from difflib import unified_diff
from itertools import chain
from pathlib import Path

from api.app import GROUPS
from api.openapi import document
from ops import reference
from support import codes, documents
from support.stack import ROOT

DOCS = ROOT / "docs"
#: Codes that are put together where the guard cannot see it, and where that is.
COMPUTED = {
    "invalid_training_file": "worker/handlers/validate.py",
    "invalid_validation_file": "worker/handlers/validate.py",
    "invalid_test_file": "worker/handlers/validate.py",
}
_ROW = re.compile(r"^\| `(\w+)` \|", re.MULTILINE)
_ROUTE = re.compile(r"^### (GET|POST|DELETE) (/\S*)$", re.MULTILINE)
_LINK = re.compile(r"\]\(([^)#\s]+)(#[\w\-]+)?\)")


def rows_of(page: str, section: str = "") -> set[str]:
    """The words in whose row a table of this page, from this heading on, says something."""
    text = (DOCS / page).read_text()
    return set(_ROW.findall(text[text.index(section) :]))


def test_every_code_that_a_user_can_meet_has_its_cause_and_remedy() -> None:
    there = codes.codes() | set(COMPUTED)

    documented = rows_of("troubleshooting.md")

    assert there - documented == set(), "add a row to docs/troubleshooting.md"
    assert documented - there == set(), "these codes are gone"


def test_every_issue_code_is_in_the_table_of_the_data_page() -> None:
    assert rows_of("data.md", "## Issues") == codes.issue_codes()


def test_every_route_is_described_and_every_described_route_is_served() -> None:
    paths = document(chain(*GROUPS))["paths"]
    served = {(method.upper(), path) for path, operations in paths.items() for method in operations}

    described = _ROUTE.findall((DOCS / "api.md").read_text())

    assert set(described) == served
    assert len(described) == len(served)


def test_every_described_route_is_called_by_a_command_that_is_run() -> None:
    text = (DOCS / "api.md").read_text()
    parts = re.split(r"^(?=##)", text, flags=re.MULTILINE)

    without = [part.splitlines()[0] for part in parts if _ROUTE.match(part) and "```sh\n" not in part]

    assert without == []


def test_the_pages_that_are_made_from_the_sources_are_fresh() -> None:
    for name, text in reference.pages().items():
        written, fresh = (DOCS / name).read_text().splitlines(), text.splitlines()
        stale = list(unified_diff(written, fresh, name, "fresh", n=0, lineterm=""))
        assert not stale, "run `make docs`:\n" + "\n".join(stale)


def test_every_link_within_the_project_leads_somewhere() -> None:
    pages = [*documents.DOCUMENTS, ROOT / "ARCHITECTURE.md", ROOT / "CHANGELOG.md"]

    dead = [f"{page.name}: {target}" for page in pages for target in _dead_links(page)]

    assert dead == []


def _dead_links(page: Path) -> Iterator[str]:
    for target, anchor in _LINK.findall(page.read_text()):
        if "://" in target:
            continue
        path = page.parent / target
        if not path.exists() or (anchor and anchor[1:] not in _anchors(path)):
            yield target + anchor


def _anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as the usual viewers make them."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
