"""A ``ResponsesAgent`` around ``dspy.ReAct`` as MLflow's documentation writes one: a models-from-code file."""

import os
from collections.abc import Generator

import dspy
import mlflow
from mlflow.pyfunc import ResponsesAgent
from mlflow.types.responses import ResponsesAgentRequest, ResponsesAgentResponse, ResponsesAgentStreamEvent


def look_up(word: str) -> str:
    """Look a word up."""
    return f"the meaning of {word}"


class DocumentedAgent(ResponsesAgent):
    """Answers the last user message with ``dspy.ReAct``."""

    def __init__(self) -> None:
        self.lm = dspy.LM("openai/gpt-4o-mini", api_base=os.environ["STUB_LM"], api_key="none", cache=False)
        self.program = dspy.ReAct("question -> answer", tools=[look_up], max_iters=4)

    def predict(self, request: ResponsesAgentRequest) -> ResponsesAgentResponse:  # type: ignore[override]
        """Return the complete response."""
        items = [event.model_dump()["item"] for event in self.predict_stream(request)]
        return ResponsesAgentResponse(output=items)

    def predict_stream(  # type: ignore[override]
        self, request: ResponsesAgentRequest
    ) -> Generator[ResponsesAgentStreamEvent, None, None]:
        """Yield the message."""
        question = str(request.input[-1].model_dump()["content"])
        with dspy.context(lm=self.lm):
            text = self.program(question=question).answer
        item = self.create_text_output_item(text=text, id="msg_1")
        yield ResponsesAgentStreamEvent.model_validate({"type": "response.output_item.done", "item": item})


mlflow.dspy.autolog()
mlflow.models.set_model(DocumentedAgent())
