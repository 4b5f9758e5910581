"""The site of the documentation: every page has its place, no link is broken, and generated pages are up to date."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from oneturn import errors
from scripts import reference_docs

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
CONFIG = ROOT / "zensical.toml"


def places(nav: Any) -> list[str]:
    """Return the files in a part of the navigation."""
    if isinstance(nav, str):
        return [nav]
    entries = nav.values() if isinstance(nav, dict) else nav
    return [place for entry in entries for place in places(entry)]


def test_every_page_has_one_place_in_the_navigation():
    tomllib = pytest.importorskip("tomllib", reason="tomllib needs Python 3.11")
    nav = tomllib.loads(CONFIG.read_text(encoding="utf-8"))["project"]["nav"]
    assert [next(iter(part)) for part in nav[1:]] == ["Tutorial", "How-to", "Reference", "Explanation"]
    assert sorted(places(nav)) == sorted(path.name for path in DOCS.glob("*.md"))


def test_the_site_builds_without_a_broken_link_and_loads_nothing_from_elsewhere(tmp_path: Path):
    pytest.importorskip("zensical")
    shutil.copytree(DOCS, tmp_path / "docs")
    shutil.copy(CONFIG, tmp_path)
    command = [sys.executable, "-m", "zensical", "build", "--strict"]
    built = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert built.returncode == 0, built.stdout + built.stderr
    pages = list((tmp_path / "build" / "site").glob("*.html"))
    assert len(pages) > 30
    for page in pages:
        loaded = re.findall(r"<(?:script|link|img)[^>]* (?:src|href)=[\"']?(https?:[^\"' >]+)", page.read_text("utf-8"))
        assert loaded == [], page.name


@pytest.mark.parametrize("name", ["README.md", "CONTRIBUTING.md"])
def test_the_links_of_the_repository_s_pages_exist(name: str):
    text = (ROOT / name).read_text(encoding="utf-8")
    links = re.findall(r"\]\(((?!https?:)[^)#]+)", text)
    assert [link for link in links if not (ROOT / link).exists()] == []


@pytest.mark.parametrize("path", reference_docs.PAGES, ids=lambda path: path.name)
def test_generated_pages_are_up_to_date(path: Path):
    page = reference_docs.PAGES[path]
    assert path.read_text(encoding="utf-8") == page(), "run: python -m scripts.reference_docs"


def test_every_error_type_is_in_the_reference():
    text = (DOCS / "reference-errors.md").read_text(encoding="utf-8")
    kinds = {kind.__name__ for kind in reference_docs.error_types()}
    assert kinds >= {"OneTurnError", "AgentError", "ApprovalRequired"}
    assert kinds == set(re.findall(r"^## (\w+)$", text, re.MULTILINE))
    assert kinds - {"OneTurnError"} == set(re.findall(r"[├└]── (\w+)", errors.__doc__ or ""))
