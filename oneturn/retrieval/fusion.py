"""Several rankings made one: reciprocal rank fusion (Cormack, Clarke and Büttcher, SIGIR 2009)."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence

from mlflow.entities import Document

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
