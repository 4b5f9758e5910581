"""``VectorSearchRetriever``: an index of Databricks Vector Search as a retriever."""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from mlflow.entities import Document

from oneturn.config import RetrieverConfig
from oneturn.core.databricks_auth import as_tool_error, workspace_client
from oneturn.errors import ToolError
from oneturn.retrieval.base import traced_search
from oneturn.retrieval.embeddings import build_embedder

if TYPE_CHECKING:
    from databricks.sdk import WorkspaceClient
    from databricks.sdk.service.vectorsearch import QueryVectorIndexResponse

_SCORE = "score"


class VectorSearchRetriever:
    """Searches the index that a configuration names, through ``databricks-sdk``.

    The constructor sends no request. Columns are read by the names in the response. With ``embeddings``, the query's
    vector is sent, for an index with self-managed embeddings; without, its text.

    Args:
        config: the section ``retriever``, of kind ``databricks``.
    """

    def __init__(self, config: RetrieverConfig):
        self._config = config
        self._embed = build_embedder(config.embeddings, config.credentials) if config.embeddings else None
        self._lock = threading.Lock()
        self._key = config.primary_key

    def search(self, query: str) -> list[Document]:
        """The best documents for ``query``, best first.

        Raises:
            ToolError: the index can't be searched; the message is one line for the LM.
        """
        return traced_search(query, lambda: self._search(query) if query.strip() else [])

    def _search(self, query: str) -> list[Document]:
        with as_tool_error():
            client = workspace_client(self._config.credentials)
            key = self._primary_key(client)
            columns = self._columns(key)
            response = client.vector_search_indexes.query_index(
                index_name=str(self._config.index),
                columns=columns,
                num_results=self._config.k,
                query_type=self._config.query_type.upper(),
                filters_json=json.dumps(self._config.filters) if self._config.filters else None,
                **self._query(query),
            )
        return [self._document(row, key) for row in _rows(response)]

    def _query(self, query: str) -> dict[str, Any]:
        """Return the query's text, or its vector for self-managed embeddings; for a hybrid query, both."""
        if self._embed is None:
            return {"query_text": query}
        text = {} if self._config.query_type == "ann" else {"query_text": query}
        return {"query_vector": [float(value) for value in self._embed([query])[0]], **text}

    def _primary_key(self, client: WorkspaceClient) -> str:
        """Return the configured primary key, or the index's own, which is requested once."""
        if self._key is None:
            with self._lock:
                key = client.vector_search_indexes.get_index(str(self._config.index)).primary_key
            if key is None:
                raise ToolError(f"the index {self._config.index} has no primary key")
            self._key = key
        return self._key

    def _columns(self, key: str) -> list[str]:
        config = self._config
        names = [key, config.text_column, config.doc_uri, config.title, *(config.columns or ())]
        return list(dict.fromkeys(name for name in names if name))

    def _document(self, row: Mapping[str, Any], key: str) -> Document:
        config, text = self._config, str(self._config.text_column)
        if missing := {text, key} - row.keys():
            raise ToolError(f"the index {config.index} returned no column {', '.join(sorted(missing))}")
        columns = {"doc_uri": config.doc_uri, "title": config.title}
        metadata = {name: row[column] for name, column in columns.items() if column and row.get(column) is not None}
        others = {*(config.columns or ()), _SCORE} & row.keys()
        metadata |= {name: row[name] for name in sorted(others) if row[name] is not None}
        return Document(page_content=str(row[text] or ""), metadata=metadata, id=str(row[key]))

    def __deepcopy__(self, memo: dict[int, Any]) -> VectorSearchRetriever:
        """Return the retriever itself: copies of a program share it."""
        return self


def _rows(response: QueryVectorIndexResponse) -> list[dict[str, Any]]:
    names = [column.name or "" for column in (response.manifest.columns if response.manifest else None) or ()]
    rows = (response.result.data_array if response.result else None) or []
    return [dict(zip(names, row, strict=True)) for row in rows]
