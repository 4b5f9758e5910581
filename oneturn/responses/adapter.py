"""``ResponsesAdapter`` serves a program as an MLflow ``ResponsesAgent``."""

from __future__ import annotations

import asyncio
import contextlib
import json
import threading
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from typing import Any, cast

import dspy
from mlflow.entities import Document
from mlflow.types.responses import ResponsesAgentRequest, ResponsesAgentResponse, ResponsesAgentStreamEvent
from mlflow.types.responses_helpers import IncompleteDetails
from pydantic import ValidationError

from oneturn.core.run_context import RunContext, caller_token, current_run
from oneturn.core.serialization import plain, replace_surrogates, replace_surrogates_deep
from oneturn.core.steps import (
    Answer,
    AnswerDelta,
    ApprovalWanted,
    Step,
    Thought,
    ToolCall,
    ToolProgress,
    ToolResult,
    Working,
)
from oneturn.core.usage import Usage
from oneturn.errors import AgentError, ProgramError, RequestError, RunCancelled
from oneturn.programs import Program, as_program
from oneturn.responses.approval_items import ApprovalAnswer, Item, read_answer, read_waiting
from oneturn.responses.errors import to_client_error
from oneturn.responses.event_writer import EventWriter, url_citations
from oneturn.responses.request import describe_validation_error, program_inputs
from oneturn.responses.tracing import SelfTraced, in_span
from oneturn.tools.approvals import Approvals

# By default DSPy stores the last 10,000 prompts of each LM and module, and the last 10,000 runs for an optimizer.
_NO_HISTORY = {"disable_history": True, "trace": None}


class ResponsesAdapter(SelfTraced):
    """Serves a program over the OpenAI Responses protocol; one instance serves concurrent requests.

    The last user message is the question, ``custom_inputs`` fill the other inputs. The answer field becomes
    the message and is streamed. Citations become its annotations. All other outputs are returned in
    ``custom_outputs``.

    Args:
        program: the program, such as a :class:`oneturn.ReAct` or any ``dspy.Module``, or a function that builds it.
            The function is called once, when MLflow loads the model or on the first request. The program's predictors
            need an LM: from ``program.set_lm`` or ``dspy.configure``.
        signature: the signature of a ``dspy.Module`` that doesn't declare one; see :class:`oneturn.ModuleProgram`.
        answer_field: the output field of a ``dspy.Module`` that becomes the message; the first ``str`` by default.
        deadline: seconds that a request may take. Then it ends as ``incomplete``, with the items finished so far.
            ``None`` for no limit.
        approvals: signs and verifies approvals, for a program with tools that need a person's approval.
    """

    def __init__(
        self,
        program: Program | dspy.Module | Callable[[], Program | dspy.Module],
        signature: str | type[dspy.Signature] | None = None,
        answer_field: str | None = None,
        *,
        deadline: float | None = None,
        approvals: Approvals | None = None,
    ):
        self._source = program
        self._signature = signature
        self._answer_field = answer_field
        self._deadline = deadline
        self._approvals = approvals
        self._built: Program | None = None
        self._building = threading.Lock()

    @property
    def program(self) -> Program:
        """The served program, built on first access."""
        with self._building:
            if self._built is None:
                self._built = as_program(self._source, self._signature, self._answer_field)
            return self._built

    def load_context(self, context: Any) -> None:
        """Build the program when MLflow loads the model, so that errors show before the first request."""
        _ = self.program

    def inputs(self, request: ResponsesAgentRequest) -> dict[str, Any]:
        """Return the program's inputs for a request without running it: a server can reject it before streaming.

        Raises:
            RequestError: the request is invalid.
        """
        program, request = self.program, _validated(request)
        inputs = program_inputs(program.signature, request, program.answer_field)
        if (answer := self._approval_answer(request)) is not None:
            resumption = answer.resumption
            self._signer().verify(answer.request_id, inputs, resumption.finished, resumption.waiting)
        return inputs

    def predict(  # type: ignore[override]  # as ResponsesAgent's own
        self, request: ResponsesAgentRequest
    ) -> ResponsesAgentResponse:
        """Answer a request with one response: the same as at the end of a stream. The LM doesn't stream.

        Raises:
            AgentError: the run failed; the code and message are those of a stream's ``error`` event.
        """
        failures: list[AgentError] = []
        request = _validated(request)
        *_, last = in_span("predict", request, self._events(request, failures.append, streaming=False))
        if failures:
            raise failures[0]
        return _response(last)

    def predict_stream(  # type: ignore[override]  # as ResponsesAgent's own
        self, request: ResponsesAgentRequest
    ) -> Generator[ResponsesAgentStreamEvent, None, None]:
        """Answer a request with a stream of events that ends with exactly one terminal event."""
        request = _validated(request)
        yield from in_span("predict_stream", request, self._events(request, lambda failure: None))

    def _events(
        self, request: ResponsesAgentRequest, on_failure: Callable[[AgentError], object], streaming: bool = True
    ) -> Generator[ResponsesAgentStreamEvent, None, None]:
        run = RunContext(self._deadline, current_run(), streaming=streaming, caller=caller_token())
        writer = EventWriter()
        yield from writer.start()
        try:
            yield from self._run_events(writer, request, run)
        except RunCancelled as cancelled:
            yield from writer.incomplete(cancelled.reason)
        except GeneratorExit:
            raise
        except BaseException as error:  # the client gets a terminal event, the trace the original exception
            failure = to_client_error(error)
            on_failure(failure)
            yield from writer.failed(failure.code, str(failure))
            if not isinstance(error, Exception):
                raise

    def _run_events(
        self, writer: EventWriter, request: ResponsesAgentRequest, run: RunContext
    ) -> Generator[ResponsesAgentStreamEvent, None, None]:
        seen: dict[str, Document] = {}
        prediction: dspy.Prediction | None = None
        waits_for_approval = False
        usage = None
        program = self.program
        inputs = self.inputs(request)

        def sign(item: Item) -> str:
            waiting, finished = read_waiting(request, writer.output, item)
            return self._signer().request_id(inputs, finished, waiting)

        for step in _run_steps(run, self._steps(request, inputs, seen)):
            if isinstance(step, Thought):
                yield from writer.thought(step.text)
            elif isinstance(step, ToolCall):
                yield from writer.tool_call(step)
            elif isinstance(step, Working):
                yield writer.keep_alive()
            elif isinstance(step, ToolProgress):
                yield from writer.tool_progress(step)
            elif isinstance(step, ToolResult):
                seen.update(_by_id(step.documents))
                yield from writer.tool_result(step)
            elif isinstance(step, ApprovalWanted):
                yield from writer.approval_request(step.waiting, sign)
                waits_for_approval = True
            elif isinstance(step, AnswerDelta):
                yield from writer.text(step.text, step.attempt)
            elif isinstance(step, Answer):
                prediction = step.prediction
                yield from _write_answer(writer, program, prediction, seen)
            elif isinstance(step, Usage):
                usage = step.to_responses()
        if prediction is None and not waits_for_approval:
            raise ProgramError("The program ended without an Answer; its steps() must yield one.")
        yield from writer.completed(usage, _custom_outputs(program, prediction))

    def _steps(
        self, request: ResponsesAgentRequest, inputs: dict[str, Any], seen: dict[str, Document]
    ) -> Iterator[Step]:
        """The steps of a new run, or of the resumed run if the request ends with an approval response."""
        answer = self._approval_answer(request)
        program: Any = self.program
        if answer is None:
            return cast(Iterator[Step], program.steps(**inputs))
        resumption = answer.resumption
        self._signer().check(answer.request_id, inputs, resumption.finished, resumption.waiting)
        for call in resumption.finished:
            seen.update(_by_id(call.documents))
        return cast(Iterator[Step], program.resume(resumption, **inputs))

    def _approval_answer(self, request: ResponsesAgentRequest) -> ApprovalAnswer | None:
        answer = read_answer(request)
        if answer is not None and not hasattr(self.program, "resume"):
            raise RequestError("This agent doesn't request approvals; end the input with a user message.")
        return answer

    def _signer(self) -> Approvals:
        if self._approvals is None:
            raise ProgramError(
                "A tool needs a person's approval, and the adapter has no key to sign the approval request: pass "
                "approvals=oneturn.Approvals(key) to ResponsesAdapter."
            )
        return self._approvals


def _response(event: ResponsesAgentStreamEvent) -> ResponsesAgentResponse:
    fields = event.model_dump()["response"]
    details = fields.pop("incomplete_details", None)
    response = ResponsesAgentResponse(**fields)
    if details is not None:  # validated, MLflow would warn about a reason that isn't one of OpenAI's two
        response.incomplete_details = IncompleteDetails.model_construct(**details)
    return response


def _validated(request: ResponsesAgentRequest | dict[str, Any]) -> ResponsesAgentRequest:
    """Validate a request, which MLflow may pass as a dict, and replace unpaired surrogates.

    LMs and trace stores reject text that UTF-8 can't encode.

    Raises:
        RequestError: the request doesn't match the Responses protocol.
    """
    data = request.model_dump() if isinstance(request, ResponsesAgentRequest) else request
    try:
        encodable = _is_encodable(data)
        if encodable and isinstance(request, ResponsesAgentRequest):
            return request
        return ResponsesAgentRequest.model_validate(data if encodable else replace_surrogates_deep(data))
    except ValidationError as invalid:
        raise RequestError(describe_validation_error(invalid)) from invalid


def _is_encodable(request: Any) -> bool:
    """Whether UTF-8 can encode the request: JSON may contain unpaired surrogates."""
    try:
        json.dumps(request, ensure_ascii=False, default=str).encode()
    except UnicodeEncodeError:
        return False
    return True


def _run_steps(run: RunContext, steps: Iterator[Step]) -> Iterator[Step]:
    """Yield the steps of a run up to its ``Usage``, the last one.

    Raises:
        RunCancelled: the run is stopped.
    """
    with run.active(), dspy.context(**_NO_HISTORY), contextlib.ExitStack() as cleanup:
        if isinstance(steps, Generator):
            cleanup.callback(steps.close)
        run.check()
        while (step := _next(steps)) is not None:
            yield step
            if isinstance(step, Usage):
                return
            run.check()


def _next(steps: Iterator[Step]) -> Step | None:
    try:
        return next(steps, None)
    except (SystemExit, GeneratorExit, asyncio.CancelledError) as error:  # would stop more than this run
        raise ProgramError(f"The program raised {type(error).__name__}.") from error


def _write_answer(
    writer: EventWriter, program: Program, prediction: dspy.Prediction, seen: Mapping[str, Document]
) -> Iterator[ResponsesAgentStreamEvent]:
    if program.answer_field is None:  # clients that read only text get the outputs too
        yield from writer.answer(json.dumps(_custom_outputs(program, prediction), ensure_ascii=False), [])
        return
    cited = [id for field in program.citing_fields for id in prediction.get(field) or []]
    text = replace_surrogates(str(prediction.get(program.answer_field) or ""))
    yield from writer.answer(text, url_citations(cited, seen, text))


def _by_id(documents: Iterable[Document]) -> dict[str, Document]:
    return {str(document.id): document for document in documents}


def _custom_outputs(program: Program, prediction: dspy.Prediction | None) -> dict[str, Any]:
    if prediction is None:  # the run waits for approval
        return {}
    names = [name for name in program.signature.output_fields if name != program.answer_field]
    return {name: plain(prediction.get(name)) for name in names}
