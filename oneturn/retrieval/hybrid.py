"""Hybrid retrieval, BM25 and embeddings fused by rank, over documents that fit in memory."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from mlflow.entities import Document

from oneturn.retrieval.base import traced_search
from oneturn.retrieval.bm25 import Bm25Retriever, searchable_text
from oneturn.retrieval.embeddings import Embed, cached_vectors

_RANK_CONSTANT = 60
"""The constant of reciprocal rank fusion, as in the paper. A larger value gives the top ranks less weight."""


def fuse(rankings: Iterable[Sequence[Document]], k: int) -> list[Document]:
    """Return the best ``k`` documents; the weight is the sum of 1 / (60 + rank) over the rankings with the document."""
    weights: dict[str | None, float] = defaultdict(float)
    documents: dict[str | None, Document] = {}
    for ranking in rankings:
        for rank, document in enumerate(ranking, start=1):
            weights[document.id] += 1 / (_RANK_CONSTANT + rank)
            documents.setdefault(document.id, document)
    best = sorted(weights, key=lambda id: -weights[id])[:k]  # a stable sort: ties keep the order of the rankings
    return [documents[id] for id in best]


_DEPTH = 50
"""How many documents of each ranking are fused."""


class HybridRetriever:
    """Finds the documents that match a query best by their words (BM25) and by their embeddings, fused by rank.

    Args:
        documents: the documents to search; see :class:`Bm25Retriever`.
        embed: computes the vectors of texts.
        model: identifies the embedding model in the key of the cached document vectors.
        k: maximum number of documents that a search returns.
        stemmer: the stemmer of the keyword search; see :class:`Bm25Retriever`.

    Raises:
        DataError: there are no documents, two share an id, or they can't be embedded.
    """

    def __init__(self, documents: Sequence[Document], embed: Embed, model: str, k: int = 3, stemmer: str | None = None):
        self._bm25 = Bm25Retriever(documents, k, stemmer)
        self.documents, self.k = self._bm25.documents, self._bm25.k
        self._embed = embed
        self._vectors = cached_vectors([searchable_text(document) for document in self.documents], model, embed)

    def search(self, query: str) -> list[Document]:
        """The best documents for ``query``, best first; none for an empty one."""
        return traced_search(query, lambda: self._search(query))

    def _search(self, query: str) -> list[Document]:
        if not query.strip():
            return []
        return fuse([self._bm25.ranked(query, max(_DEPTH, self.k)), self._nearest(query)], self.k)

    def _nearest(self, query: str) -> list[Document]:
        similarities = self._vectors @ self._embed([query])[0]
        return [self.documents[row] for row in np.argsort(-similarities, kind="stable")[: max(_DEPTH, self.k)]]

    def __deepcopy__(self, memo: dict[int, Any]) -> HybridRetriever:
        """Return the retriever itself: it never changes, so copies of a program share it."""
        return self
