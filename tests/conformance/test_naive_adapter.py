"""The checker detects text lost by an adapter written like common examples.

The adapter wraps ``dspy.ReAct`` with ``dspy.streamify`` and keeps its listeners, or the text streamed so far, on
``self``. It runs on the same server as our agent.
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
    """A ``dspy.ReAct`` wrapped as in common examples: one streaming program with listeners for all requests."""

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
        yield from self.stream_events(request, self.stream)

    def stream_events(self, request: ResponsesAgentRequest, stream: Any) -> Iterator[ResponsesAgentStreamEvent]:
        item_id = f"msg_{uuid.uuid4().hex}"
        for chunk in stream(question=request.input[-1].content):
            if isinstance(chunk, StreamResponse):
                yield ResponsesAgentStreamEvent(**self.create_text_delta(chunk.chunk, item_id))
            elif isinstance(chunk, dspy.Prediction):
                item = self.create_text_output_item(chunk.answer, item_id)
                yield ResponsesAgentStreamEvent(type="response.output_item.done", item=item)


class StateOnSelf(SharedListeners):
    """Each request has its own listeners; the answer is collected on ``self``."""

    def stream_events(self, request: ResponsesAgentRequest, stream: Any) -> Iterator[ResponsesAgentStreamEvent]:
        self.text, self.item_id = "", f"msg_{uuid.uuid4().hex}"
        for chunk in self.streaming()(question=request.input[-1].content):
            if isinstance(chunk, StreamResponse):
                self.text += chunk.chunk
                yield ResponsesAgentStreamEvent(**self.create_text_delta(chunk.chunk, self.item_id))
        item = self.create_text_output_item(self.text, self.item_id)
        yield ResponsesAgentStreamEvent(type="response.output_item.done", item=item)


class NothingShared(SharedListeners):
    """The same without shared state: each request has its own listeners and answer."""

    def stream_events(self, request: ResponsesAgentRequest, stream: Any) -> Iterator[ResponsesAgentStreamEvent]:
        yield from super().stream_events(request, self.streaming())


def marker_in(request: ScriptedRequest) -> str:
    markers = re.findall(r"marker-\w+|\bnone\b", request.messages[-1]["content"])
    return str(markers[0]) if markers else "nothing"


def react_reply(request: ScriptedRequest) -> str:
    """Reply to ``dspy.ReAct`` in the format of DSPy's ``ChatAdapter``."""
    marker = marker_in(request)
    if "next_tool_name" not in request.messages[0]["content"]:
        answer = f"It is {marker}. {LONG}"
        return f"[[ ## reasoning ## ]]\nClear.\n\n[[ ## answer ## ]]\n{answer}\n\n[[ ## completed ## ]]"
    used = f"meaning of {marker}" in request.text
    tool, args = ("finish", "{}") if used else ("look_up", f'{{"word": "{marker}"}}')
    fields = {"next_thought": "Next.", "next_tool_name": tool, "next_tool_args": args}
    return "\n\n".join(f"[[ ## {name} ## ]]\n{value}" for name, value in fields.items()) + "\n\n[[ ## completed ## ]]"


def react_lm(replies: int = 300, reply: Any = react_reply) -> ScriptedLM:
    return ScriptedLM(*[reply] * replies, response_schema=False)


class LockStepLM(ScriptedLM):
    """An LM that streams all its answers in parallel, one piece of each at a time."""

    def __init__(self, streams: int, piece: int = 4):
        super().__init__(*[react_reply] * 99, response_schema=False, piece=piece)
        engine = self.engine
        barrier = threading.Barrier(streams, timeout=60)
        pieces = engine.stream

        def stream(request: Any) -> Iterator[Any]:
            for event in pieces(request):
                if "next_tool_name" not in str(request.system):
                    barrier.wait()
                yield event

        engine.stream = stream


def test_shared_listeners_stream_only_the_first_request():
    with oneturn.running_server(SharedListeners(react_lm())) as url:
        report = check_endpoint(url, question=QUESTION, concurrency=STREAMS, echo=True, timeout=60)
    assert not report.passed()
    assert report.broken_rules() == {"text-lost", "marker-lost"}
    first, again, *_, barrier = report.probes
    assert first.count(Severity.error) == 0, "a listener works for one stream"
    assert {"text-lost", "marker-lost"} <= {violation.check for violation in again.findings}
    assert barrier.facts == {"streams": STREAMS, "lost": STREAMS, "mixed": 0, "refused": 0}


def at_once(agent: ResponsesAgent) -> Probe:
    with oneturn.running_server(agent) as url, Endpoint(url, timeout=60) as endpoint:
        return probe_concurrency(endpoint, Settings(QUESTION, echo=True), STREAMS)


def errors(probe: Probe) -> set[str]:
    return {violation.check for violation in probe.findings if violation.severity is Severity.error}


def test_reused_listeners_lose_concurrent_answers():
    probe = at_once(SharedListeners(LockStepLM(STREAMS), allow_reuse=True))
    assert errors(probe) == {"marker-lost"}
    assert probe.facts == {"streams": STREAMS, "lost": STREAMS, "mixed": 0, "refused": 0}


def test_answers_collected_on_self_are_mixed():
    probe = at_once(StateOnSelf(LockStepLM(STREAMS, piece=50)))  # a piece must hold a complete marker
    assert {"marker-mixed", "ids-shared", "text-adds-up"} <= errors(probe)
    assert probe.facts["mixed"] >= 1


def test_adapter_without_shared_state_passes():
    probe = at_once(NothingShared(LockStepLM(STREAMS)))
    assert errors(probe) == set()
    assert probe.facts == {"streams": STREAMS, "lost": 0, "mixed": 0, "refused": 0}
