"""The ``Retriever`` protocol, the span of a search, and documents from Markdown files."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Protocol, runtime_checkable

import mlflow
from mlflow.entities import Document, SpanType

from oneturn.config import RetrieverConfig
from oneturn.core.tracing import child_span
from oneturn.errors import DataError


@runtime_checkable
class Retriever(Protocol):
    """Searches documents. Implementations must be thread-safe.

    Documents are MLflow's: an ``id``, the text in ``page_content``, and further fields in ``metadata``, such as
    ``title`` and ``doc_uri``, the source that a citation names.
    """

    def search(self, query: str) -> list[Document]:
        """The best documents for ``query``, best first."""


def traced_search(query: str, search: Callable[[], list[Document]]) -> list[Document]:
    """Return the result of ``search``; in a traced request, record a ``RETRIEVER`` span in MLflow's schema."""
    with child_span("retrieve", SpanType.RETRIEVER, {"query": query}) as span:
        documents = search()
        if span is not None:
            span.set_outputs([document.to_dict() for document in documents])
        return documents


def set_schema(config: RetrieverConfig) -> None:
    """Register the schema of this retriever's documents with MLflow.

    MLflow has deprecated ``set_retriever_schema``, because new readers use the default schema of spans. Older readers
    need it.
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


def read_markdown(folder: Path) -> list[Document]:
    """Return a folder's Markdown files as documents, sorted by name. The stem is the id, the ``# heading`` the title.

    Raises:
        DataError: the folder has no Markdown file, or a file has no heading or no text.
    """
    paths = sorted(Path(folder).glob("*.md"))
    if not paths:
        raise DataError(f"{folder} has no .md file; add one file for each passage.")
    return [_document(path) for path in paths]


def _document(path: Path) -> Document:
    heading, _, body = path.read_text(encoding="utf-8").strip().partition("\n")
    if not heading.startswith("# ") or not body.strip():
        raise DataError(f"{path}: line 1: a passage is a '# Title' line, an empty line and text; found {heading!r}.")
    metadata = {"title": heading[2:].strip(), "doc_uri": f"{path.parent.name}/{path.name}"}
    return Document(page_content=" ".join(body.split()), metadata=metadata, id=path.stem)
