"""Programs written by hand: any sequence of steps, with a failure at any point."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import dspy
from hypothesis import strategies as st
from mlflow.entities import Document

from oneturn.core.steps import (
    Answer,
    AnswerDelta,
    ApprovalWanted,
    FinishedCall,
    Step,
    Thought,
    ToolCall,
    ToolProgress,
    ToolResult,
    WaitingCall,
)
from oneturn.core.usage import Usage
from tests.proof.failures import errors

HALF_PAIR = "half a pair: \ud800"


class Ask(dspy.Signature):
    """Answer."""

    question: str = dspy.InputField()
    answer: str = dspy.OutputField()
    citations: list[str] = dspy.OutputField()
    score: float = dspy.OutputField()


class Judge(dspy.Signature):
    """Judge: no output is the message."""

    question: str = dspy.InputField()
    citations: list[str] = dspy.OutputField()
    score: float = dspy.OutputField()


@dataclass(frozen=True)
class Raise:
    """At this point the program fails."""

    error: Callable[[], BaseException]


RunEvent = Step | Raise


class Written:
    """A program that does what is written.

    Attributes:
        closed: how many of its runs have come to their end.
    """

    citing_fields = ("citations",)

    def __init__(self, happenings: Sequence[RunEvent], signature: type[dspy.Signature] = Ask):
        self.happenings = happenings
        self.signature = signature
        self.answer_field = "answer" if "answer" in signature.output_fields else None
        self.closed = 0

    def steps(self, **inputs: Any) -> Iterator[Step]:
        try:
            for happening in self.happenings:
                if isinstance(happening, Raise):
                    raise happening.error()
                yield happening
        finally:
            self.closed += 1


texts = st.text(max_size=8) | st.sampled_from([HALF_PAIR, "“🤝”", " ", "\n\n", "\x00"])
numbers = st.floats(width=16) | st.sampled_from([math.nan, math.inf, 0.5])
values = st.recursive(
    st.none() | st.booleans() | st.integers() | numbers | texts | st.sampled_from([object(), b"\xff", {1, 2}, 1j]),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(texts, inner, max_size=2),
    max_leaves=4,
)
arguments = st.dictionaries(texts, values, max_size=2)
calls = st.sampled_from(["call_1", "call_2", "call_3"])
names = st.sampled_from(["look_up", "find"])
documents = st.lists(
    st.builds(
        Document,
        page_content=texts,
        metadata=st.dictionaries(st.sampled_from(["title", "doc_uri"]), st.none() | texts, max_size=2),
        id=st.sampled_from(["red", "blue", HALF_PAIR]),
    ),
    max_size=2,
).map(tuple)
usages = st.builds(
    Usage.from_dspy,
    st.fixed_dictionaries(
        {},
        optional={
            **{name: st.none() | st.integers(0, 9) for name in ("prompt_tokens", "completion_tokens", "other")},
            "prompt_tokens_details": st.none() | st.fixed_dictionaries({"cached_tokens": st.integers(0, 9)}),
        },
    ),
)
waiting = st.builds(WaitingCall, names, arguments, texts)
finished = st.lists(st.builds(FinishedCall, names, arguments, texts, texts), max_size=1).map(tuple)
answers = st.builds(
    lambda answer, citations, score: Answer(dspy.Prediction(answer=answer, citations=citations, score=score)),
    st.none() | texts,
    st.none() | st.lists(st.sampled_from(["red", "blue", "green"]), max_size=2),
    values,
)
deltas = st.builds(AnswerDelta, texts, st.integers(0, 2))
tool_calls = st.builds(ToolCall, calls, names, arguments)
tool_results = st.builds(ToolResult, calls, names, texts, st.booleans(), documents)
steps = st.one_of(
    st.builds(Thought, texts),
    tool_calls,
    st.builds(ToolProgress, calls, names, texts, st.none() | numbers),
    tool_results,
    deltas,
    answers,
    usages,
    st.builds(
        ApprovalWanted,
        waiting,
        finished,
    ),
)
any_run = st.lists(st.one_of(steps, steps, steps, st.builds(Raise, errors)), max_size=10)
signatures = st.sampled_from([Ask, Judge])


@st.composite
def orderly_runs(draw: st.DrawFn) -> list[RunEvent]:
    """Runs as programs should have them: each call with its result, the answer, the cost; or a failure on the way."""
    run: list[RunEvent] = []
    for number in range(draw(st.integers(0, 3))):
        run += draw(st.lists(st.one_of(st.builds(Thought, texts), deltas), max_size=2))
        name, call_id = draw(names), f"call_{number}"
        run.append(ToolCall(call_id, name, draw(arguments)))
        run += [ToolProgress(call_id, name, draw(texts)) for _ in range(draw(st.integers(0, 1)))]
        run.append(ToolResult(call_id, name, draw(texts), documents=draw(documents)))
    run += draw(st.lists(deltas, max_size=4))
    run += [draw(answers), draw(usages)]
    if draw(st.booleans()):
        run.insert(draw(st.integers(0, len(run))), Raise(draw(errors)))
    return run
