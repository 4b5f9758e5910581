"""Private names of DSPy are used in ``oneturn/core/_dspy*.py`` only."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import oneturn

ROOT = Path(oneturn.__file__).parents[1]
PRIVATE = sorted((ROOT / "oneturn" / "core").glob("_dspy*.py"))
FOLDERS = ("oneturn", "signatures", "modules", "optimizers", "data", "benchmarks", "scripts")
FILES = [path for folder in FOLDERS for path in sorted((ROOT / folder).rglob("*.py")) if path not in PRIVATE]

PACKAGES = {
    "dspy",
    "dspy.lm15",
    "dspy.predict.parameter",
    "dspy.teleprompt",
    "dspy.teleprompt.gepa",
    "dspy.utils",
    "dspy.utils.callback",
    "dspy.utils.exceptions",
}
"""The packages of DSPy whose public names any file may import."""

OTHERS = {"_to_mlflow_entity"}
"""Private names of other packages."""


def private_names() -> set[str]:
    """The names with an underscore that these files use."""
    nodes = [node for path in PRIVATE for node in ast.walk(ast.parse(path.read_text()))]
    names = {node.attr for node in nodes if isinstance(node, ast.Attribute)}
    names |= {node.name for node in nodes if isinstance(node, ast.FunctionDef | ast.alias)}
    return {name for name in names if re.match("_[^_]", name)}


def inherited(tree: ast.Module) -> set[ast.AST]:
    """The nodes inside classes that derive from DSPy's."""
    imports = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    bases = {name.name for node in imports if "dspy" in (node.module or "") for name in node.names} | {"dspy"}
    classes = [node for node in ast.walk(tree) if isinstance(node, ast.ClassDef)]
    derived = [cls for cls in classes if any(ast.unparse(base).split(".")[0] in bases for base in cls.bases)]
    return {node for cls in derived for node in ast.walk(cls)}


def uses_of_private_names(path: Path, names: set[str]) -> Iterator[str]:
    """Imports from elsewhere than DSPy's public packages; private attributes of others, or inherited ones."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    of_dspy = inherited(tree)
    for node in ast.walk(tree):
        used: list[str] = []
        if isinstance(node, ast.ImportFrom) and re.match(r"dspy\b", node.module or ""):
            public = node.module in PACKAGES
            used = [f"{node.module}.{name.name}" for name in node.names if not public or name.name.startswith("_")]
        elif isinstance(node, ast.Import):
            used = [name.name for name in node.names if name.name.startswith("dspy.")]
        elif isinstance(node, ast.Attribute) and re.match("_[^_]", node.attr):
            own = isinstance(node.value, ast.Name) and node.value.id in ("self", "cls")
            allowed = node.attr in OTHERS or (own and (node not in of_dspy or node.attr not in names))
            used = [] if allowed else [node.attr]
        elif isinstance(node, ast.FunctionDef):
            used = [node.name] if node.name in names and node in of_dspy else []
        elif isinstance(node, ast.Constant):
            used = [str(node.value)] if node.value in names else []
        yield from (f"{path}:{node.lineno}: {name}" for name in used)  # type: ignore[attr-defined]


def test_no_other_file_uses_private_names_of_dspy():
    names = private_names()
    assert {"_engine_spec", "_store", "_prepare_response_format"} <= names
    found = [use for path in FILES for use in uses_of_private_names(path, names)]
    assert not found, "Use oneturn/core/_dspy*.py instead of private names of DSPy:\n" + "\n".join(found)


@pytest.mark.parametrize(
    "line",
    [
        "from dspy.adapters.utils import serialize_for_json",
        "from dspy.lm15 import _registered",
        "import dspy.clients.cache",
        "prediction._completions",
        "getattr(lm, '_engine_spec', None)",
        "class Own(dspy.JSONAdapter):\n    def _prepare_response_format(self): ...",
        "class Own(dspy.LM):\n    requests = property(lambda self: self._engine_spec.requests)",
    ],
)
def test_a_private_name_is_found(line: str, tmp_path: Path):
    (tmp_path / "a.py").write_text(line)
    assert len(list(uses_of_private_names(tmp_path / "a.py", private_names()))) == 1
