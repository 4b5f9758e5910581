"""The turns of a run, as prompts and demos contain them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, TypeAlias

import dspy
import pydantic
from mlflow.entities import Document
from typing_extensions import Self

from oneturn.core.steps import FinishedCall, source

Media: TypeAlias = dspy.Image | dspy.Audio | dspy.File


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
    _media: tuple[Media, ...] = pydantic.PrivateAttr(default=())

    @property
    def sources(self) -> tuple[dict[str, str], ...]:
        """The ``id``, ``title`` and ``url`` of each retrieved document; not part of prompts or demos."""
        return self._sources

    @property
    def media(self) -> tuple[Media, ...]:
        """The images, audio and files of the result; part of this run's prompts, not of demos."""
        return self._media

    def with_media(self, media: Iterable[Media]) -> Self:
        """Set the images, audio and files; return this turn."""
        self._media = tuple(media)
        return self

    def with_sources(self, documents: Iterable[Document]) -> Self:
        """Set the sources from retrieved documents; return this turn."""
        self._sources = tuple(source(document) for document in documents)
        return self


def turn_of(call: FinishedCall) -> Turn:
    """Return a finished call as a turn, with its sources."""
    made = ToolCallArgs(name=call.name, args=dict(call.args))
    turn = Turn(thought=call.thought, tool_call=made, observation=call.output)
    return turn.with_sources(call.documents).with_media(call.media)
