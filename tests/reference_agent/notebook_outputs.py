"""The outputs with which a notebook is committed: made with ``make notebooks WRITE=1``.

Readers on the web see tables and pictures. What the notebook shows depends on its cells and on the root folders; a hash
of both is in its metadata, so that a test says when it has to be run again.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import nbformat

ROOT = Path(__file__).resolve().parents[2]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
SHOWN = ("agent.py", "signatures", "modules", "optimizers", "data", "configs")
MAX_BYTES = 1_000_000
_MADE_BY_A_NOTEBOOK = "from_notebook.json"
_STYLE_ID = re.compile(r"\bT_[0-9a-f]{5}")


def read(path: Path) -> Any:
    """The notebook."""
    return nbformat.read(path, as_version=4)


def sources_hash(notebook: Any, root: Path = ROOT) -> str:
    """The hash of a notebook's cells and of the root folders' files."""
    found = hashlib.sha256()
    for cell in notebook.cells:
        found.update(f"{cell.cell_type}\n{cell.source}\n".encode())
    for path in _root_files(root):
        found.update(f"{path.relative_to(root)}\n".encode() + path.read_bytes())
    return found.hexdigest()


def _root_files(root: Path) -> Iterable[Path]:
    for name in SHOWN:
        place = root / name
        files = [place] if place.is_file() else sorted(path for path in place.rglob("*") if path.is_file())
        yield from (path for path in files if "__pycache__" not in path.parts and path.name != _MADE_BY_A_NOTEBOOK)


def write(path: Path, executed: Any, shown_as: Mapping[str, str]) -> None:
    """Store an executed notebook's outputs, without standard error and without the paths of this machine.

    Args:
        path: the notebook's file.
        executed: the executed notebook; it may have further cells at its end.
        shown_as: other texts to replace, such as the address of a stand-in.
    """
    names = {**shown_as, f"{ROOT}/": "", str(ROOT): ".", f"{Path.home()}/": "~/"}
    notebook = read(path)
    number = 0
    for cell, run in zip(notebook.cells, executed.cells, strict=False):
        if cell.cell_type == "code":
            number += 1
            cell.execution_count = number
            shown = [output for output in run.outputs if output.get("name") != "stderr"]
            cell.outputs = [_cleaned(output, number, names) for output in shown]
    notebook.metadata["oneturn"] = {"sources": sources_hash(notebook)}
    nbformat.write(notebook, path)


def _cleaned(output: Any, number: int, names: Mapping[str, str]) -> Any:
    def clean(text: Any) -> Any:
        if not isinstance(text, str):
            return text
        for name, shown in names.items():
            text = text.replace(name, shown)
        return _STYLE_ID.sub("T_cell", text)

    if "text" in output:
        output["text"] = clean(output["text"])
    if "data" in output:
        output["data"] = {kind: clean(content) for kind, content in output["data"].items()}
    if "execution_count" in output:
        output["execution_count"] = number
    output.get("metadata", {}).clear()
    return output
