"""Retrieval over documents that fit in memory: a BM25 index, read-only once it is built."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import bm25s
from mlflow.entities import Document, SpanType

from oneturn.errors import DataError
from oneturn.tracing import child_span


class Bm25Retriever:
    """Finds the documents whose words match a query best (BM25, Robertson et al.; through ``bm25s``).

    Titles count as text. Every search is a ``RETRIEVER`` span in MLflow's schema.

    Args:
        documents: what to search; each with an ``id``, and optionally ``title`` and ``doc_uri`` in ``metadata``.
        k: how many documents a search gives at most.

    Raises:
        DataError: there are no documents, or two share an id.
    """

    def __init__(self, documents: Sequence[Document], k: int = 3):
        self.documents = tuple(documents)
        self.k = min(k, len(self.documents))
        _check(self.documents)
        self._index = bm25s.BM25()
        self._index.index(_tokens([_searchable(document) for document in self.documents]), show_progress=False)

    def search(self, query: str) -> list[Document]:
        """The best documents for ``query``, best first; none when no word of it occurs anywhere."""
        with child_span("retrieve", SpanType.RETRIEVER, {"query": query}) as span:
            found, scores = self._index.retrieve(_tokens([query]), k=self.k, show_progress=False)
            best = [self.documents[i] for i, score in zip(found[0], scores[0], strict=True) if score > 0]
            if span is not None:
                span.set_outputs([document.to_dict() for document in best])
            return best

    def __deepcopy__(self, memo: dict[int, Any]) -> Bm25Retriever:
        """An index never changes, so the copies that optimizers make of a program share it."""
        return self


def read_markdown(folder: Path) -> list[Document]:
    """The Markdown files of a folder as documents: the stem is the id, the ``# heading`` the title.

    Raises:
        DataError: the folder has no Markdown file, or a file has no heading or no text.
    """
    paths = sorted(Path(folder).glob("*.md"))
    if not paths:
        raise DataError(f"{folder} holds no .md file; put one passage into each file there.")
    return [_document(path) for path in paths]


def _document(path: Path) -> Document:
    heading, _, body = path.read_text(encoding="utf-8").strip().partition("\n")
    if not heading.startswith("# ") or not body.strip():
        raise DataError(f"{path}: line 1: a passage is a '# Title' line, an empty line and text; found {heading!r}.")
    metadata = {"title": heading[2:].strip(), "doc_uri": f"{path.parent.name}/{path.name}"}
    return Document(page_content=" ".join(body.split()), metadata=metadata, id=path.stem)


def _check(documents: Sequence[Document]) -> None:
    if not documents:
        raise DataError("There are no documents to search.")
    seen: set[str | None] = set()
    for document in documents:
        if document.id in seen:
            raise DataError(f"Two documents have the id {document.id!r}; ids are what citations name.")
        seen.add(document.id)


def _searchable(document: Document) -> str:
    return f"{document.metadata.get('title', '')} {document.page_content}"


def _tokens(texts: list[str]) -> Any:
    return bm25s.tokenize(texts, stopwords="en", show_progress=False)
