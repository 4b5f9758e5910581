"""BM25 retrieval over documents that fit in memory. The index is read-only once it is built."""

from __future__ import annotations

from collections.abc import Callable, Sequence
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
        stemmer: the name of a Snowball stemmer, such as ``english``, that maps "filters" and "filtering" to "filter";
            ``None`` to match whole words.
        min_score: documents with a lower score aren't found; ``None`` for all that share a word with the query. Scores
            depend on the documents: choose the value on labelled questions.

    Raises:
        DataError: there are no documents, or two share an id.
        KeyError: there is no such stemmer.
    """

    def __init__(
        self, documents: Sequence[Document], k: int = 3, stemmer: str | None = None, min_score: float | None = None
    ):
        self.documents = tuple(documents)
        self.k = min(k, len(self.documents))
        self.min_score = min_score
        self._stemmer = stemmer
        check_documents(self.documents)
        self._index = bm25s.BM25()
        self._index.index(self._tokens([searchable_text(document) for document in self.documents]), show_progress=False)

    def search(self, query: str) -> list[Document]:
        """The best documents for ``query``, best first; none when no word of it occurs, or none has ``min_score``."""
        return traced_search(query, lambda: self.ranked(query, self.k))

    def ranked(self, query: str, k: int) -> list[Document]:
        """Return the best ``k`` documents without recording a span, for fusion with other rankings."""
        rows, scores = self._index.retrieve(self._tokens([query]), k=min(k, len(self.documents)), show_progress=False)
        least = self.min_score or 0.0
        return [self.documents[i] for i, score in zip(rows[0], scores[0], strict=True) if score > 0 and score >= least]

    def _tokens(self, texts: list[str]) -> Any:
        return bm25s.tokenize(texts, stopwords="en", stemmer=_stem_words(self._stemmer), show_progress=False)

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


def _stem_words(stemmer: str | None) -> Callable[[list[str]], list[str]] | None:
    """Return a function that stems words. It is for one thread: a Snowball stemmer keeps the word it works on."""
    if stemmer is None:
        return None
    import snowballstemmer

    stem: Callable[[list[str]], list[str]] = snowballstemmer.stemmer(stemmer).stemWords
    return stem
