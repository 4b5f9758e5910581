"""Docs, notebooks and root folders import from documented packages only, not from their modules."""

from __future__ import annotations

import importlib
import re
from pathlib import Path

import pytest

import oneturn

ROOT = Path(oneturn.__file__).parents[1]
PACKAGES = sorted((ROOT / "oneturn").rglob("__init__.py"))
DOORS = {".".join(path.parent.relative_to(ROOT).parts) for path in PACKAGES} | {"oneturn.errors", "oneturn.testing"}
READERS = [
    path
    for place in (
        "README.md",
        "agent.py",
        "docs",
        "notebooks",
        "signatures",
        "modules",
        "optimizers",
        "data",
        "benchmarks",
    )
    for path in ([ROOT / place] if (ROOT / place).is_file() else sorted((ROOT / place).rglob("*")))
    if path.suffix in (".md", ".py", ".ipynb")
]


@pytest.mark.parametrize("path", READERS, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_use_documented_packages_only(path: Path):
    text = path.read_text(encoding="utf-8")
    used = set(re.findall(r"\b(?:from|import) (oneturn(?:\.\w+)*)", text))
    assert used <= DOORS


@pytest.mark.parametrize("init", PACKAGES, ids=lambda path: str(path.parent.relative_to(ROOT)))
def test_no_module_has_the_name_of_an_export_of_its_package(init: Path):
    door = importlib.import_module(".".join(init.parent.relative_to(ROOT).parts))
    files = {path.stem for path in init.parent.iterdir()}
    assert not files & set(getattr(door, "__all__", ()))


@pytest.mark.parametrize("name", oneturn.__all__)
def test_each_exported_name_exists(name: str):
    assert getattr(oneturn, name) is not None


def test_exports_are_few_and_sorted():
    assert oneturn.__all__ == sorted(oneturn.__all__)
    assert len(oneturn.__all__) <= 32
    assert set(oneturn.__all__) <= set(dir(oneturn))


def test_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="module 'oneturn' has no attribute 'agentic'"):
        _ = oneturn.agentic  # type: ignore[attr-defined]
