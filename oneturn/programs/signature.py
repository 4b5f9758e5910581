"""The signature of a module: what it takes and what it gives."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

import dspy
from dspy.adapters.types.tool import ToolCallResults, ToolCalls
from dspy.signatures.signature import ensure_signature

from oneturn.errors import ProgramError

HISTORY = "history"
SUBMIT = "submit"
"""The tool that ends a ``dspy.ReActV2``: its arguments are the signature's output fields."""


def with_history_field(signature: type[dspy.Signature]) -> type[dspy.Signature]:
    """The signature with an optional ``history``, as ``dspy.ReActV2`` takes it."""
    field = dspy.InputField(default=dspy.History(messages=[]))
    with_field: type[dspy.Signature] = signature.append(HISTORY, field, type_=dspy.History)
    return with_field


def with_submitted_turns(signature: type[dspy.Signature], inputs: Mapping[str, Any]) -> dict[str, Any]:
    """The inputs, with a history whose answers were submitted: ``dspy.ReActV2`` shows its LM calls, not outputs."""
    history = inputs.get(HISTORY)
    if history is None:
        return {**inputs, HISTORY: dspy.History(messages=[])}
    turns = [_submitted(signature, number, turn) for number, turn in enumerate(history.messages)]
    return {**inputs, HISTORY: dspy.History(messages=turns)}


def _submitted(signature: type[dspy.Signature], number: int, turn: Mapping[str, Any]) -> dict[str, Any]:
    outputs = {name: turn[name] for name in signature.output_fields if name in turn}
    if not outputs or "tool_calls" in turn:
        return dict(turn)
    calls = ToolCalls(tool_calls=[ToolCalls.ToolCall(id=f"turn_{number}", name=SUBMIT, args=outputs)])
    results = ToolCallResults.from_tool_calls_and_values(calls, [outputs], [False])
    return {**turn, "next_thought": "", "tool_calls": calls.model_copy(update={"tool_call_results": results})}


_HINT = 'Say so: oneturn.ResponsesAdapter(program, signature="question -> answer").'


def signature_of(module: dspy.Module, given: str | type[dspy.Signature] | None = None) -> type[dspy.Signature]:
    """What ``module`` takes and gives.

    ``given``, if there is one; else the module's own ``signature``; else that of its only predictor, without the
    ``reasoning`` of a ``dspy.ChainOfThought`` and with those inputs only that ``forward`` takes. That of a
    ``dspy.ReActV2`` gets a ``history``.

    Raises:
        ProgramError: none of these says it, or what they say isn't what ``forward`` takes.
    """
    own = given if given is not None else getattr(module, "signature", None)
    signature = _from_predictor(module) if own is None else _ensured(module, own)
    _check(module, signature)
    if isinstance(module, dspy.ReActV2) and HISTORY not in signature.fields:
        return with_history_field(signature)
    return signature


def answer_field_of(signature: type[dspy.Signature], given: str | None = None) -> str | None:
    """The output field whose text is the answer: ``given``, or the first of type ``str``.

    Raises:
        ProgramError: the signature has no output field ``given``.
    """
    outputs = signature.output_fields
    if given is None:
        return next((name for name, field in outputs.items() if field.annotation is str), None)
    if given not in outputs:
        raise ProgramError(f"answer_field is {given!r}; the outputs of {signature.__name__} are: {', '.join(outputs)}.")
    return given


def _ensured(module: dspy.Module, given: Any) -> type[dspy.Signature]:
    try:
        signature: type[dspy.Signature] = ensure_signature(given)
    except (TypeError, ValueError) as error:
        raise ProgramError(
            f"The signature of {type(module).__name__} can't be read ({error}): {given!r:.80}."
        ) from error
    if not (isinstance(signature, type) and issubclass(signature, dspy.Signature)):
        raise ProgramError(f"The signature of {type(module).__name__} is no signature: {given!r:.80}. {_HINT}")
    return signature


def _from_predictor(module: dspy.Module) -> type[dspy.Signature]:
    predictors = module.predictors()
    name = type(module).__name__
    if len(predictors) != 1:
        raise ProgramError(f"{name} has {len(predictors)} predictors and no signature of its own. {_HINT}")
    signature: type[dspy.Signature] = predictors[0].signature
    if any(thinking.predict is predictors[0] for thinking in _chains_of_thought(module)):
        signature = signature.delete("reasoning")
    for unknown in _not_taken(module, signature):  # forward finds it out by itself: a retrieved context
        signature = signature.delete(unknown)
    return signature


def _check(module: dspy.Module, signature: type[dspy.Signature]) -> None:
    name, inputs = type(module).__name__, ", ".join(signature.input_fields)
    if unknown := _not_taken(module, signature):
        raise ProgramError(f"{name}.forward doesn't take {unknown[0]!r}; the inputs of its signature are: {inputs}.")
    needed = [parameter for parameter, needed in (_parameters(module) or {}).items() if needed]
    if missing := [parameter for parameter in needed if parameter not in signature.input_fields]:
        raise ProgramError(f"{name}.forward needs {missing[0]!r}; the inputs of its signature are: {inputs}. {_HINT}")


def _not_taken(module: dspy.Module, signature: type[dspy.Signature]) -> list[str]:
    taken = _parameters(module)
    return [] if taken is None else [field for field in signature.input_fields if field not in taken]


def _parameters(module: dspy.Module) -> dict[str, bool] | None:
    """The parameters of ``forward`` and whether each must be given; ``None`` if it takes any keyword."""
    forward = vars(module).get("forward")  # as dspy.syncify sets it: bound
    parameters = list(inspect.signature(forward or type(module).forward).parameters.values())[forward is None :]
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
        return None
    named = [parameter for parameter in parameters if parameter.kind is not parameter.VAR_POSITIONAL]
    return {parameter.name: parameter.default is parameter.empty for parameter in named}


def _chains_of_thought(module: dspy.Module) -> list[dspy.ChainOfThought]:
    return [found for _, found in module.named_sub_modules(dspy.ChainOfThought)]
