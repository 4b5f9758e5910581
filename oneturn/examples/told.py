"""What a trace tells of an example: what was asked, and what is right."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import dspy
from mlflow.entities import Span, Trace
from mlflow.types.responses import ResponsesAgentRequest

from oneturn.errors import DataError
from oneturn.examples.verdicts import Said
from oneturn.plain_json import plain
from oneturn.programs.wrapping import Program
from oneturn.replies import read_reply
from oneturn.responses.requests import program_inputs
from oneturn.responses.traced import COMPLETED, OUTCOME

_ANSWERS = ("expected_response", "response", "answer", "expected_answer")
"""What MLflow and its reviewers call the right answer."""


class Unusable(DataError):
    """A trace that no example can be made of, and why."""


@dataclass(frozen=True)
class Told:
    """What a trace tells, as JSON has it.

    Attributes:
        inputs: what was asked, by the signature's inputs.
        label: what is right, by its outputs; empty if nobody has told it.
        rest: what people have given that is no output of the signature.
        corrected: whether people have given something of the label, and not only found it right.
    """

    inputs: Mapping[str, Any]
    label: Mapping[str, Any]
    rest: Mapping[str, Any]
    corrected: bool


def told_by(trace: Trace, said: Said, program: Program) -> Told:
    """Read a trace of the program.

    Raises:
        Unusable: it is none, people said nothing of use, or it was asked with what no row can hold.
        RequestError: the program doesn't take the request.
        pydantic.ValidationError: it isn't one that the Responses protocol has.
    """
    if said.right is None and not said.expected:
        raise Unusable("what people said of it is neither yes nor no, and no answer")
    span, request = _answering(trace)
    signature, answer = program.signature, program.answer_field
    inputs = program_inputs(signature, ResponsesAgentRequest.model_validate(request), answer)
    if any(isinstance(value, dspy.Type) for given in inputs.values() for value in _each(given)):
        raise Unusable("an image or a file was sent with it")
    corrected, rest = _expected(said, program)
    label = {**(_given(span, program) if said.right else {}), **corrected}
    held = {name: plain(value) for name, value in inputs.items() if value is not None}
    return Told(held, label, rest, bool(corrected) or said.right is None)


def _answering(trace: Trace) -> tuple[Span, Mapping[str, Any]]:
    """The span of the agent and its request: the outermost, below that of the server where one has traced it, too."""
    for span in sorted(trace.data.spans, key=lambda span: span.start_time_ns):
        request = span.inputs.get("request") if isinstance(span.inputs, Mapping) else None
        if isinstance(request, Mapping) and "input" in request:
            return span, request
    raise Unusable("it isn't the trace of a Responses request")


def _given(span: Span, program: Program) -> dict[str, Any]:
    """What the agent gave, by output; nothing unless it came to its end."""
    outputs = span.outputs if isinstance(span.outputs, Mapping) else {}
    reply = read_reply([{"type": "response.completed", "response": outputs}])
    if span.get_attribute(OUTCOME) not in (None, COMPLETED) or reply.approvals:
        return {}
    answer = {program.answer_field: reply.text} if program.answer_field else {}
    given = {**reply.custom_outputs, **answer}
    return {name: value for name, value in given.items() if name in program.signature.output_fields}


def _expected(said: Said, program: Program) -> tuple[dict[str, Any], dict[str, Any]]:
    """What people gave, by output; and what of it is no output."""
    outputs, answer = program.signature.output_fields, program.answer_field
    corrected: dict[str, Any] = {}
    rest: dict[str, Any] = {}
    for name, value in said.expected.items():
        several = value if isinstance(value, Mapping) and name not in outputs else {name: value}
        for inner, given in several.items():
            output = answer if answer and inner in _ANSWERS and inner not in outputs else inner
            (corrected if output in outputs else rest)[output] = given
    return corrected, rest


def _each(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]
