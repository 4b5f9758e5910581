"""An index of Databricks Vector Search as a retriever."""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from mlflow.entities import Document

from oneturn.config import RetrieverConfig
from oneturn.core.databricks_auth import as_tool_error, client_factory
from oneturn.errors import ToolError
from oneturn.retrieval.base import retrieved
from oneturn.retrieval.embeddings import build_embedder

if TYPE_CHECKING:
    from databricks.sdk import WorkspaceClient
    from databricks.sdk.service.vectorsearch import QueryVectorIndexResponse

_SCORE = "score"


class VectorSearchRetriever:
    """Searches the index that a configuration names, through ``databricks-sdk``.

    Nothing is asked when it is made. Columns are read by the names that come with the answer. With ``embeddings`` the
    query's vector is sent, for an index whose vectors are its owner's; without, its text.

    Args:
        config: the section ``retriever``, of kind ``databricks``.
    """

    def __init__(self, config: RetrieverConfig):
        self._config = config
        self._clients = client_factory(config.credentials)
        self._embed = build_embedder(config.embeddings, config.credentials) if config.embeddings else None
        self._lock = threading.Lock()
        self._key = config.primary_key

    def search(self, query: str) -> list[Document]:
        """The best documents for ``query``, best first.

        Raises:
            ToolError: the index can't be searched; says why, in a line for the LM.
        """
        return retrieved(query, lambda: self._found(query) if query.strip() else [])

    def _found(self, query: str) -> list[Document]:
        with as_tool_error():
            client = self._clients()
            key = self._primary_key(client)
            columns = self._columns(key)
            answer = client.vector_search_indexes.query_index(
                index_name=str(self._config.index),
                columns=columns,
                num_results=self._config.k,
                query_type=self._config.query_type.upper(),
                filters_json=json.dumps(self._config.filters) if self._config.filters else None,
                **self._query(query),
            )
        return [self._document(row, key) for row in _rows(answer)]

    def _query(self, query: str) -> dict[str, Any]:
        """An index of its owner's vectors is asked by vector, and by text too where words count."""
        if self._embed is None:
            return {"query_text": query}
        text = {} if self._config.query_type == "ann" else {"query_text": query}
        return {"query_vector": [float(each) for each in self._embed([query])[0]], **text}

    def _primary_key(self, client: WorkspaceClient) -> str:
        """The configured column, or the one that the index names; it is asked once."""
        if self._key is None:
            with self._lock:
                found = client.vector_search_indexes.get_index(str(self._config.index)).primary_key
            if found is None:
                raise ToolError(f"the index {self._config.index} names no primary key")
            self._key = found
        return self._key

    def _columns(self, key: str) -> list[str]:
        config = self._config
        named = [key, config.text_column, config.doc_uri, config.title, *(config.columns or ())]
        return list(dict.fromkeys(name for name in named if name))

    def _document(self, row: Mapping[str, Any], key: str) -> Document:
        config, text = self._config, str(self._config.text_column)
        if missing := {text, key} - row.keys():
            raise ToolError(f"the index {config.index} gave no column {', '.join(sorted(missing))}")
        known = {"doc_uri": config.doc_uri, "title": config.title}
        metadata = {name: row[column] for name, column in known.items() if column and row.get(column) is not None}
        others = {*(config.columns or ()), _SCORE} & row.keys()
        metadata |= {name: row[name] for name in sorted(others) if row[name] is not None}
        return Document(page_content=str(row[text] or ""), metadata=metadata, id=str(row[key]))

    def __deepcopy__(self, memo: dict[int, Any]) -> VectorSearchRetriever:
        """The copies that optimizers make of a program share it."""
        return self


def _rows(answer: QueryVectorIndexResponse) -> list[dict[str, Any]]:
    names = [column.name or "" for column in (answer.manifest.columns if answer.manifest else None) or ()]
    found = (answer.result.data_array if answer.result else None) or []
    return [dict(zip(names, row, strict=True)) for row in found]
