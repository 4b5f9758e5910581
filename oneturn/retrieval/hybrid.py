"""Retrieval by words and by meaning, over documents that fit in memory."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from mlflow.entities import Document

from oneturn.retrieval.bm25 import Bm25Retriever, searchable
from oneturn.retrieval.embedder import Embed
from oneturn.retrieval.fusion import fused
from oneturn.retrieval.interface import retrieved
from oneturn.retrieval.vectors import vectors_of

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
