"""``ResponsesAdapter``: a oneturn program as an MLflow ``ResponsesAgent``."""

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
    Usage,
    Working,
)
from oneturn.errors import AgentError, ProgramError, RequestError, RunCancelled
from oneturn.programs import Program, as_program
from oneturn.responses.approval_items import ApprovalAnswer, Item, read_answer, read_waiting
from oneturn.responses.errors import to_client_error
from oneturn.responses.event_writer import EventWriter, url_citations
from oneturn.responses.request import first_problem, program_inputs
from oneturn.responses.tracing import SelfTraced, in_span
from oneturn.tools.approvals import Approvals

# DSPy keeps the last 10,000 prompts of each LM and module, and the last 10,000 runs for an optimizer that isn't there.
_KEEP_NOTHING = {"disable_history": True, "trace": None}


class ResponsesAdapter(SelfTraced):
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
        deadline: seconds that a request may take; then it ends as ``incomplete``, with what is known. ``None`` for
            no limit.
        approvals: signs and checks a person's approvals, for a program with tools that need them.
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
        self._given = program
        self._signature = signature
        self._answer_field = answer_field
        self._deadline = deadline
        self._approvals = approvals
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

    def inputs(self, request: ResponsesAgentRequest) -> dict[str, Any]:
        """The program's inputs for a request, without running anything: a server can refuse before it streams.

        Raises:
            RequestError: the request can't be answered.
        """
        program, request = self.program, _validated(request)
        inputs = program_inputs(program.signature, request, program.answer_field)
        if (answer := self._answer(request)) is not None:
            at = answer.resumption
            self._signing().verify(answer.request_id, inputs, at.finished, at.waiting)
        return inputs

    def predict(  # type: ignore[override]  # as ResponsesAgent's own
        self, request: ResponsesAgentRequest
    ) -> ResponsesAgentResponse:
        """Answer a request at once: the LM isn't made to stream, the response is what a stream would have ended with.

        Raises:
            AgentError: the run failed; with the code and message that a stream would have ended with.
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
        """Answer a request as a stream of events that ends with exactly one terminal event."""
        request = _validated(request)
        yield from in_span("predict_stream", request, self._events(request, lambda failure: None))

    def _events(
        self, request: ResponsesAgentRequest, on_failure: Callable[[AgentError], object], streaming: bool = True
    ) -> Generator[ResponsesAgentStreamEvent, None, None]:
        control = RunContext(self._deadline, current_run(), streaming=streaming, caller=caller_token())
        writer = EventWriter()
        yield from writer.start()
        try:
            yield from self._run_events(writer, request, control)
        except RunCancelled as stopped:
            yield from writer.incomplete(stopped.reason)
        except GeneratorExit:
            raise
        except BaseException as error:  # told to the client as the stream's end, kept whole in the trace
            failure = to_client_error(error)
            on_failure(failure)
            yield from writer.failed(failure.code, str(failure))
            if not isinstance(error, Exception):
                raise

    def _run_events(
        self, writer: EventWriter, request: ResponsesAgentRequest, control: RunContext
    ) -> Generator[ResponsesAgentStreamEvent, None, None]:
        seen: dict[str, Document] = {}
        prediction: dspy.Prediction | None = None
        waits = False
        usage = None
        program = self.program
        inputs = self.inputs(request)

        def sign(item: Item) -> str:
            waiting, finished = read_waiting(request, writer.output, item)
            return self._signing().request_id(inputs, finished, waiting)

        for step in _until_stopped(control, self._steps(request, inputs, seen)):
            if isinstance(step, Thought):
                yield from writer.thought(step.text)
            elif isinstance(step, ToolCall):
                yield from writer.tool_call(step)
            elif isinstance(step, Working):
                yield writer.working()
            elif isinstance(step, ToolProgress):
                yield from writer.tool_progress(step)
            elif isinstance(step, ToolResult):
                seen.update(_by_id(step.documents))
                yield from writer.tool_result(step)
            elif isinstance(step, ApprovalWanted):
                yield from writer.approval_request(step.waiting, sign)
                waits = True
            elif isinstance(step, AnswerDelta):
                yield from writer.text(step.text, step.attempt)
            elif isinstance(step, Answer):
                prediction = step.prediction
                yield from _message(writer, program, prediction, seen)
            elif isinstance(step, Usage):
                usage = _usage(step)
        if prediction is None and not waits:
            raise ProgramError("The program ended without an Answer; its steps must yield one.")
        yield from writer.completed(usage, _custom_outputs(program, prediction))

    def _steps(
        self, request: ResponsesAgentRequest, inputs: dict[str, Any], seen: dict[str, Document]
    ) -> Iterator[Step]:
        """A new run; or the one that waited for the approval that the request ends with."""
        answer = self._answer(request)
        program: Any = self.program
        if answer is None:
            return cast(Iterator[Step], program.steps(**inputs))
        at = answer.resumption
        self._signing().check(answer.request_id, inputs, at.finished, at.waiting)
        for call in at.finished:
            seen.update(_by_id(call.documents))
        return cast(Iterator[Step], program.resume(at, **inputs))

    def _answer(self, request: ResponsesAgentRequest) -> ApprovalAnswer | None:
        answer = read_answer(request)
        if answer is not None and not hasattr(self.program, "resume"):
            raise RequestError("This agent asks for no approvals; end the request with a user message.")
        return answer

    def _signing(self) -> Approvals:
        if self._approvals is None:
            raise ProgramError(
                "A tool needs a person's approval, and the adapter has no key to sign the request with: give "
                "ResponsesAdapter its approvals=oneturn.Approvals(key)."
            )
        return self._approvals


def _response(event: ResponsesAgentStreamEvent) -> ResponsesAgentResponse:
    told = event.model_dump()["response"]
    details = told.pop("incomplete_details", None)
    response = ResponsesAgentResponse(**told)
    if details is not None:  # MLflow warns of a reason that isn't one of OpenAI's two
        response.incomplete_details = IncompleteDetails.model_construct(**details)
    return response


def _validated(request: ResponsesAgentRequest | dict[str, Any]) -> ResponsesAgentRequest:
    """The request, which MLflow lets be given as a dict, in text that every LM and trace store takes.

    Raises:
        RequestError: it isn't one that the Responses protocol has.
    """
    given = request.model_dump() if isinstance(request, ResponsesAgentRequest) else request
    try:
        sound_request = _is_sound(given)
        if sound_request and isinstance(request, ResponsesAgentRequest):
            return request
        return ResponsesAgentRequest.model_validate(given if sound_request else replace_surrogates_deep(given))
    except ValidationError as invalid:
        raise RequestError(first_problem(invalid)) from invalid


def _is_sound(request: Any) -> bool:
    """Whether UTF-8 has all its characters: JSON can carry half a surrogate pair."""
    try:
        json.dumps(request, ensure_ascii=False, default=str).encode()
    except UnicodeEncodeError:
        return False
    return True


def _until_stopped(control: RunContext, steps: Iterator[Step]) -> Iterator[Step]:
    """The steps of a run, up to its cost, with which it ends."""
    with control.active(), dspy.context(**_KEEP_NOTHING), contextlib.ExitStack() as ending:
        if isinstance(steps, Generator):
            ending.callback(steps.close)
        control.check()
        while (step := _next(steps)) is not None:
            yield step
            if isinstance(step, Usage):
                return
            control.check()


def _next(steps: Iterator[Step]) -> Step | None:
    try:
        return next(steps, None)
    except (SystemExit, GeneratorExit, asyncio.CancelledError) as stray:  # they would end more than this run
        raise ProgramError(f"The program raised {type(stray).__name__}.") from stray


def _message(
    writer: EventWriter, program: Program, prediction: dspy.Prediction, seen: Mapping[str, Document]
) -> Iterator[ResponsesAgentStreamEvent]:
    if program.answer_field is None:  # a client that reads texts only gets the outputs all the same
        yield from writer.answer(json.dumps(_custom_outputs(program, prediction), ensure_ascii=False), [])
        return
    cited = [id for field in program.citing_fields for id in prediction.get(field) or []]
    text = replace_surrogates(str(prediction.get(program.answer_field) or ""))
    yield from writer.answer(text, url_citations(cited, seen, text))


def _by_id(documents: Iterable[Document]) -> dict[str, Document]:
    return {str(document.id): document for document in documents}


def _custom_outputs(program: Program, prediction: dspy.Prediction | None) -> dict[str, Any]:
    if prediction is None:  # the run waits for an approval
        return {}
    names = [name for name in program.signature.output_fields if name != program.answer_field]
    return {name: plain(prediction.get(name)) for name in names}


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
