"""How passages are found: by words (BM25), by meaning too, or in an index of Databricks Vector Search.

All of them are a ``Retriever``: ``search(query)`` gives documents, best first. ``build_retriever`` makes the one that a
configuration names.
"""

from oneturn.retrieval.base import Retriever
from oneturn.retrieval.bm25 import Bm25Retriever
from oneturn.retrieval.factory import build_retriever
from oneturn.retrieval.hybrid import HybridRetriever
from oneturn.retrieval.loaders import read_markdown

__all__ = ["Bm25Retriever", "HybridRetriever", "Retriever", "build_retriever", "read_markdown"]
