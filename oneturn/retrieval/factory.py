"""``build_retriever`` builds the retriever that a configuration names."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any

from mlflow.entities import Document

from oneturn.config import AgentConfig, RetrieverConfig
from oneturn.errors import ConfigError
from oneturn.retrieval.base import Retriever, set_schema
from oneturn.retrieval.bm25 import Bm25Retriever
from oneturn.retrieval.embeddings import build_embedder
from oneturn.retrieval.hybrid import HybridRetriever

Documents = Callable[[], Sequence[Document]]


def build_retriever(config: AgentConfig | RetrieverConfig, documents: Documents | None = None) -> Retriever:
    """Return the retriever that ``config.retriever`` names. Its index is built once, at the first search.

    Call it at import time of your ``agent.py``: it also registers the schema of the documents with MLflow
    (``mlflow.models.set_retriever_schema``), for readers of logged models that don't use the schema of spans.

    Args:
        config: the agent's configuration, or its section ``retriever``.
        documents: returns the documents that a local retriever searches; not used for kind ``databricks``.

    Raises:
        ConfigError: the kind is ``local`` and ``documents`` is missing.
    """
    section = config.retriever if isinstance(config, AgentConfig) else config
    set_schema(section)
    if section.kind == "databricks":
        from oneturn.retrieval.vector_search import VectorSearchRetriever

        return VectorSearchRetriever(section)
    if documents is None:
        raise ConfigError("retriever.kind is local and has no documents: call build_retriever(CONFIG, documents=…).")
    return LazyRetriever(lambda: _build_local(section, documents()))


class LazyRetriever:
    """A retriever that is built at its first search, by one thread; other threads wait for it."""

    def __init__(self, build: Callable[[], Retriever]):
        self._build = build
        self._retriever: Retriever | None = None
        self._lock = threading.Lock()

    def search(self, query: str) -> list[Document]:
        """The best documents for ``query``, best first."""
        return self.retriever().search(query)

    def retriever(self) -> Retriever:
        """Return the retriever; build it on the first call."""
        if self._retriever is None:
            with self._lock:
                if self._retriever is None:
                    self._retriever = self._build()
        return self._retriever

    def __deepcopy__(self, memo: dict[int, Any]) -> LazyRetriever:
        """Return the retriever itself: copies of a program share it."""
        return self


def _build_local(section: RetrieverConfig, documents: Sequence[Document]) -> Retriever:
    if section.embeddings is None:
        return Bm25Retriever(documents, section.k, section.stemmer, section.min_score)
    embed, model = build_embedder(section.embeddings), section.embeddings.identity
    return HybridRetriever(documents, embed, model, section.k, section.stemmer)
