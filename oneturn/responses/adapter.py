"""``ResponsesAdapter``: a oneturn program as an MLflow ``ResponsesAgent``."""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator, Mapping
from typing import Any

import dspy
from dspy.adapters.utils import serialize_for_json
from mlflow.entities import Document
from mlflow.pyfunc import ResponsesAgent
from mlflow.types.responses import ResponsesAgentRequest, ResponsesAgentResponse, ResponsesAgentStreamEvent

from oneturn.errors import EndpointError
from oneturn.programs import Program, as_program
from oneturn.responses.citations import url_citations
from oneturn.responses.events import EventWriter
from oneturn.responses.failures import told
from oneturn.responses.requests import program_inputs
from oneturn.steps import Answer, AnswerDelta, Thought, ToolCall, ToolResult, Usage


class ResponsesAdapter(ResponsesAgent):
    """Serves a program over the OpenAI Responses protocol; one instance serves any number of requests at once.

    The last user message is the question, ``custom_inputs`` fill the other inputs. The answering field is
    the message, streamed as it is written; citations become its annotations; every output but the answer comes
    back in ``custom_outputs``.

    Args:
        program: what to serve, such as a :class:`oneturn.ReAct` or any ``dspy.Module``, or a function that builds it,
            which is then called once, when MLflow loads the model or the first request comes. The program's predictors
            must have their LM (``program.set_lm``), or ``dspy.configure`` must have given one.
        signature: what a ``dspy.Module`` takes and gives, where it doesn't say so; see :class:`oneturn.ModuleProgram`.
        answer_field: the output of a ``dspy.Module`` that is the message, where it isn't the first ``str`` one.
    """

    def __init__(
        self,
        program: Program | dspy.Module | Callable[[], Program | dspy.Module],
        signature: str | type[dspy.Signature] | None = None,
        answer_field: str | None = None,
    ):
        self._given = program
        self._signature = signature
        self._answer_field = answer_field
        self._built: Program | None = None
        self._building = threading.Lock()

    @property
    def program(self) -> Program:
        """What is served; built now if it hasn't been yet."""
        with self._building:
            if self._built is None:
                self._built = as_program(self._given, self._signature, self._answer_field)
            return self._built

    def load_context(self, context: Any) -> None:
        """Build the program when MLflow loads the model: what is wrong with it shows before the first request."""
        _ = self.program

    def predict(  # type: ignore[override]  # as ResponsesAgent's own
        self, request: ResponsesAgentRequest
    ) -> ResponsesAgentResponse:
        """Answer a request: ``predict_stream``, drained.

        Raises:
            EndpointError: the run failed; with the code and message that a stream would have ended with.
        """
        for event in self._events(request):
            if event.type == "error":
                fields = event.model_dump()
                raise EndpointError(fields["message"], code=fields["code"])
            if event.type == "response.completed":
                return ResponsesAgentResponse(**event.model_dump()["response"])
        raise EndpointError("The stream ended without a terminal event; this is a bug in oneturn.")

    def predict_stream(  # type: ignore[override]  # as ResponsesAgent's own
        self, request: ResponsesAgentRequest
    ) -> Generator[ResponsesAgentStreamEvent, None, None]:
        """Answer a request as a stream of events that ends with exactly one terminal event."""
        yield from self._events(request)

    def _events(self, request: ResponsesAgentRequest) -> Generator[ResponsesAgentStreamEvent, None, None]:
        writer = EventWriter()
        yield from writer.start()
        try:
            yield from self._run_events(writer, request)
        except Exception as error:  # told to the client as the stream's end, kept whole in the trace
            yield from writer.failed(*told(error))

    def _run_events(
        self, writer: EventWriter, request: ResponsesAgentRequest
    ) -> Generator[ResponsesAgentStreamEvent, None, None]:
        seen: dict[str, Document] = {}
        prediction = dspy.Prediction()
        program = self.program
        for step in program.steps(**program_inputs(program.signature, request)):
            if isinstance(step, Thought):
                yield from writer.thought(step.text)
            elif isinstance(step, ToolCall):
                yield from writer.tool_call(step)
            elif isinstance(step, ToolResult):
                seen.update({str(document.id): document for document in step.documents})
                yield from writer.tool_result(step)
            elif isinstance(step, AnswerDelta):
                yield from writer.text(step.text, step.attempt)
            elif isinstance(step, Answer):
                prediction = step.prediction
                yield from writer.finish_message(_annotations(program, prediction, seen))
            elif isinstance(step, Usage):
                yield from writer.completed(_usage(step), _custom_outputs(program, prediction))


def _annotations(program: Program, prediction: dspy.Prediction, seen: Mapping[str, Document]) -> list[dict[str, Any]]:
    cited = [id for field in program.citing_fields for id in prediction.get(field) or []]
    text = str(prediction.get(program.answer_field) or "") if program.answer_field else ""
    return url_citations(cited, seen, text)


def _custom_outputs(program: Program, prediction: dspy.Prediction) -> dict[str, Any]:
    names = [name for name in program.signature.output_fields if name != program.answer_field]
    return {name: serialize_for_json(prediction.get(name)) for name in names}


def _usage(step: Usage) -> dict[str, Any]:
    prompt = sum(int(tokens.get("prompt_tokens") or 0) for tokens in step.tokens.values())
    completion = sum(int(tokens.get("completion_tokens") or 0) for tokens in step.tokens.values())
    return {
        "input_tokens": prompt,
        "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
        "output_tokens": completion,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": prompt + completion,
    }
