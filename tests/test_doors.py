"""Where names are imported from: documented packages, nothing deeper."""

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
def test_nothing_is_imported_from_deeper_than_a_door(path: Path):
    text = path.read_text(encoding="utf-8")
    used = set(re.findall(r"\b(?:from|import) (oneturn(?:\.\w+)*)", text))
    assert used <= DOORS


@pytest.mark.parametrize("init", PACKAGES, ids=lambda path: str(path.parent.relative_to(ROOT)))
def test_no_file_bears_the_name_of_what_its_door_exports(init: Path):
    door = importlib.import_module(".".join(init.parent.relative_to(ROOT).parts))
    files = {path.stem for path in init.parent.iterdir()}
    assert not files & set(getattr(door, "__all__", ()))


@pytest.mark.parametrize("name", oneturn.__all__)
def test_each_name_is_there(name: str):
    assert getattr(oneturn, name) is not None


def test_the_names_are_few_and_sorted():
    assert oneturn.__all__ == sorted(oneturn.__all__)
    assert len(oneturn.__all__) <= 32
    assert set(oneturn.__all__) <= set(dir(oneturn))


def test_another_name_is_not_there():
    with pytest.raises(AttributeError, match="module 'oneturn' has no attribute 'agentic'"):
        _ = oneturn.agentic  # type: ignore[attr-defined]
