"""Steps: the typed events of one run of a program.

``program.steps(**inputs)`` yields them in order. All consumers of a run (``forward``, the Responses adapter, the
terminal) read this one stream.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import dspy
from mlflow.entities import Document

from oneturn.core.usage import Usage

Item = Mapping[str, Any]
"""An item of the Responses protocol."""


@dataclass(frozen=True)
class Thought:
    """The LM's reasoning before its next step."""

    text: str


@dataclass(frozen=True)
class Working:
    """Keep-alive: the run is still working, but has produced no step for a while."""


@dataclass(frozen=True)
class ToolCall:
    """A tool call of the LM. ``call_id`` matches it to its ``ToolResult``."""

    call_id: str
    name: str
    args: Mapping[str, Any]


@dataclass(frozen=True)
class ClientCall(ToolCall):
    """A call of a tool that the client offers. The run ends with it: the client makes the call, and sends the output
    in a request that resumes the run."""


@dataclass(frozen=True)
class ToolProgress:
    """Progress of a running tool.

    Attributes:
        message: the tool's progress message; empty for a keep-alive.
        fraction: the completed fraction, 0 to 1, if the tool reports it.
        item: a finished item of the Responses protocol, if the tool is an agent.
    """

    call_id: str
    name: str
    message: str = ""
    fraction: float | None = None
    item: Item | None = None


@dataclass(frozen=True)
class ToolResult:
    """The result of a tool call.

    Attributes:
        output: the text passed to the LM and to the client.
        is_error: whether the tool failed; ``output`` is then one short line.
        documents: retrieved documents that can be cited.
        usage: usage of the tool's own LM calls, if the program counts it per tool; included in the run's ``Usage``.
        media: the result's images, audio and files, which only the LM gets.
    """

    call_id: str
    name: str
    output: str
    is_error: bool = False
    documents: tuple[Document, ...] = ()
    usage: Usage | None = None
    media: tuple[dspy.Image | dspy.Audio | dspy.File, ...] = ()


@dataclass(frozen=True)
class WaitingCall:
    """A tool call that waits for a person's approval."""

    name: str
    args: Mapping[str, Any]
    thought: str = ""


@dataclass(frozen=True)
class FinishedCall(WaitingCall):
    """A completed tool call with its result, which a later run needs to resume from it.

    Attributes:
        output: the result.
        documents: retrieved documents that can be cited.
        media: the result's images, audio and files. A later run has only those of the client's own calls.
        by_client: whether the client made the call.
        same_step: whether the LM made it in the same step as the call before, as far as a later run knows.
    """

    output: str = ""
    documents: tuple[Document, ...] = ()
    media: tuple[dspy.Image | dspy.Audio | dspy.File, ...] = ()
    by_client: bool = False
    same_step: bool = False


@dataclass(frozen=True)
class ApprovalWanted:
    """The run ends here because ``waiting`` needs a person's approval; ``finished`` are the calls before it."""

    waiting: WaitingCall
    finished: tuple[FinishedCall, ...]


@dataclass(frozen=True)
class Resumption:
    """The calls that a run resumes from, and the person's decision on the waiting call.

    Attributes:
        waiting: the call to run, or not; ``None`` if the run waited for calls of the client, which are finished.
        finished: the calls made before.
        approve: whether the person approves.
        reason: the person's reason.
        sources_dropped: whether the client left out documents of the finished calls: the answer can't cite them.
        unverified: calls of the agent's own tools that the client reports, but nothing proves.
    """

    waiting: WaitingCall | None
    finished: tuple[FinishedCall, ...]
    approve: bool = False
    reason: str = ""
    sources_dropped: bool = False
    unverified: tuple[FinishedCall, ...] = ()


@dataclass(frozen=True)
class AnswerDelta:
    """A chunk of the answer text, in order. A new ``attempt`` restarts the text (after a repair).

    Attributes:
        checked: whether all that could make the program replace the text is checked; a server that streams checked
            text only holds the chunk back otherwise.
    """

    text: str
    attempt: int = 0
    checked: bool = True


@dataclass(frozen=True)
class Answer:
    """The run's final outputs as a ``dspy.Prediction``, with the types of the signature."""

    prediction: dspy.Prediction


Step = Thought | Working | ToolCall | ToolProgress | ToolResult | ApprovalWanted | AnswerDelta | Answer | Usage
"""A step of a run. The last one is the run's ``Usage``."""


def source(document: Document) -> dict[str, str]:
    """Return a document's public fields: id, title and URL."""
    metadata = document.metadata or {}
    return {
        "id": str(document.id),
        "title": str(metadata.get("title") or document.id),
        "url": safe_url(str(metadata.get("doc_uri") or document.id)),
    }


def safe_url(url: str) -> str:
    """Return ``url`` if it is http(s) or relative, otherwise an empty text: clients open the links of sources.

    Browsers ignore control characters and spaces at the start of a URL, and tabs and newlines inside.
    """
    scheme, colon, _ = re.sub(r"[\x00-\x20]", "", url).partition(":")
    is_relative = not colon or re.fullmatch(r"[A-Za-z][A-Za-z0-9+.-]*", scheme) is None
    return url if is_relative or scheme.lower() in ("http", "https") else ""
