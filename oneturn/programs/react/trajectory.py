"""The record of a run: turns, as the prompt shows them and as demos keep them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pydantic
from mlflow.entities import Document
from typing_extensions import Self

from oneturn.core.steps import source


class ToolCallArgs(pydantic.BaseModel):
    """One tool call as the LM writes it (the same two keys as ``dspy.ToolCalls.ToolCall``)."""

    name: str
    args: dict[str, Any]


class Turn(pydantic.BaseModel):
    """One finished step of a run: what was thought, what was called, what came back."""

    thought: str | None = None
    tool_call: ToolCallArgs | None = None
    observation: str
    _sources: tuple[dict[str, str], ...] = pydantic.PrivateAttr(default=())

    @property
    def sources(self) -> tuple[dict[str, str], ...]:
        """What a retriever found: ``id``, ``title``, ``url`` of each; neither shown to the LM nor kept in demos."""
        return self._sources

    def with_sources(self, documents: Iterable[Document]) -> Self:
        """This turn, which knows what was found."""
        self._sources = tuple(source(document) for document in documents)
        return self
