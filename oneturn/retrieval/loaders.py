"""Load documents from a folder of Markdown files."""

from __future__ import annotations

from pathlib import Path

from mlflow.entities import Document

from oneturn.errors import DataError


def read_markdown(folder: Path) -> list[Document]:
    """Return a folder's Markdown files as documents, sorted by name. The stem is the id, the ``# heading`` the title.

    Raises:
        DataError: the folder has no Markdown file, or a file has no heading or no text.
    """
    paths = sorted(Path(folder).glob("*.md"))
    if not paths:
        raise DataError(f"{folder} has no .md file; add one file for each passage.")
    return [_document(path) for path in paths]


def _document(path: Path) -> Document:
    heading, _, body = path.read_text(encoding="utf-8").strip().partition("\n")
    if not heading.startswith("# ") or not body.strip():
        raise DataError(f"{path}: line 1: a passage is a '# Title' line, an empty line and text; found {heading!r}.")
    metadata = {"title": heading[2:].strip(), "doc_uri": f"{path.parent.name}/{path.name}"}
    return Document(page_content=" ".join(body.split()), metadata=metadata, id=path.stem)
