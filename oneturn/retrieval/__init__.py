"""Retrievers: BM25, hybrid (BM25 and embeddings) and Databricks Vector Search.

Each is a ``Retriever``: ``search(query)`` returns documents, best first. ``build_retriever`` builds the one that a
configuration names.
"""

from oneturn.retrieval.base import Retriever, read_markdown
from oneturn.retrieval.bm25 import Bm25Retriever
from oneturn.retrieval.factory import build_retriever
from oneturn.retrieval.hybrid import HybridRetriever

__all__ = ["Bm25Retriever", "HybridRetriever", "Retriever", "build_retriever", "read_markdown"]
