"""Retrieval by words and by meaning, over documents that fit in memory."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from mlflow.entities import Document

from oneturn.retrieval.base import retrieved
from oneturn.retrieval.bm25 import Bm25Retriever, searchable
from oneturn.retrieval.embeddings import Embed, vectors_of

_DAMPING = 60
"""The paper's constant: how little the first places count more than those after them."""


def fused(rankings: Iterable[Sequence[Document]], k: int) -> list[Document]:
    """The best ``k`` of all: a document's weight is the sum of 1 / (60 + its place) over the rankings that have it."""
    weights: dict[str | None, float] = defaultdict(float)
    documents: dict[str | None, Document] = {}
    for ranking in rankings:
        for place, document in enumerate(ranking, start=1):
            weights[document.id] += 1 / (_DAMPING + place)
            documents.setdefault(document.id, document)
    best = sorted(weights, key=lambda name: -weights[name])[:k]  # equal weights: in the order of the rankings
    return [documents[name] for name in best]


_DEPTH = 50
"""How many documents of each ranking are looked at."""


class HybridRetriever:
    """Finds the documents that match a query best by their words (BM25) and by their embeddings, fused by rank.

    Args:
        documents: what to search; see :class:`Bm25Retriever`.
        embed: gives texts their vectors.
        model: what tells this embedding model from another: the documents' vectors are kept by it.
        k: how many documents a search gives at most.

    Raises:
        DataError: there are no documents, two share an id, or they can't be embedded.
    """

    def __init__(self, documents: Sequence[Document], embed: Embed, model: str, k: int = 3):
        self._words = Bm25Retriever(documents, k)
        self.documents, self.k = self._words.documents, self._words.k
        self._embed = embed
        self._vectors = vectors_of([searchable(document) for document in self.documents], model, embed)

    def search(self, query: str) -> list[Document]:
        """The best documents for ``query``, best first; none for an empty one."""
        return retrieved(query, lambda: self._found(query))

    def _found(self, query: str) -> list[Document]:
        if not query.strip():
            return []
        return fused([self._words.ranked(query, _DEPTH), self._near(query)], self.k)

    def _near(self, query: str) -> list[Document]:
        alike = self._vectors @ self._embed([query])[0]
        return [self.documents[place] for place in np.argsort(-alike, kind="stable")[:_DEPTH]]

    def __deepcopy__(self, memo: dict[int, Any]) -> HybridRetriever:
        """An index never changes, so the copies that optimizers make of a program share it."""
        return self
