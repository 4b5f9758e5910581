"""Configuration of retrieval."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, field_validator, model_validator
from typing_extensions import Self

from oneturn.config.base import Count, Section
from oneturn.config.lm import model_named
from oneturn.core.databricks_auth import Who


class EmbeddingsConfig(Section):
    """The embedding model."""

    model: str
    """`openai/<name>` for any OpenAI-compatible endpoint, `databricks/<endpoint>`, or `local/0.5B`."""
    api_base: str | None = None
    """The provider's base URL; null for OpenAI's."""
    api_key_env: str | None = None
    """The environment variable that holds the API key."""
    timeout: Annotated[float, Field(gt=0)] = 60.0
    """Timeout of a request in seconds."""

    @field_validator("model")
    @classmethod
    def _is_known(cls, model: str) -> str:
        if not re.fullmatch(r"(openai|databricks|local)/.+", model):
            raise ValueError(f"should be openai/<name>, databricks/<endpoint> or local/<size>, not {model!r}")
        return model

    @property
    def is_local(self) -> bool:
        """Whether this is the embedded model."""
        return self.model.startswith("local/")

    @property
    def identity(self) -> str:
        """A string that identifies the model and its endpoint."""
        return f"{self.api_base or ''} {self.model}".strip()


_DEFAULTS = {"query_type": "ann", "credentials": "agent"}
_DATABRICKS_KEYS = ("index", "text_column", "primary_key", "doc_uri", "title", "columns", "filters")


class RetrieverConfig(Section):
    """Retrieval of passages."""

    k: Count = 3
    """Number of passages per search."""
    kind: Literal["local", "databricks"] = "local"
    """`local` searches the agent's own documents; `databricks` searches a Vector Search index."""
    embeddings: Annotated[EmbeddingsConfig | None, BeforeValidator(model_named)] = None
    """The embedding model: a model string or a section. `local`: adds semantic search; null for keyword search only.
    `databricks`: for an index with self-managed embeddings; null if Databricks computes them."""
    stemmer: str | None = None
    """`local`: the Snowball stemmer of the keyword search, such as `english`, so that "filters" finds "filter"; null to
    match whole words."""
    min_score: Annotated[float, Field(ge=0)] | None = None
    """`local`: keyword search finds no passage with a lower BM25 score, so that the agent can say that there is none;
    null for all that share a word with the query. Choose it on labelled questions: scores depend on the passages."""
    index: str | None = None
    """`databricks`: the index, `<catalog>.<schema>.<name>`."""
    text_column: str | None = None
    """`databricks`: the column that holds the text."""
    primary_key: str | None = None
    """`databricks`: the primary key column; null for the index's own."""
    doc_uri: str | None = None
    """`databricks`: the column with the source URI of a text, used in citations."""
    title: str | None = None
    """`databricks`: the column that holds the title."""
    columns: list[str] | None = None
    """`databricks`: further columns to store in the documents' metadata."""
    filters: dict[str, Any] | None = None
    """`databricks`: row filters in the format of Vector Search, such as `{"language": "en", "year >=": 2024}`."""
    query_type: Literal["ann", "hybrid", "full_text"] = "ann"
    """`databricks`: semantic search, semantic and keyword search, or keyword search."""
    credentials: Who = "agent"
    """`databricks`: the agent's own credentials, or those of the calling `user`."""

    @field_validator("stemmer")
    @classmethod
    def _is_a_stemmer(cls, stemmer: str | None) -> str | None:
        if stemmer is not None:
            import snowballstemmer

            if stemmer not in (names := snowballstemmer.algorithms()):
                raise ValueError(f"should be one of {', '.join(names)}, not {stemmer!r}")
        return stemmer

    @model_validator(mode="after")
    def _fits_the_kind(self) -> Self:
        if self.kind == "local":
            if self.min_score is not None and self.embeddings is not None:
                raise ValueError("min_score is for keyword search; with embeddings, ranks are combined, not scores")
            names = [name for name in _DATABRICKS_KEYS if getattr(self, name) is not None]
            names += [name for name, default in _DEFAULTS.items() if getattr(self, name) != default]
            if names:
                raise ValueError(f"{', '.join(names)} need kind: databricks")
            return self
        for name in ("stemmer", "min_score"):
            if getattr(self, name) is not None:
                raise ValueError(f"{name} needs kind: local; an index of Vector Search has its own keyword search")
        missing = [name for name in ("index", "text_column") if getattr(self, name) is None]
        if missing:
            raise ValueError(f"kind: databricks needs {' and '.join(missing)}")
        if not re.fullmatch(r"[^.`/]+\.[^.`/]+\.[^.`/]+", str(self.index)):
            raise ValueError(f"index should be <catalog>.<schema>.<name>, not {self.index!r}")
        return self
