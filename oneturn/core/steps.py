"""Steps: what happens in one run of a program, as typed values.

A program that has ``steps(**inputs)`` yields them in the order in which they happen; everything that
looks at a run (``forward``, the Responses adapter, the terminal) is a reader of this one stream.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import dspy
from mlflow.entities import Document

Item = Mapping[str, Any]
"""An item of the Responses protocol."""


@dataclass(frozen=True)
class Thought:
    """Why the LM takes its next step, in its own words."""

    text: str


@dataclass(frozen=True)
class Working:
    """The run goes on, and has had nothing to tell for a while: its LM, or something else, takes its time."""


@dataclass(frozen=True)
class ToolCall:
    """The LM asks for a tool. ``call_id`` pairs it with its ``ToolResult``."""

    call_id: str
    name: str
    args: Mapping[str, Any]


@dataclass(frozen=True)
class ToolProgress:
    """A tool is still at work.

    Attributes:
        message: what it is doing, as it told; empty when it told nothing and this only keeps the stream alive.
        fraction: how much of it is done, 0 to 1, if it told.
        item: what an agent that is the tool has finished, an item of the Responses protocol.
    """

    call_id: str
    name: str
    message: str = ""
    fraction: float | None = None
    item: Item | None = None


@dataclass(frozen=True)
class ToolResult:
    """What a tool gave back.

    Attributes:
        output: the text that the LM reads.
        is_error: whether the tool failed; ``output`` is then one short line.
        documents: what a retriever found, for citations.
        usage: what the tool's own LM calls cost, where the program counts them by tool; it is in the run's ``Usage``.
    """

    call_id: str
    name: str
    output: str
    is_error: bool = False
    documents: tuple[Document, ...] = ()
    usage: Usage | None = None


@dataclass(frozen=True)
class WaitingCall:
    """A call that the LM wants and a person has to approve first."""

    name: str
    args: Mapping[str, Any]
    thought: str = ""

    def to_json(self) -> list[Any]:
        """All of it, as plain values."""
        return [self.thought, self.name, dict(self.args)]


@dataclass(frozen=True)
class FinishedCall(WaitingCall):
    """A call with what came of it: what a run knows, and all that another needs to go on from there."""

    output: str = ""
    documents: tuple[Document, ...] = ()

    def to_json(self) -> list[Any]:
        """All of it, as plain values."""
        return [*super().to_json(), self.output, [source(document) for document in self.documents]]


@dataclass(frozen=True)
class ApprovalWanted:
    """The run ends here until a person has said yes or no to ``waiting``; ``finished`` is what had been done."""

    waiting: WaitingCall
    finished: tuple[FinishedCall, ...]


@dataclass(frozen=True)
class Resumption:
    """Where a run goes on, and what the person said of the call that waited."""

    waiting: WaitingCall
    finished: tuple[FinishedCall, ...]
    approve: bool
    reason: str = ""


@dataclass(frozen=True)
class AnswerDelta:
    """A piece of the answering text, in order. A new ``attempt`` starts the text over (after a repair)."""

    text: str
    attempt: int = 0


@dataclass(frozen=True)
class Answer:
    """The run's final outputs, typed as the signature says, as a ``dspy.Prediction``."""

    prediction: dspy.Prediction


@dataclass(frozen=True)
class Usage:
    """What the run cost: number of LM calls, and token counts by LM as ``dspy.track_usage`` gives them."""

    lm_calls: int
    tokens: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


Step = Thought | Working | ToolCall | ToolProgress | ToolResult | ApprovalWanted | AnswerDelta | Answer | Usage


def source(document: Document) -> dict[str, str]:
    """A document as a client may know it: its id, title and address."""
    metadata = document.metadata or {}
    return {
        "id": str(document.id),
        "title": str(metadata.get("title") or document.id),
        "url": str(metadata.get("doc_uri") or document.id),
    }
