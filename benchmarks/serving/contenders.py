"""The agents to measure. Each answers a question with three LM calls.

``dspy.ReAct`` makes one tool call. ``oneturn.ReAct`` makes two, because it needs one LM call fewer per question.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

import dspy
from mlflow.pyfunc import ResponsesAgent
from mlflow.types.responses import ResponsesAgentRequest, ResponsesAgentResponse, ResponsesAgentStreamEvent

import oneturn

_DONE = "response.output_item.done"


def look_up(word: str) -> str:
    """Look a word up."""
    return f"the meaning of {word}"


def stub_lm(url: str) -> dspy.LM:
    """Build a ``dspy.LM`` for the stub LM."""
    return dspy.LM("openai/gpt-4o-mini", api_base=f"{url}/v1", api_key="none", cache=False, num_retries=0)


def plain() -> dspy.ReAct:
    """Build an unmodified ``dspy.ReAct``."""
    return dspy.ReAct("question -> answer", tools=[look_up], max_iters=4)


def ours(lm: dspy.LM) -> oneturn.ResponsesAdapter:
    """Build ``oneturn.ResponsesAdapter`` around ``oneturn.ReAct``."""
    program = oneturn.ReAct("question -> answer", tools=[look_up], max_iters=4)
    program.set_lm(lm)
    return oneturn.ResponsesAdapter(program)


def wrapped(lm: dspy.LM) -> oneturn.ResponsesAdapter:
    """Build ``oneturn.ResponsesAdapter`` around ``dspy.ReAct``."""
    program = plain()
    program.set_lm(lm)
    return oneturn.ResponsesAdapter(program)


class NaiveAgent(ResponsesAgent):
    """``dspy.ReAct`` with ``dspy.streamify``, as in common examples, but with a new listener per request.

    With a shared listener it couldn't answer concurrent requests.
    """

    def __init__(self, lm: dspy.LM):
        self.program = plain()
        self.program.set_lm(lm)

    def predict(  # type: ignore[override]  # the signature of ResponsesAgent
        self, request: ResponsesAgentRequest
    ) -> ResponsesAgentResponse:
        """Return the complete response."""
        items = [event.model_dump()["item"] for event in self.predict_stream(request) if event.type == _DONE]
        return ResponsesAgentResponse(output=items)

    def predict_stream(  # type: ignore[override]  # the signature of ResponsesAgent
        self, request: ResponsesAgentRequest
    ) -> Generator[ResponsesAgentStreamEvent, None, None]:
        """Yield text deltas, then the message."""
        listener = dspy.streaming.StreamListener(signature_field_name="answer")
        stream = dspy.streamify(self.program, stream_listeners=[listener], async_streaming=False)
        text = ""
        for chunk in stream(question=str(request.input[-1].model_dump()["content"])):
            if isinstance(chunk, dspy.streaming.StreamResponse):
                text += chunk.chunk
                delta = self.create_text_delta(delta=chunk.chunk, item_id="msg_1")
                yield ResponsesAgentStreamEvent(**delta)
            elif isinstance(chunk, dspy.Prediction):
                text = chunk.answer
        item: dict[str, Any] = self.create_text_output_item(text=text, id="msg_1")
        yield ResponsesAgentStreamEvent.model_validate({"type": _DONE, "item": item})


AGENTS = {"ours": ours, "wrapped": wrapped, "naive": NaiveAgent}
