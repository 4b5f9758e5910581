"""Evaluation targets: a program in this process, a served agent, or a logged model."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import dspy
import mlflow
from mlflow.entities import SpanType

from oneturn.agent import Agent
from oneturn.core.fields import dump_field, json_types
from oneturn.core.row_files import ColumnTypes
from oneturn.core.serialization import jsonable
from oneturn.core.splits import column_types
from oneturn.core.tracing import flush_at_exit, set_usage
from oneturn.core.urls import is_url
from oneturn.core.usage import NO_USAGE, USAGE_COLUMNS, CallTracker, Usage, track_usage
from oneturn.errors import ApprovalRequired, DataError, ProgramError
from oneturn.evaluation.approval import ApprovalPolicy, decide, use_approval_policy
from oneturn.evaluation.data_sources import is_conversation
from oneturn.evaluation.run_record import RunRecord, arguments, cited_sources, tool_calls, with_record
from oneturn.evaluation.typed_fields import outputs_of, with_input_types, with_types
from oneturn.programs.fingerprint import program_fingerprint
from oneturn.programs.signature import signature_of
from oneturn.responses import ResponsesAdapter
from oneturn.responses.call_items import to_mlflow_items
from oneturn.responses.client import describe, input_items, load_libraries, query
from oneturn.responses.parsing import validate_request
from oneturn.responses.reply import Reply, read_response
from oneturn.responses.request import MESSAGES, message_fields, program_inputs, question_field

Fields = dict[str, Any]


@dataclass
class TargetResult:
    """The result of a target for one row; partial if the target failed.

    Attributes:
        prediction: the outputs, as a metric reads them.
        tool_calls: the tool calls, in order; see :class:`oneturn.evaluation.run_record.RunRecord`.
        sources: the sources that the answer cites.
        usage: the usage of its LM calls.
        unknown: the usage columns that the target doesn't report; they are blank.
        seconds: the duration.
        trace_id: the id of its MLflow trace; ``None`` if there is none.
        approvals: the calls that need a person's approval, at which the run ended: ``name`` and ``arguments`` of each.
        approved: how many calls the policy approved; they may have been run.
    """

    prediction: dspy.Prediction = field(default_factory=dspy.Prediction)
    tool_calls: list[Fields] = field(default_factory=list)
    sources: list[str] = field(default_factory=list)
    usage: Usage = field(default_factory=Usage)
    unknown: tuple[str, ...] = ()
    seconds: float = 0.0
    trace_id: str | None = None
    approvals: list[Fields] = field(default_factory=list)
    approved: int = 0

    def count_approval(self) -> None:
        """Count a call that the policy approved, before it is run."""
        self.approved += 1

    @property
    def record(self) -> RunRecord:
        """Tool calls, sources, trace and pending approvals of the run."""
        return RunRecord(tuple(self.tool_calls), tuple(self.sources), self.trace_id, tuple(self.approvals))

    @property
    def noted(self) -> dspy.Prediction:
        """The prediction with the record of its run, which metrics read with :func:`run_record`."""
        return with_record(self.prediction, self.record)


class Target(Protocol):
    """Something that answers a row.

    Attributes:
        inputs: the names of its inputs; empty if unknown.
        optional: the inputs that have a default.
        columns: the JSON types of its inputs and outputs, as far as they are known.
        types: the types of its outputs, as far as they are known.
    """

    inputs: tuple[str, ...]
    optional: frozenset[str]
    columns: ColumnTypes
    types: Mapping[str, Any]

    def key(self) -> list[Any]:
        """Plain values that identify the target; equal for targets with the same program and settings."""

    def answer(self, example: dspy.Example, into: TargetResult) -> None:
        """Answer one row and write the result to ``into``; errors are raised."""


def resolve_target(
    target: Any,
    lm: dspy.BaseLM | None,
    api_key: str | None,
    trace: bool,
    approve: ApprovalPolicy | None = None,
    types: Mapping[str, Any] | None = None,
) -> Target:
    """Build the target for a program, an :class:`oneturn.Agent`, a URL, or a ``models:/`` URI.

    Args:
        target: any of these.
        lm: the LM for a program; ``None`` for the configured LM.
        api_key: the token for a URL.
        trace: whether each row of a program is an MLflow trace.
        approve: decides on calls that need approval; ``None`` ends the run there.
        types: the types of the outputs of a URL or a logged model.

    Raises:
        DataError: ``target`` is none of these.
    """
    if isinstance(target, Agent):
        program = target.program()
        settings = target.config.model_dump_json(include={"retriever", "tools"})
        return ProgramTarget(program, lm or target.program_lm(program), trace, approve, settings)
    if isinstance(target, dspy.Module):
        return ProgramTarget(target, lm, trace, approve)
    if isinstance(target, str) and is_url(target):
        return EndpointTarget(target, api_key, approve, types)
    if isinstance(target, str) and target.startswith(("models:/", "runs:/")):
        return ModelTarget(target, approve, types)
    raise DataError(f"{target!r:.80} can't be evaluated: give a dspy.Module, an Agent, a URL or a models:/ URI.")


class ProgramTarget:
    """A program in this process.

    Args:
        program: any ``dspy.Module``.
        lm: the LM to use; ``None`` for the configured LM.
        trace: whether each row is an MLflow trace.
        approve: decides on calls that need approval; ``None`` ends the run there.
        settings: what else decides the answers, such as the settings of a retriever.
    """

    def __init__(
        self,
        program: dspy.Module,
        lm: dspy.BaseLM | None,
        trace: bool,
        approve: ApprovalPolicy | None = None,
        settings: str = "",
    ):
        self._program = program
        self._lm = lm
        self._trace = trace
        self._approve = approve
        self._settings = settings
        self._signature = signature = _signature(program)
        fields = {} if signature is None else signature.input_fields
        self.inputs = tuple(fields)
        self._question, self._history = (None, None) if signature is None else _conversation_fields(signature)
        self.optional = frozenset(n for n, field in fields.items() if not field.is_required() or n == self._history)
        self.columns: ColumnTypes = {} if signature is None else column_types(signature)
        self.types: Mapping[str, Any] = {} if signature is None else outputs_of(signature)

    def key(self) -> list[Any]:
        """The program's fingerprint and the settings."""
        return [*program_fingerprint(self._program, self._lm), self._settings]

    def answer(self, example: dspy.Example, into: TargetResult) -> None:
        """Run the program on a row."""
        with dspy.context(**({"lm": self._lm} if self._lm is not None else {})), _measure(into) as tracker:
            try:
                with self._traced(example, into, tracker), use_approval_policy(self._approve, into.count_approval):
                    into.prediction = self._run(example, into)
            finally:
                into.usage = tracker.usage
        into.tool_calls = tool_calls(into.prediction)
        into.sources = cited_sources(into.prediction)

    def _run(self, example: dspy.Example, into: TargetResult) -> dspy.Prediction:
        try:
            return _prediction(self._program(**self._program_inputs(example)))
        except ApprovalRequired as wanted:
            into.approvals = [{"name": wanted.name, "arguments": wanted.arguments}]
            return dspy.Prediction(trajectory=wanted.trajectory)

    def _program_inputs(self, example: dspy.Example) -> Mapping[str, Any]:
        """The program's inputs in their declared types; a conversation is converted as in a served request.

        As there, a missing history is an empty one.
        """
        question, others = _request(example)
        if self._question is not None and is_conversation(others.get(self._question)):
            question = others.pop(self._question)
        if not isinstance(question, list):
            inputs = dict(example.inputs().items())
            if self._signature is None:
                return inputs
            if self._history is not None and inputs.get(self._history) is None:
                inputs[self._history] = dspy.History(messages=[])
            return with_input_types(inputs, self._signature)
        request = validate_request({"input": question, "custom_inputs": others})
        return program_inputs(signature_of(self._program, None), request)

    @contextlib.contextmanager
    def _traced(self, example: dspy.Example, into: TargetResult, tracker: CallTracker) -> Iterator[None]:
        if not self._trace:
            yield
            return
        with mlflow.start_span("run", SpanType.AGENT) as span:
            flush_at_exit()
            into.trace_id = span.trace_id
            span.set_inputs(jsonable(example.inputs().toDict()))
            try:
                yield
            finally:
                set_usage(span, tracker.usage)
            span.set_outputs(jsonable(dict(into.prediction)))


class EndpointTarget:
    """A served agent.

    It is sent a row's ``question``, a text or the messages of a conversation; the other inputs are ``custom_inputs``.

    Args:
        url: its URL.
        api_key: the token to send.
        approve: decides on calls that need approval; ``None`` ends the run there.
        types: the types of its outputs, which arrive as JSON.

    Attributes:
        is_identified: whether ``key`` tells the program apart from another at the same URL; known after its call.
    """

    def __init__(
        self,
        url: str,
        api_key: str | None,
        approve: ApprovalPolicy | None = None,
        types: Mapping[str, Any] | None = None,
    ):
        self.types: Mapping[str, Any] = types or {}
        self.columns: ColumnTypes = {name: json_types(kind) for name, kind in self.types.items()}
        self._approve = approve
        self.inputs: tuple[str, ...] = ("question",)
        self.optional: frozenset[str] = frozenset()
        self.is_identified = False
        self._url = url
        self._api_key = api_key
        load_libraries()  # here, because rows are answered in threads

    def key(self) -> list[Any]:
        """The URL, and what the server says of the program that it serves.

        Raises:
            EndpointError: the server is unreachable or busy, or refuses the token.
        """
        info = describe(self._url, api_key=self._api_key)
        self.is_identified = info.get("fingerprint") is not None
        return [self._url, *(info.get(name) for name in ("name", "version", "fingerprint")), _type_names(self.types)]

    def answer(self, example: dspy.Example, into: TargetResult) -> None:
        """Query the endpoint."""
        question, custom_inputs = _request(example)

        def send(items: list[Mapping[str, Any]]) -> Reply:
            return query(self._url, items, custom_inputs=custom_inputs, api_key=self._api_key)

        into.unknown = USAGE_COLUMNS
        with _measure(into):
            read_into(_replies(send, question, self._approve, into), into, self.types)


class ModelTarget:
    """A logged model, loaded into this process.

    Args:
        uri: its URI.
        approve: decides on calls that need approval; ``None`` ends the run there.
        types: the types of its outputs; ``None`` for those that its program declares.
    """

    def __init__(self, uri: str, approve: ApprovalPolicy | None = None, types: Mapping[str, Any] | None = None):
        self._uri = uri
        self._approve = approve
        self.inputs: tuple[str, ...] = ("question",)
        self.optional: frozenset[str] = frozenset()
        self._model = mlflow.pyfunc.load_model(uri)
        self.types: Mapping[str, Any] = _model_types(self._model) if types is None else types
        self.columns: ColumnTypes = {name: json_types(kind) for name, kind in self.types.items()}

    def key(self) -> list[Any]:
        """The id of the model, whichever alias or version the URI names it by."""
        return [self._model.metadata.model_uuid or self._uri, _type_names(self.types)]

    def answer(self, example: dspy.Example, into: TargetResult) -> None:
        """Query the model."""
        question, custom_inputs = _request(example)

        def send(items: list[Mapping[str, Any]]) -> Reply:
            response = self._model.predict({"input": to_mlflow_items(items), "custom_inputs": custom_inputs})
            return read_response(response, items)

        into.unknown = USAGE_COLUMNS
        with _measure(into):
            read_into(_replies(send, question, self._approve, into), into, self.types)


_MAX_APPROVALS = 50
"""The maximum number of approval requests per row; a remote agent may request approvals without end."""


def _replies(
    send: Callable[[list[Mapping[str, Any]]], Reply], question: Any, approve: ApprovalPolicy | None, into: TargetResult
) -> list[Reply]:
    """Ask a question, and answer the approvals that the agent requests; all replies, in order."""
    replies = [send(input_items(question))]
    while approve is not None and (wanted := replies[-1].approvals) and len(replies) <= _MAX_APPROVALS:
        approved = decide(approve, wanted[0])
        if approved:
            into.count_approval()
        replies.append(send(replies[-1].answering(approved)))
    return replies


def _prediction(output: Any) -> dspy.Prediction:
    if not isinstance(output, dspy.Prediction):
        kind = type(output).__name__
        raise ProgramError(f"The program returned {output!r:.80}, of type {kind}; return a dspy.Prediction.")
    return output


@contextlib.contextmanager
def _measure(into: TargetResult) -> Iterator[CallTracker]:
    start = time.perf_counter()
    with track_usage() as tracker:
        try:
            yield tracker
        finally:
            into.seconds = time.perf_counter() - start + tracker.replayed


def _request(example: dspy.Example) -> tuple[Any, Fields]:
    inputs = {name: dump_field(value) for name, value in example.inputs().items()}
    return inputs.pop("question", None), inputs


def _type_names(types: Mapping[str, Any]) -> dict[str, str]:
    return {name: str(kind) for name, kind in types.items()}


def _model_types(model: Any) -> dict[str, Any]:
    try:
        served = model.get_raw_model()
    except NotImplementedError:  # a model that isn't a ResponsesAgent
        return {}
    return outputs_of(served.program.signature) if isinstance(served, ResponsesAdapter) else {}


def read_into(replies: Sequence[Reply], into: TargetResult, types: Mapping[str, Any] | None = None) -> None:
    """Convert the replies of a served agent, several if calls were approved, to the result of a program.

    Args:
        replies: the replies, in order.
        into: where the result is written.
        types: the types of the outputs, which are JSON in the replies.
    """
    reply = replies[-1]
    urls = [source.url for source in reply.sources]
    into.approvals = [{"name": each.name, "arguments": arguments(each.arguments)} for each in reply.approvals]
    if not into.approvals:
        outputs = dict(reply.custom_outputs) or {"citations": urls}
        if reply.answer_field is not None:
            outputs = {reply.answer_field: reply.text, **outputs}
        into.prediction = dspy.Prediction(**with_types(outputs, types or {}))
    into.tool_calls = [
        {
            "name": call.name,
            "arguments": arguments(call.arguments),
            "output": call.output,
            "sources": [dict(source) for source in call.sources],
        }
        for each in replies
        for call in each.tool_calls
    ]
    into.sources = urls
    into.usage = sum((each.usage for each in replies), NO_USAGE)
    into.unknown = ("lm_calls",) if into.usage.tokens else USAGE_COLUMNS  # the protocol reports tokens only


def _conversation_fields(signature: type[dspy.Signature]) -> tuple[str | None, str | None]:
    """The input for the question's text, and the required one for the earlier turns."""
    history = message_fields(signature)["history"]
    takes_history = history not in (None, MESSAGES) and signature.input_fields[history].is_required()
    return question_field(signature), history if takes_history else None


def _signature(program: dspy.Module) -> type[dspy.Signature] | None:
    """The program's signature; ``None`` if it declares none, and the examples mark its inputs."""
    try:
        return signature_of(program, None)
    except Exception:
        return None
