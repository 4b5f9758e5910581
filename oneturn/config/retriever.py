"""How passages are found, as a configuration declares it."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, field_validator, model_validator
from typing_extensions import Self

from oneturn.config.base import Count, Section
from oneturn.config.lm import model_named
from oneturn.core.databricks_auth import Who


class EmbeddingsConfig(Section):
    """Which model turns texts into vectors."""

    model: str
    """`openai/<name>` for whatever speaks OpenAI's protocol, `databricks/<endpoint>`, or `local/0.5B`."""
    api_base: str | None = None
    """Its address, if it isn't OpenAI's own."""
    api_key_env: str | None = None
    """The name of the environment variable that holds the key."""
    timeout: Annotated[float, Field(gt=0)] = 60.0
    """Seconds to wait for an answer."""

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
        """What tells this model from another."""
        return f"{self.api_base or ''} {self.model}".strip()


_USUAL = {"query_type": "ann", "credentials": "agent"}
_OF_DATABRICKS = ("index", "text_column", "primary_key", "doc_uri", "title", "columns", "filters")


class RetrieverConfig(Section):
    """How passages are found."""

    k: Count = 3
    """Passages that a search gives."""
    kind: Literal["local", "databricks"] = "local"
    """`local` searches documents that the agent has; `databricks` an index of Vector Search."""
    embeddings: Annotated[EmbeddingsConfig | None, BeforeValidator(model_named)] = None
    """The model that embeds: a model string, or a section. `local`: find by meaning, too; null for words alone.
    `databricks`: for an index whose vectors are your own; null where Databricks computes them."""
    index: str | None = None
    """`databricks`: the index, `<catalog>.<schema>.<name>`."""
    text_column: str | None = None
    """`databricks`: the column that holds the text."""
    primary_key: str | None = None
    """`databricks`: the column that tells rows apart; null for the one that the index names."""
    doc_uri: str | None = None
    """`databricks`: the column that says where a text comes from: what citations name."""
    title: str | None = None
    """`databricks`: the column that holds the title."""
    columns: list[str] | None = None
    """`databricks`: further columns, kept in the documents' metadata."""
    filters: dict[str, Any] | None = None
    """`databricks`: which rows, as Vector Search reads it, such as `{"language": "en", "year >=": 2024}`."""
    query_type: Literal["ann", "hybrid", "full_text"] = "ann"
    """`databricks`: by meaning, by meaning and words, or by words."""
    credentials: Who = "agent"
    """`databricks`: whose: the agent's own, or of the `user` who asks."""

    @model_validator(mode="after")
    def _fits_the_kind(self) -> Self:
        if self.kind == "local":
            given = [name for name in _OF_DATABRICKS if getattr(self, name) is not None]
            given += [name for name, usual in _USUAL.items() if getattr(self, name) != usual]
            if given:
                raise ValueError(f"{', '.join(given)} need kind: databricks")
            return self
        missing = [name for name in ("index", "text_column") if getattr(self, name) is None]
        if missing:
            raise ValueError(f"kind: databricks needs {' and '.join(missing)}")
        if not re.fullmatch(r"[^.`/]+\.[^.`/]+\.[^.`/]+", str(self.index)):
            raise ValueError(f"index should be <catalog>.<schema>.<name>, not {self.index!r}")
        return self
