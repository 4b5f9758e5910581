"""BM25 retrieval over documents that fit in memory. The index is read-only once it is built."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import bm25s
from mlflow.entities import Document

from oneturn.errors import DataError
from oneturn.retrieval.base import traced_search


class Bm25Retriever:
    """Finds the documents whose words match a query best (BM25, Robertson et al.; through ``bm25s``).

    Titles are searched too. Every search is a ``RETRIEVER`` span in MLflow's schema.

    Args:
        documents: the documents to search, each with an ``id``; ``metadata`` may have ``title`` and ``doc_uri``.
        k: maximum number of documents that a search returns.

    Raises:
        DataError: there are no documents, or two share an id.
    """

    def __init__(self, documents: Sequence[Document], k: int = 3):
        self.documents = tuple(documents)
        self.k = min(k, len(self.documents))
        check_documents(self.documents)
        self._index = bm25s.BM25()
        self._index.index(_tokens([searchable_text(document) for document in self.documents]), show_progress=False)

    def search(self, query: str) -> list[Document]:
        """The best documents for ``query``, best first; none when no word of it occurs anywhere."""
        return traced_search(query, lambda: self.ranked(query, self.k))

    def ranked(self, query: str, k: int) -> list[Document]:
        """Return the best ``k`` documents without recording a span, for fusion with other rankings."""
        rows, scores = self._index.retrieve(_tokens([query]), k=min(k, len(self.documents)), show_progress=False)
        return [self.documents[i] for i, score in zip(rows[0], scores[0], strict=True) if score > 0]

    def __deepcopy__(self, memo: dict[int, Any]) -> Bm25Retriever:
        """Return the retriever itself: it never changes, so copies of a program share it."""
        return self


def check_documents(documents: Sequence[Document]) -> None:
    """Raise ``DataError`` if there are no documents, or if two share an id."""
    if not documents:
        raise DataError("There are no documents to search.")
    seen: set[str | None] = set()
    for document in documents:
        if document.id in seen:
            raise DataError(f"Two documents have the id {document.id!r}; citations need unique ids.")
        seen.add(document.id)


def searchable_text(document: Document) -> str:
    """Return the text to index: the title and the page."""
    return f"{document.metadata.get('title', '')} {document.page_content}"


def _tokens(texts: list[str]) -> Any:
    return bm25s.tokenize(texts, stopwords="en", show_progress=False)
