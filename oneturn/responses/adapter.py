"""``ResponsesAdapter`` serves a program as an MLflow ``ResponsesAgent``."""

from __future__ import annotations

import asyncio
import contextlib
import json
import threading
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any, cast

import dspy
from dspy.utils.exceptions import AdapterParseError
from mlflow.entities import Document
from mlflow.types.responses import ResponsesAgentRequest, ResponsesAgentResponse, ResponsesAgentStreamEvent
from mlflow.types.responses_helpers import IncompleteDetails, InputTokensDetails, ResponseUsage

from oneturn.core.run_context import OUT_OF_TOKENS, RunContext, caller_token, current_run
from oneturn.core.serialization import plain, replace_surrogates
from oneturn.core.steps import (
    Answer,
    AnswerDelta,
    ApprovalWanted,
    ClientCall,
    Step,
    Thought,
    ToolCall,
    ToolProgress,
    ToolResult,
    Working,
)
from oneturn.core.usage import CallTracker, Usage, track_usage
from oneturn.errors import AgentError, ProgramError, RunCancelled, RunError
from oneturn.programs import Program, as_program
from oneturn.programs.signature import check_predictors
from oneturn.responses.approval_items import read_waiting
from oneturn.responses.checked_text import CheckedText, check_stream_option
from oneturn.responses.client_calls import sign_call
from oneturn.responses.content import Item
from oneturn.responses.errors import to_client_error
from oneturn.responses.event_writer import Event, EventWriter, url_citations
from oneturn.responses.parsing import ParsedRequest, parse_request, read_request, signer, tool_schema
from oneturn.responses.request_fields import RequestOptions
from oneturn.responses.text_format import formatted_text
from oneturn.responses.tracing import SelfTraced, in_span
from oneturn.responses.turn_calls import OwnTools
from oneturn.tools.approvals import Approvals

# By default DSPy stores the last 10,000 prompts of each LM and module, and the last 10,000 runs for an optimizer.
_NO_HISTORY = {"disable_history": True, "trace": None}


class ResponsesAdapter(SelfTraced):
    """Serves a program over the OpenAI Responses protocol; one instance serves concurrent requests.

    The user messages since the last answer are the question, ``custom_inputs`` fill the other inputs. The answer field
    becomes the message and is streamed. Citations become its annotations. All other outputs are returned in
    ``custom_outputs``.

    Args:
        program: the program, such as a :class:`oneturn.ReAct` or any ``dspy.Module``, or a function that builds it.
            The function is called once, when MLflow loads the model or on the first request. The program's predictors
            need an LM: from ``program.set_lm`` or ``dspy.configure``.
        signature: the signature of a ``dspy.Module`` that doesn't declare one; see
            :class:`oneturn.programs.ModuleProgram`.
        answer_field: the output field of a ``dspy.Module`` that becomes the message; the first ``str`` by default.
        deadline: seconds that a request may take. Then it ends as ``incomplete``, with the items finished so far.
            ``None`` for no limit.
        approvals: signs and verifies approvals, for a program with tools that need a person's approval; and results of
            its own tools before a call of the client. Without it, the latter are valid in this process only.
        stream: which text of the answer is streamed: ``"checked"``, what nothing can replace any more, or ``"eager"``,
            what the LM writes. A text that another attempt replaces is then closed as ``incomplete``; it is never in
            the response.

    Attributes:
        approvals: the same; set it before the first request.

    Raises:
        ProgramError: an input of the program has a name that DSPy reserves, such as ``config`` or ``demos``; or
            ``stream`` is unknown.
    """

    def __init__(
        self,
        program: Program | dspy.Module | Callable[[], Program | dspy.Module],
        signature: str | type[dspy.Signature] | None = None,
        answer_field: str | None = None,
        *,
        deadline: float | None = None,
        approvals: Approvals | None = None,
        stream: str = "checked",
    ):
        if isinstance(program, dspy.Module):
            check_predictors(program)
        self._source = program
        self._signature = signature
        self._answer_field = answer_field
        self._deadline = deadline
        self._stream_option = check_stream_option(stream)
        self.approvals = approvals
        self._temporary_key = Approvals.temporary()
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

    def parse(
        self, request: ResponsesAgentRequest | Mapping[str, Any], options: RequestOptions | None = None
    ) -> ParsedRequest:
        """Parse a request without running it, so that a server can refuse it before the stream starts.

        Args:
            request: the request.
            options: its options, if :func:`oneturn.responses.parsing.read_request` has returned both.

        Raises:
            RequestError: the request is invalid (HTTP 400).
            ProgramError: the program can't be built, or the request answers an approval that can't be verified.
        """
        if options is not None and isinstance(request, ResponsesAgentRequest):
            return self._parse(request, options)
        return self._parse(*read_request(request))

    def run(self, parsed: ParsedRequest) -> ResponsesAgentResponse:
        """Run a parsed request and return the response: the same as at the end of a stream. The LM doesn't stream.

        Raises:
            AgentError: the run failed; the code and message are those of a stream's ``error`` event.
        """
        return self._run(parsed.request, lambda: parsed)

    def stream(self, parsed: ParsedRequest) -> Generator[Event, None, None]:
        """Run a parsed request and yield its events as dicts; the last one is the only terminal event."""
        return in_span("predict_stream", parsed.request, self._events(lambda: parsed))

    def predict(  # type: ignore[override]  # as ResponsesAgent's own
        self, request: ResponsesAgentRequest
    ) -> ResponsesAgentResponse:
        """Parse and run a request.

        Raises:
            RequestError: the request doesn't match the Responses protocol.
            AgentError: the request was refused, or the run failed, with the code and message of a stream's ``error``.
        """
        valid, options = read_request(request)
        return self._run(valid, lambda: self._parse(valid, options))

    def predict_stream(  # type: ignore[override]  # as ResponsesAgent's own
        self, request: ResponsesAgentRequest
    ) -> Generator[ResponsesAgentStreamEvent, None, None]:
        """Parse and stream a request; a refused request is a stream that ends with ``response.failed``.

        Raises:
            RequestError: the request doesn't match the Responses protocol.
        """
        valid, options = read_request(request)
        events = in_span("predict_stream", valid, self._events(lambda: self._parse(valid, options)))
        with contextlib.closing(events):
            for event in events:
                yield ResponsesAgentStreamEvent.model_validate(event)

    def _parse(self, request: ResponsesAgentRequest, options: RequestOptions) -> ParsedRequest:
        return parse_request(request, options, self.program, self.approvals, self._key)

    @property
    def _key(self) -> Approvals:
        """What signs the results of own tools before a call of the client."""
        given = self.approvals
        return given if given is not None and given.missing_key_env is None else self._temporary_key

    def _run(self, request: ResponsesAgentRequest, parse: Callable[[], ParsedRequest]) -> ResponsesAgentResponse:
        failures: list[AgentError] = []
        *_, last = in_span("predict", request, self._events(parse, failures.append, streaming=False))
        if failures:
            raise failures[0]
        return _response(last)

    def _events(
        self,
        parse: Callable[[], ParsedRequest],
        on_failure: Callable[[AgentError], object] = lambda failure: None,
        streaming: bool = True,
    ) -> Generator[Event, None, None]:
        run = RunContext(self._deadline, current_run(), streaming=streaming, caller=caller_token())
        writer, tracker, text = EventWriter(), CallTracker(), CheckedText(self._stream_option)
        yield from writer.start()
        try:
            with track_usage(tracker):
                yield from self._run_events(writer, text, parse(), run)
        except RunCancelled as cancelled:
            yield from _write_rest(writer, text)
            yield from writer.incomplete(cancelled.reason, tracker.usage.to_responses())
        except GeneratorExit:
            raise
        except BaseException as error:  # the client gets a terminal event, the trace the original exception
            usage = tracker.usage.to_responses()
            if _is_out_of_tokens(error, run, tracker.usage):
                yield from _write_rest(writer, text)
                yield from writer.incomplete(OUT_OF_TOKENS, usage)
                return
            failure = to_client_error(error)
            on_failure(failure)
            yield from writer.failed(failure, usage)
            if not isinstance(error, Exception):
                raise

    def _run_events(
        self, writer: EventWriter, text: CheckedText, parsed: ParsedRequest, run: RunContext
    ) -> Generator[Event, None, None]:
        seen: dict[str, Document] = {}
        prediction: dspy.Prediction | None = None
        waits = False
        usage = None
        program = self.program
        own = OwnTools(program)
        options = parsed.options
        answer_field = program.answer_field if options.text_format is None else None
        writer.metadata.update(options.metadata)
        run.lm_settings, run.max_tool_calls = options.lm, options.max_tool_calls
        run.client_tools, run.parallel_tool_calls = options.client_tools, options.parallel_tool_calls

        def sign(item: Item) -> str:
            waiting, finished = read_waiting([*parsed.items, *writer.output], item, own)
            schema = tool_schema(program, waiting.name)
            return signer(self.approvals).request_id(parsed.inputs, finished, waiting, schema)

        for step in _run_steps(run, self._steps(parsed, seen)):
            if isinstance(step, Thought):
                yield from writer.thought(step.text)
            elif isinstance(step, ClientCall):
                id = sign_call([*parsed.items, *writer.output], parsed.inputs, own, self._key)
                yield from writer.tool_call(replace(step, call_id=id))
                waits = True
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
                waits = True
            elif isinstance(step, AnswerDelta):
                if options.text_format is None:
                    for delta in text.add(step):
                        yield from writer.text(delta.text, delta.attempt)
                    if text.needs_sign():
                        yield writer.keep_alive()
            elif isinstance(step, Answer):
                prediction = step.prediction
                yield from _write_answer(writer, program, prediction, seen, options)
            elif isinstance(step, Usage):
                usage = step.to_responses()
                if step.cost is not None:
                    writer.metadata["cost_usd"] = f"{step.cost:.6f}"
        if prediction is None and not waits:
            raise ProgramError("The program ended without an Answer; its steps() must yield one.")
        yield from writer.completed(usage, _custom_outputs(program, prediction), answer_field)

    def _steps(self, parsed: ParsedRequest, seen: dict[str, Document]) -> Iterator[Step]:
        """The steps of a new run, or of the run that the request resumes."""
        program: Any = self.program
        if parsed.resumption is None:
            return cast(Iterator[Step], program.steps(**parsed.inputs))
        for call in parsed.resumption.finished:
            seen.update(_by_id(call.documents))
        return self._resumed(parsed)

    def _resumed(self, parsed: ParsedRequest) -> Iterator[Step]:
        """The steps of a resumed run; its approval is spent when they begin, so not by a run that was stopped."""
        program: Any = self.program
        if parsed.approval is not None:
            signer(self.approvals).spend(parsed.approval)
        yield from program.resume(parsed.resumption, **parsed.inputs)


def _write_rest(writer: EventWriter, text: CheckedText) -> Iterator[Event]:
    """Write what a stopped run has written of the answer."""
    for delta in text.rest():
        yield from writer.text(delta.text, delta.attempt)


def _is_out_of_tokens(error: BaseException, run: RunContext, usage: Usage) -> bool:
    """Whether a run failed because its LM could write no more; a module that gets a cut reply fails to parse it."""
    if isinstance(error, RunError):
        return error.code == OUT_OF_TOKENS
    limit = run.lm_settings.max_output_tokens
    return isinstance(error, AdapterParseError) and limit is not None and usage.output_tokens >= limit


class _InputTokensDetails(InputTokensDetails):
    cache_write_tokens: int


class _Usage(ResponseUsage):
    input_tokens_details: _InputTokensDetails


class _Response(ResponsesAgentResponse):
    """The response with all that a stream ends with: MLflow's ``usage`` doesn't have all fields of OpenAI's."""

    usage: _Usage | None = None


def _response(event: Event) -> ResponsesAgentResponse:
    fields = dict(event["response"])
    details = fields.pop("incomplete_details", None)
    response = _Response(**fields)
    if details is not None:  # validated, MLflow would warn about a reason that isn't one of OpenAI's two
        response.incomplete_details = IncompleteDetails.model_construct(**details)
    return response


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
    writer: EventWriter,
    program: Program,
    prediction: dspy.Prediction,
    seen: Mapping[str, Document],
    options: RequestOptions,
) -> Iterator[Event]:
    if options.text_format is not None:
        yield from writer.answer(formatted_text(options.text_format, program.signature, prediction), [])
        return
    if program.answer_field is None:  # clients that read only text get the outputs too
        yield from writer.answer(json.dumps(_custom_outputs(program, prediction), ensure_ascii=False), [])
        return
    cited = [id for field in program.citing_fields for id in prediction.get(field) or []]
    text = replace_surrogates(str(prediction.get(program.answer_field) or ""))
    yield from writer.answer(text, url_citations(cited, seen, text))


def _by_id(documents: Iterable[Document]) -> dict[str, Document]:
    return {str(document.id): document for document in documents}


def _custom_outputs(program: Program, prediction: dspy.Prediction | None) -> dict[str, Any]:
    if prediction is None:  # the run waits for a person or the client
        return {}
    names = [name for name in program.signature.output_fields if name != program.answer_field]
    return {name: plain(prediction.get(name)) for name in names}
