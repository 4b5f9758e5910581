"""What every retriever is, and the span that each search of it is."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Protocol, runtime_checkable

import mlflow
from mlflow.entities import Document, SpanType

from oneturn.config import RetrieverConfig
from oneturn.core.tracing import child_span


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


def declare(config: RetrieverConfig) -> None:
    """Tell MLflow the schema of this retriever's documents.

    The function is deprecated in MLflow, since readers know the spans' default schema; older ones know only this.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        mlflow.models.set_retriever_schema(
            name=config.index or "retriever",
            primary_key="id",
            text_column="page_content",
            doc_uri="doc_uri",
            other_columns=["title", *(config.columns or ())],
        )
