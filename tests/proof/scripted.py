"""Programs that ask an LM and use tools, with scripts in which anything may happen, at any point."""

from __future__ import annotations

import json
import math
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import dspy
from hypothesis import strategies as st
from mlflow.entities import Document

import oneturn
from oneturn.testing import ScriptedLM, call, finish, sections
from oneturn.tools.approvals import Approvals
from tests.proof.failures import errors

KEY = "0123456789abcdef" * 2
ANSWER = "It is 12 “🤝”."


# ---- the LM


class Cut(str):
    """A reply that breaks off after half of its text.

    Attributes:
        error: what is raised there.
    """

    error: Callable[[], BaseException]

    def __new__(cls, text: str, error: Callable[[], BaseException]) -> Cut:
        made = super().__new__(cls, text)
        made.error = error
        return made

    def __repr__(self) -> str:
        return f"Cut({str(self)!r}, {self.error()!r})"


class FailingLM(ScriptedLM):
    """A scripted LM whose replies may be :class:`Cut`."""

    def __init__(self, *replies: Any, **options: Any):
        super().__init__(*replies, **options)
        script = self.engine
        whole, pieces = script.complete, getattr(script, "stream", None)
        cut = threading.local()

        def complete(request: Any) -> Any:
            response = whole(request)
            reply = replies[len(script.requests) - 1]
            cut.reply = reply if isinstance(reply, Cut) else None
            if cut.reply is not None and not getattr(cut, "streaming", False):
                raise cut.reply.error()
            return response

        def stream(request: Any) -> Iterator[Any]:
            cut.streaming = True
            events = list(pieces(request))
            cut.streaming = False
            half = events[: len(events) // 2] if cut.reply is not None else events
            yield from half
            if cut.reply is not None:
                raise cut.reply.error()

        script.complete = complete
        if pieces is not None:
            script.stream = stream


@dataclass(frozen=True)
class Failing:
    """A reply that isn't given."""

    error: Callable[[], BaseException]

    def __call__(self, asked: Any) -> Any:
        raise self.error()

    def __repr__(self) -> str:
        return f"Failing({self.error()!r})"


# ---- the tools


@dataclass(frozen=True)
class Act:
    """What a tool does when it is called.

    Attributes:
        value: what it gives.
        error: what it raises instead.
        tells: whether it tells of its progress before.
        waits: whether it runs until it is stopped.
    """

    value: Any = None
    error: Callable[[], BaseException] | None = None
    tells: bool = False
    waits: bool = False

    def __call__(self) -> Any:
        if self.tells:
            oneturn.progress("half\ud800 way", math.nan)
        while self.waits and not oneturn.cancelled():
            threading.Event().wait(0.001)
        if self.error is not None:
            raise self.error()
        return self.value


class Tools:
    """What the programs use."""

    def __init__(self, acts: tuple[Act, ...]):
        self.acts = acts

    def act(self, number: int) -> Any:
        """Do what stands under a number."""
        return self.acts[number]()

    def guarded(self, number: int) -> Any:
        """Do what a person has to approve."""
        return self.acts[number]()


red = Document("The red book.", {"title": "Red \ud800", "doc_uri": "shelf/red"}, id="red")
given_values = st.sampled_from(
    [
        "fine",
        "",
        None,
        12,
        math.nan,
        b"\xff",
        object(),
        {"a": {1, 2}},
        "half \ud800",
        [red, red],
        [],
        [1, red],
        "x" * 99,
    ]
)
acts = st.builds(Act, given_values, st.none() | st.none() | errors, st.booleans())
ACTS = 3
all_acts = st.tuples(*[acts] * ACTS)


# ---- replies

numbers = st.integers(0, ACTS) | st.sampled_from(["1", "one", None, math.nan, "\ud800"])
used = st.builds(
    call, st.sampled_from(["act", "act", "guarded", "nothing", "\ud800"]), st.just("I look"), number=numbers
)
ended = st.builds(
    finish,
    st.sampled_from(["", "Now I know"]),
    answer=st.sampled_from([ANSWER, ANSWER, "", " ", 'quoted "\n\\', "half \ud800", 12, None]),
    count=st.sampled_from([12, 12, 12, "twelve", math.nan]),
    citations=st.lists(st.sampled_from(["red", "blue"]), max_size=2),
)
together = st.builds(
    lambda one, others: {**one, "parallel_calls": [other["tool_call"] for other in others]},
    used,
    st.lists(used, max_size=2),
)
steps = st.one_of(used, used, ended, together)
going_on = st.fixed_dictionaries(
    {
        "reasoning": st.just("so"),
        "next_thought": st.just("I look"),
        "next_tool_name": st.sampled_from(["act", "act", "finish", "nothing"]),
        "next_tool_args": st.builds(lambda number: {"number": number}, numbers) | st.just({}),
        "draft": st.just("a draft"),
        "answer": st.sampled_from([ANSWER, ANSWER, "", "half \ud800", "[[ ## ", "[[ ## x ## ]] y"]),
    }
)
lacking = st.fixed_dictionaries(
    {},
    optional={
        "reasoning": st.just(""),
        "next_thought": st.just(""),
        "next_tool_name": st.just("act"),
        "next_tool_args": st.sampled_from(["{", {"x": 1}]),
        "draft": st.just(""),
        "answer": st.sampled_from(["", ANSWER]),
    },
)
fields = st.one_of(going_on, going_on, going_on, lacking)
malformed = st.sampled_from(
    ["", "{", "no", "[[ ## answer ## ]]", '{"tool_call": 3}', "null", '{"answer": "half \\ud8', "🤝" * 9]
)


def replies(good: st.SearchStrategy[Any], kind: Callable[[Any], str]) -> st.SearchStrategy[Any]:
    """What an LM may say: mostly ``good`` things, at times nothing that can be read, or a failure at some point."""
    valid = good.map(kind)
    failing = st.builds(Failing, errors) | st.builds(Cut, valid, errors)
    return st.lists(st.one_of(valid, valid, valid, valid, valid, malformed, failing), max_size=5)


def as_json(reply: Any) -> str:
    """As LMs write JSON: characters as they are, and what JSON hasn't, too."""
    return json.dumps(reply, ensure_ascii=False).replace("\ud800", "\\ud800")


def as_sections(reply: Any) -> str:
    """As DSPy's ``ChatAdapter`` has it."""
    return sections(**reply)


step_replies = replies(steps, as_json)
section_replies = replies(fields, as_sections) | replies(fields, as_json)
LAST_STEP = finish(answer=ANSWER, count=12, citations=[])
LAST_FIELDS = sections(
    reasoning="so", next_thought="done", next_tool_name="finish", next_tool_args={}, draft="a draft", answer=ANSWER
)


# ---- programs


class Ask(dspy.Signature):
    """Answer."""

    question: str = dspy.InputField()
    answer: str = dspy.OutputField()
    count: int = dspy.OutputField()
    citations: list[oneturn.Citation] = dspy.OutputField()


class DraftFirst(dspy.Module):
    """A module of a user's own: two predictors, and a tool between them."""

    signature = dspy.ensure_signature("question -> answer")

    def __init__(self, tools: Tools):
        super().__init__()
        self.draft = dspy.Predict("question -> draft")
        self.tool = dspy.Tool(tools.act)
        self.final = dspy.ChainOfThought("question, draft -> answer")

    def forward(self, question: str) -> dspy.Prediction:
        draft = self.draft(question=question).draft
        self.tool(number=0)
        return self.final(question=question, draft=draft)


@dataclass(frozen=True)
class Case:
    """A program with all that will happen to it; it can be built again and again."""

    program: str
    acts: tuple[Act, ...]
    replies: tuple[Any, ...]
    streams: bool = True
    json: bool = False
    deadline: float | None = None

    def lm(self) -> FailingLM:
        """An LM that is at the beginning of its script. What it says at last, any program can end with."""
        last = LAST_STEP if self.program in OURS else LAST_FIELDS
        return FailingLM(*self.replies, *[last] * 12, streams=self.streams, response_schema=self.json, piece=3)

    def adapter(self, lm: FailingLM | None = None) -> oneturn.ResponsesAdapter:
        """The program, served, with a script of its own."""
        made = PROGRAMS[self.program](Tools(self.acts))
        made.set_lm(lm or self.lm())
        return oneturn.ResponsesAdapter(made, deadline=self.deadline, approvals=Approvals(KEY))


def _react(signature: Any = Ask, **options: Any) -> Callable[[Tools], Any]:
    def build(tools: Tools) -> Any:
        guarded = oneturn.tool(tools.guarded, approval=True)
        return oneturn.ReAct(signature, tools=[tools.act, guarded], max_iters=4, **options)

    return build


OURS: dict[str, Callable[[Tools], Any]] = {
    "oneturn.ReAct": _react(),
    "oneturn.ReAct, short": _react("question -> answer", thoughts=False),
    "oneturn.ReAct, parallel": _react(parallel_calls=True),
    "oneturn.ReAct, structured": _react("question -> count: int"),
}
THEIRS: dict[str, Callable[[Tools], Any]] = {
    "dspy.Predict": lambda tools: dspy.Predict("question -> answer"),
    "dspy.ChainOfThought": lambda tools: dspy.ChainOfThought("question -> answer"),
    "dspy.ReAct": lambda tools: dspy.ReAct("question -> answer", tools=[tools.act], max_iters=3),
    "own module": DraftFirst,
}
PROGRAMS = {**OURS, **THEIRS}

cases = st.one_of(
    st.builds(Case, st.sampled_from([*OURS]), all_acts, step_replies.map(tuple), st.booleans(), st.just(True)),
    st.builds(Case, st.sampled_from([*THEIRS]), all_acts, section_replies.map(tuple), st.booleans(), st.booleans()),
)
