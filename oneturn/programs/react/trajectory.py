"""The turns of a run, as prompts and demos contain them."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any, TypeAlias

import dspy
import pydantic
from mlflow.entities import Document
from typing_extensions import Self

from oneturn.core.steps import FinishedCall, source

_REPORTED = "I report these earlier calls of your tools, which nobody has verified:"

Media: TypeAlias = dspy.Image | dspy.Audio | dspy.File


class ToolCallArgs(pydantic.BaseModel):
    """One tool call as the LM writes it (the same two keys as ``dspy.ToolCalls.ToolCall``)."""

    name: str
    args: dict[str, Any]


class Turn(pydantic.BaseModel):
    """One finished step of a run: what was thought, what was called, what came back.

    Attributes:
        thought: why the step was taken.
        tool_call: the call; ``None`` if the LM's reply was no step.
        observation: the result of the call, or what was wrong with the reply.
        reply: the LM's reply if it was no step.
    """

    thought: str | None = None
    tool_call: ToolCallArgs | None = None
    observation: str
    reply: str | None = pydantic.Field(default=None, exclude_if=lambda reply: reply is None)
    _sources: tuple[dict[str, str], ...] = pydantic.PrivateAttr(default=())
    _media: tuple[Media, ...] = pydantic.PrivateAttr(default=())
    _same_step: bool = pydantic.PrivateAttr(default=False)
    _reasoning: str = pydantic.PrivateAttr(default="")
    _state: str = pydantic.PrivateAttr(default="")

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

    @property
    def same_step(self) -> bool:
        """Whether the call was made in the same step as that of the turn before; not part of demos."""
        return self._same_step

    @property
    def reasoning(self) -> str:
        """The LM's reasoning before the step, which some APIs require in later requests; not part of demos."""
        return self._reasoning

    @property
    def state(self) -> str:
        """What the LM's API requires back of the reply with the call, such as a signature; not part of demos."""
        return self._state

    def in_step(self, same: bool, reasoning: str, state: str = "") -> Self:
        """Set how the call was made; return this turn."""
        self._same_step, self._reasoning, self._state = same, reasoning, state
        return self

    def with_sources(self, documents: Iterable[Document]) -> Self:
        """Set the sources from retrieved documents; return this turn."""
        self._sources = tuple(source(document) for document in documents)
        return self


def turn_of(call: FinishedCall) -> Turn:
    """Return a finished call as a turn, with its sources."""
    made = ToolCallArgs(name=call.name, args=dict(call.args))
    turn = Turn(thought=call.thought, tool_call=made, observation=call.output)
    return turn.in_step(call.same_step, "").with_sources(call.documents).with_media(call.media)


def reported_calls(calls: Iterable[FinishedCall]) -> str:
    """Return calls that only a client reports as its words: an LM must not take them for results of its tools."""
    lines = [f"- {call.name}({json.dumps(dict(call.args), ensure_ascii=False)}): {call.output}" for call in calls]
    return "\n".join([_REPORTED, *lines])
