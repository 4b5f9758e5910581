"""What every retriever is, and the span that each search of it is."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, runtime_checkable

from mlflow.entities import Document, SpanType

from oneturn.tracing import child_span


@runtime_checkable
class Retriever(Protocol):
    """Finds documents; safe to use from several threads at once.

    Documents are MLflow's: an ``id``, the text in ``page_content``, and in ``metadata`` what else is known, such as
    ``title`` and ``doc_uri``, the source that a citation names.
    """

    def search(self, query: str) -> list[Document]:
        """The best documents for ``query``, best first."""


def retrieved(query: str, search: Callable[[], list[Document]]) -> list[Document]:
    """What ``search`` finds, with a ``RETRIEVER`` span in MLflow's schema where a request is traced."""
    with child_span("retrieve", SpanType.RETRIEVER, {"query": query}) as span:
        found = search()
        if span is not None:
            span.set_outputs([document.to_dict() for document in found])
        return found
