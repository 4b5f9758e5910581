"""What is evaluated: a program in this process, a served agent, or a logged model; each answers one row."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import dspy
import mlflow
from mlflow.entities import SpanType
from mlflow.types.responses import ResponsesAgentRequest

from oneturn.agent import Agent
from oneturn.core.serialization import jsonable
from oneturn.core.usage import Spend, spending
from oneturn.errors import ApprovalRequired, DataError, ProgramError
from oneturn.evaluation.approval import ApprovalPolicy, approving, decide
from oneturn.evaluation.run_record import RunRecord, arguments, cited, tool_calls, with_record
from oneturn.programs.signature import signature_of
from oneturn.responses.client import input_items, query
from oneturn.responses.reply import Reply, read_reply
from oneturn.responses.request import program_inputs

Fields = dict[str, Any]


@dataclass
class Answered:
    """What came back for one row; what is known of it when it failed, too.

    Attributes:
        prediction: the outputs, as a metric reads them.
        tool_calls: the tools that were called, in order; see :class:`oneturn.evaluation.run_record.RunRecord`.
        sources: what the answer cites.
        spend: LM calls and tokens.
        seconds: how long it took.
        trace_id: of its MLflow trace, if it has one.
        approvals: the calls that need a person's approval, at which the run ended: ``name`` and ``arguments`` of each.
        approved: how many calls the policy approved; they may have been run.
    """

    prediction: dspy.Prediction = field(default_factory=dspy.Prediction)
    tool_calls: list[Fields] = field(default_factory=list)
    sources: list[str] = field(default_factory=list)
    spend: Mapping[str, float | None] = field(default_factory=dict)
    seconds: float = 0.0
    trace_id: str | None = None
    approvals: list[Fields] = field(default_factory=list)
    approved: int = 0

    def count_approval(self) -> None:
        """Count a call that the policy approved, before it is run."""
        self.approved += 1

    @property
    def record(self) -> RunRecord:
        """What the run did, beside its outputs."""
        return RunRecord(tuple(self.tool_calls), tuple(self.sources), self.trace_id, tuple(self.approvals))

    @property
    def noted(self) -> dspy.Prediction:
        """The prediction with what the run did, for a metric to read (:func:`run_record`)."""
        return with_record(self.prediction, self.record)


class Target(Protocol):
    """What answers a row.

    Attributes:
        key: the same for what answers alike.
        inputs: the fields that it takes, where they are known.
    """

    key: str
    inputs: tuple[str, ...]

    def answer(self, example: dspy.Example, into: Answered) -> None:
        """Answer one row; raises whatever goes wrong."""


def resolve_target(
    target: Any, lm: dspy.BaseLM | None, api_key: str | None, trace: bool, approve: ApprovalPolicy | None = None
) -> Target:
    """What a user names: a program, an :class:`oneturn.Agent`, a URL, or a ``models:/`` URI.

    Raises:
        DataError: it is none of these.
    """
    if isinstance(target, Agent):
        return ProgramTarget(target.program(), lm or target.lm(), trace, approve)
    if isinstance(target, dspy.Module):
        return ProgramTarget(target, lm, trace, approve)
    if isinstance(target, str) and target.startswith(("http://", "https://")):
        return EndpointTarget(target, api_key, approve)
    if isinstance(target, str) and target.startswith(("models:/", "runs:/")):
        return ModelTarget(target, approve)
    raise DataError(f"{target!r:.80} can't be evaluated: give a dspy.Module, an Agent, a URL or a models:/ URI.")


class ProgramTarget:
    """A program in this process.

    Args:
        program: any ``dspy.Module``.
        lm: the LM that answers; ``None`` for the one that is configured.
        trace: whether each row is an MLflow trace.
        approve: decides on calls that need approval; ``None`` ends the run there.
    """

    def __init__(
        self, program: dspy.Module, lm: dspy.BaseLM | None, trace: bool, approve: ApprovalPolicy | None = None
    ):
        self._program = program
        self._lm = lm
        self._trace = trace
        self._approve = approve
        asked = [lm] if lm is not None else [found.lm or dspy.settings.lm for _, found in program.named_predictors()]
        self.key = repr([type(program).__name__, _state(program), [_settings(each) for each in asked]])
        self.inputs = _inputs(program)

    def answer(self, example: dspy.Example, into: Answered) -> None:
        """Run the program on a row."""
        with dspy.context(**({"lm": self._lm} if self._lm is not None else {})), _measuring(into) as spend:
            try:
                with self._traced(example, into), approving(self._approve, into.count_approval):
                    into.prediction = self._run(example, into)
            finally:
                into.spend = spend.to_dict()
        into.tool_calls = tool_calls(into.prediction)
        into.sources = cited(into.prediction)

    def _run(self, example: dspy.Example, into: Answered) -> dspy.Prediction:
        try:
            return _prediction(self._program(**self._given(example)))
        except ApprovalRequired as wanted:
            into.approvals = [{"name": wanted.name, "arguments": wanted.arguments}]
            return dspy.Prediction(trajectory=wanted.trajectory)

    def _given(self, example: dspy.Example) -> Mapping[str, Any]:
        """The inputs; a conversation fills them as a served request would."""
        question, others = _request(example)
        if not isinstance(question, list):
            return dict(example.inputs())
        request = ResponsesAgentRequest(input=question, custom_inputs=others)
        return program_inputs(signature_of(self._program, None), request)

    @contextlib.contextmanager
    def _traced(self, example: dspy.Example, into: Answered) -> Iterator[None]:
        if not self._trace:
            yield
            return
        with mlflow.start_span("run", SpanType.AGENT) as span:
            into.trace_id = span.trace_id
            span.set_inputs(jsonable(example.inputs().toDict()))
            yield
            span.set_outputs(jsonable(dict(into.prediction)))


def _state(program: dspy.Module) -> dict[str, Any]:
    """Instructions and demos, without LMs: DSPy refuses to write down one with an engine of its own."""
    bare = program.deepcopy()
    bare.set_lm(None)
    state: dict[str, Any] = bare.dump_state()
    return state


class EndpointTarget:
    """A served agent; a row's ``question`` is what is asked, a text or the messages of a conversation; its other inputs
    are ``custom_inputs``.
    """

    def __init__(self, url: str, api_key: str | None, approve: ApprovalPolicy | None = None):
        self.key = url
        self._approve = approve
        self.inputs: tuple[str, ...] = ("question",)
        self._url = url
        self._api_key = api_key

    def answer(self, example: dspy.Example, into: Answered) -> None:
        """Ask the endpoint."""
        question, custom_inputs = _request(example)

        def send(items: list[Mapping[str, Any]]) -> Reply:
            return query(self._url, items, custom_inputs=custom_inputs, api_key=self._api_key)

        with _measuring(into):
            read_into(_replies(send, question, self._approve, into), into)


class ModelTarget:
    """A logged model, loaded into this process."""

    def __init__(self, uri: str, approve: ApprovalPolicy | None = None):
        self.key = uri
        self._approve = approve
        self.inputs: tuple[str, ...] = ("question",)
        self._model = mlflow.pyfunc.load_model(uri)

    def answer(self, example: dspy.Example, into: Answered) -> None:
        """Ask the model."""
        question, custom_inputs = _request(example)

        def send(items: list[Mapping[str, Any]]) -> Reply:
            response = self._model.predict({"input": items, "custom_inputs": custom_inputs})
            return read_reply([{"type": "response.completed", "response": response}], asked=items)

        with _measuring(into):
            read_into(_replies(send, question, self._approve, into), into)


_MOST_APPROVALS = 50
"""Calls of one row that a policy is asked about: a remote agent may ask without end."""


def _replies(
    send: Callable[[list[Mapping[str, Any]]], Reply], question: Any, approve: ApprovalPolicy | None, into: Answered
) -> list[Reply]:
    """Ask a question, and answer the approvals that the agent requests; all replies, in order."""
    replies = [send(input_items(question))]
    while approve is not None and (wanted := replies[-1].approvals) and len(replies) <= _MOST_APPROVALS:
        approved = decide(approve, wanted[0])
        if approved:
            into.count_approval()
        replies.append(send(replies[-1].answering(approved)))
    return replies


def _prediction(given: Any) -> dspy.Prediction:
    if not isinstance(given, dspy.Prediction):
        raise ProgramError(f"The program gave {given!r:.80}, of type {type(given).__name__}; give a dspy.Prediction.")
    return given


@contextlib.contextmanager
def _measuring(into: Answered) -> Iterator[Spend]:
    began = time.perf_counter()
    with spending() as spend:
        try:
            yield spend
        finally:
            into.seconds = time.perf_counter() - began + spend.replayed


def _request(example: dspy.Example) -> tuple[Any, Fields]:
    given = {name: jsonable(value) for name, value in example.inputs().items()}
    return given.pop("question", None), given


def read_into(replies: Sequence[Reply], into: Answered) -> None:
    """Take what a served agent answered as what a program would have; several replies if calls were approved."""
    reply = replies[-1]
    urls = [source.url for source in reply.sources]
    into.approvals = [{"name": each.name, "arguments": arguments(each.arguments)} for each in reply.approvals]
    if not into.approvals:
        into.prediction = dspy.Prediction(**{"answer": reply.text, "citations": urls, **reply.custom_outputs})
    into.tool_calls = [
        {
            "name": call.name,
            "arguments": arguments(call.arguments),
            "output": call.output,
            "sources": [dict(found) for found in call.sources],
        }
        for each in replies
        for call in each.tool_calls
    ]
    into.sources = urls
    read, written = (
        sum(int(each.usage.get(name) or 0) for each in replies) for name in ("input_tokens", "output_tokens")
    )
    into.spend = {"prompt_tokens": read, "completion_tokens": written}


def _settings(lm: dspy.BaseLM | None) -> list[Any]:
    """Which LM, and how it is asked; never with what key."""
    told = {name: value for name, value in (getattr(lm, "kwargs", None) or {}).items() if "key" not in name}
    return [getattr(lm, "model", None), told]


def _inputs(program: dspy.Module) -> tuple[str, ...]:
    try:
        return tuple(signature_of(program, None).input_fields)
    except Exception:  # a module that doesn't say what it takes: the examples mark their inputs
        return ()
