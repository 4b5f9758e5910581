"""Retrieval over documents that fit in memory: a BM25 index, read-only once it is built."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import bm25s
from mlflow.entities import Document

from oneturn.errors import DataError
from oneturn.retrieval.base import retrieved


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
        check_documents(self.documents)
        self._index = bm25s.BM25()
        self._index.index(_tokens([searchable(document) for document in self.documents]), show_progress=False)

    def search(self, query: str) -> list[Document]:
        """The best documents for ``query``, best first; none when no word of it occurs anywhere."""
        return retrieved(query, lambda: self.ranked(query, self.k))

    def ranked(self, query: str, k: int) -> list[Document]:
        """The best ``k``, without a span of its own: for a ranking that others are put together with."""
        found, scores = self._index.retrieve(_tokens([query]), k=min(k, len(self.documents)), show_progress=False)
        return [self.documents[i] for i, score in zip(found[0], scores[0], strict=True) if score > 0]

    def __deepcopy__(self, memo: dict[int, Any]) -> Bm25Retriever:
        """An index never changes, so the copies that optimizers make of a program share it."""
        return self


def check_documents(documents: Sequence[Document]) -> None:
    """Raise ``DataError`` unless there are documents, each with an id of its own."""
    if not documents:
        raise DataError("There are no documents to search.")
    seen: set[str | None] = set()
    for document in documents:
        if document.id in seen:
            raise DataError(f"Two documents have the id {document.id!r}; ids are what citations name.")
        seen.add(document.id)


def searchable(document: Document) -> str:
    """The text that is searched: title and page."""
    return f"{document.metadata.get('title', '')} {document.page_content}"


def _tokens(texts: list[str]) -> Any:
    return bm25s.tokenize(texts, stopwords="en", show_progress=False)
