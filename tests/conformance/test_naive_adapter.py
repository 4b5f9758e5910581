"""The proof: the checker finds what is lost by an adapter as common examples write it.

``dspy.ReAct`` is wrapped with ``dspy.streamify``; its listeners, or what it has streamed so far, live on ``self``. It
is served by the same server as ours.
"""

from __future__ import annotations

import re
import threading
import uuid
from collections.abc import Iterator
from typing import Any

import dspy
from dspy.streaming import StreamListener, StreamResponse, streamify
from mlflow.pyfunc import ResponsesAgent
from mlflow.types.responses import ResponsesAgentRequest, ResponsesAgentResponse, ResponsesAgentStreamEvent

import oneturn
from oneturn.conformance import Severity, check_endpoint
from oneturn.conformance.endpoint import Endpoint
from oneturn.conformance.probes import Settings, probe_concurrency
from oneturn.conformance.report import Probe
from oneturn.testing import ScriptedLM, ScriptedRequest

STREAMS = 6  # dspy.streamify(async_streaming=False) deadlocks above 8
QUESTION = "Say it again: {marker}"
LONG = "This answer is long enough that two of them overlap while they are streamed. " * 3


def look_up(word: str) -> str:
    """Look a word up."""
    return f"meaning of {word}"


class SharedListeners(ResponsesAgent):
    """A ``dspy.ReAct``, wrapped in the way of common examples: one streaming program, with its listeners, for all."""

    def __init__(self, lm: dspy.LM, allow_reuse: bool = False):
        self.program = dspy.ReAct("question -> answer", tools=[look_up])
        self.program.set_lm(lm)
        self.allow_reuse = allow_reuse
        self.stream = self.streaming()

    def streaming(self) -> Any:
        listener = StreamListener("answer", predict=self.program.extract.predict, allow_reuse=self.allow_reuse)
        return streamify(self.program, stream_listeners=[listener], async_streaming=False)

    def predict(self, request: ResponsesAgentRequest) -> ResponsesAgentResponse:
        events = self.predict_stream(request)
        return ResponsesAgentResponse(output=[event.item for event in events if event.type.endswith("item.done")])

    def predict_stream(self, request: ResponsesAgentRequest) -> Iterator[ResponsesAgentStreamEvent]:
        yield from self.answered(request, self.stream)

    def answered(self, request: ResponsesAgentRequest, stream: Any) -> Iterator[ResponsesAgentStreamEvent]:
        item_id = f"msg_{uuid.uuid4().hex}"
        for chunk in stream(question=request.input[-1].content):
            if isinstance(chunk, StreamResponse):
                yield ResponsesAgentStreamEvent(**self.create_text_delta(chunk.chunk, item_id))
            elif isinstance(chunk, dspy.Prediction):
                item = self.create_text_output_item(chunk.answer, item_id)
                yield ResponsesAgentStreamEvent(type="response.output_item.done", item=item)


class StateOnSelf(SharedListeners):
    """Each request has listeners of its own, and the answer is gathered on ``self``."""

    def answered(self, request: ResponsesAgentRequest, stream: Any) -> Iterator[ResponsesAgentStreamEvent]:
        self.text, self.item_id = "", f"msg_{uuid.uuid4().hex}"
        for chunk in self.streaming()(question=request.input[-1].content):
            if isinstance(chunk, StreamResponse):
                self.text += chunk.chunk
                yield ResponsesAgentStreamEvent(**self.create_text_delta(chunk.chunk, self.item_id))
        item = self.create_text_output_item(self.text, self.item_id)
        yield ResponsesAgentStreamEvent(type="response.output_item.done", item=item)


class NothingShared(SharedListeners):
    """The same, without the fault: all that a request needs is its own."""

    def answered(self, request: ResponsesAgentRequest, stream: Any) -> Iterator[ResponsesAgentStreamEvent]:
        yield from super().answered(request, self.streaming())


def marker_in(asked: ScriptedRequest) -> str:
    found = re.findall(r"marker-\w+|\bnone\b", asked.messages[-1]["content"])
    return str(found[0]) if found else "nothing"


def react_reply(asked: ScriptedRequest) -> str:
    """What an LM says to ``dspy.ReAct``, in the format of DSPy's ``ChatAdapter``."""
    marker = marker_in(asked)
    if "next_tool_name" not in asked.messages[0]["content"]:
        answer = f"It is {marker}. {LONG}"
        return f"[[ ## reasoning ## ]]\nClear.\n\n[[ ## answer ## ]]\n{answer}\n\n[[ ## completed ## ]]"
    used = f"meaning of {marker}" in asked.text
    tool, args = ("finish", "{}") if used else ("look_up", f'{{"word": "{marker}"}}')
    fields = {"next_thought": "Next.", "next_tool_name": tool, "next_tool_args": args}
    return "\n\n".join(f"[[ ## {name} ## ]]\n{value}" for name, value in fields.items()) + "\n\n[[ ## completed ## ]]"


def react_lm(replies: int = 300, reply: Any = react_reply) -> ScriptedLM:
    return ScriptedLM(*[reply] * replies, response_schema=False)


class LockStepLM(ScriptedLM):
    """An LM that gives all its streamed answers at the same time, one piece each in turn."""

    def __init__(self, streams: int, piece: int = 4):
        super().__init__(*[react_reply] * 99, response_schema=False, piece=piece)
        engine = self._engine_spec
        together = threading.Barrier(streams, timeout=60)
        pieces = engine.stream

        def stream(request: Any) -> Iterator[Any]:
            for event in pieces(request):
                if "next_tool_name" not in str(request.system):
                    together.wait()
                yield event

        engine.stream = stream


def test_listeners_are_good_for_one_request():
    with oneturn.running_server(SharedListeners(react_lm())) as url:
        report = check_endpoint(url, question=QUESTION, concurrency=STREAMS, echo=True, timeout=60)
    assert not report.passed()
    assert report.broken_rules() == {"text-lost", "marker-lost"}
    first, again, *_, together = report.probes
    assert first.count(Severity.error) == 0, "the one stream that a listener is good for"
    assert {"text-lost", "marker-lost"} <= {violation.rule for violation in again.violations}
    assert together.facts == {"streams": STREAMS, "lost": STREAMS, "mixed": 0, "refused": 0}


def at_once(agent: ResponsesAgent) -> Probe:
    with oneturn.running_server(agent) as url, Endpoint(url, timeout=60) as endpoint:
        return probe_concurrency(endpoint, Settings(QUESTION, echo=True), STREAMS)


def errors(probe: Probe) -> set[str]:
    return {violation.rule for violation in probe.violations if violation.severity is Severity.error}


def test_listeners_that_may_be_reused_lose_answers_at_the_same_time():
    found = at_once(SharedListeners(LockStepLM(STREAMS), allow_reuse=True))
    assert errors(found) == {"marker-lost"}
    assert found.facts == {"streams": STREAMS, "lost": STREAMS, "mixed": 0, "refused": 0}


def test_answers_gathered_on_self_are_mixed():
    found = at_once(StateOnSelf(LockStepLM(STREAMS, piece=50)))  # a marker must fit into a piece to be seen elsewhere
    assert {"marker-mixed", "ids-shared", "text-adds-up"} <= errors(found)
    assert found.facts["mixed"] >= 1


def test_where_nothing_is_shared_nothing_is_lost():
    found = at_once(NothingShared(LockStepLM(STREAMS)))
    assert errors(found) == set()
    assert found.facts == {"streams": STREAMS, "lost": 0, "mixed": 0, "refused": 0}
