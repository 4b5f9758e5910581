"""Who is measured: each is an agent that takes a question, makes one tool call and asks the LM three times.

oneturn's needs two LM calls for one tool, so it makes two tool calls: the number of LM calls is the same for all.
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
    """The stub as DSPy's LM."""
    return dspy.LM("openai/gpt-4o-mini", api_base=f"{url}/v1", api_key="none", cache=False, num_retries=0)


def plain() -> dspy.ReAct:
    """``dspy.ReAct`` as it comes."""
    return dspy.ReAct("question -> answer", tools=[look_up], max_iters=4)


def ours(lm: dspy.LM) -> oneturn.ResponsesAdapter:
    """oneturn's adapter around oneturn's ReAct."""
    program = oneturn.ReAct("question -> answer", tools=[look_up], max_iters=4)
    program.set_lm(lm)
    return oneturn.ResponsesAdapter(program)


def wrapped(lm: dspy.LM) -> oneturn.ResponsesAdapter:
    """oneturn's adapter around ``dspy.ReAct``."""
    program = plain()
    program.set_lm(lm)
    return oneturn.ResponsesAdapter(program)


class NaiveAgent(ResponsesAgent):
    """``dspy.ReAct`` behind ``dspy.streamify``, as examples write it; a listener a request, so that it works at all."""

    def __init__(self, lm: dspy.LM):
        self.program = plain()
        self.program.set_lm(lm)

    def predict(  # type: ignore[override]  # as ResponsesAgent's own
        self, request: ResponsesAgentRequest
    ) -> ResponsesAgentResponse:
        """Answer at once."""
        items = [event.model_dump()["item"] for event in self.predict_stream(request) if event.type == _DONE]
        return ResponsesAgentResponse(output=items)

    def predict_stream(  # type: ignore[override]  # as ResponsesAgent's own
        self, request: ResponsesAgentRequest
    ) -> Generator[ResponsesAgentStreamEvent, None, None]:
        """Answer as a stream: text deltas, then the message."""
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
