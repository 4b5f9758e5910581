"""``build_retriever``: the retriever that a configuration names, built when it is first asked."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any

from mlflow.entities import Document

from oneturn.config import AgentConfig, RetrieverConfig
from oneturn.errors import ConfigError
from oneturn.retrieval.base import Retriever, declare
from oneturn.retrieval.bm25 import Bm25Retriever
from oneturn.retrieval.embeddings import build_embedder
from oneturn.retrieval.hybrid import HybridRetriever

Documents = Callable[[], Sequence[Document]]


def build_retriever(config: AgentConfig | RetrieverConfig, documents: Documents | None = None) -> Retriever:
    """The retriever that ``config.retriever`` names; it is built at its first search, once, and then only read.

    Call it where your ``agent.py`` is imported: it also tells MLflow the schema of what is found
    (``mlflow.models.set_retriever_schema``), for readers of logged models that don't know the spans' own.

    Args:
        config: the agent's configuration, or its section.
        documents: gives what the local kinds search; the databricks kind has its own.

    Raises:
        ConfigError: a local kind, and no documents.
    """
    section = config.retriever if isinstance(config, AgentConfig) else config
    declare(section)
    if section.kind == "databricks":
        from oneturn.retrieval.vector_search import VectorSearchRetriever

        return VectorSearchRetriever(section)
    if documents is None:
        raise ConfigError("retriever.kind is local: say which documents, build_retriever(CONFIG, documents=…).")
    return BuiltLater(lambda: _local(section, documents()))


class BuiltLater:
    """A retriever that is built when it is first asked, by one thread, while the others wait for it."""

    def __init__(self, build: Callable[[], Retriever]):
        self._build = build
        self._built: Retriever | None = None
        self._lock = threading.Lock()

    def search(self, query: str) -> list[Document]:
        """The best documents for ``query``, best first."""
        return self.built().search(query)

    def built(self) -> Retriever:
        """The retriever itself."""
        if self._built is None:
            with self._lock:
                if self._built is None:
                    self._built = self._build()
        return self._built

    def __deepcopy__(self, memo: dict[int, Any]) -> BuiltLater:
        """The copies that optimizers make of a program share it."""
        return self


def _local(section: RetrieverConfig, documents: Sequence[Document]) -> Retriever:
    if section.embeddings is None:
        return Bm25Retriever(documents, section.k)
    return HybridRetriever(documents, build_embedder(section.embeddings), section.embeddings.identity, section.k)
