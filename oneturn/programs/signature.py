"""Resolve the signature of a ``dspy.Module``: its input and output fields."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

import dspy

from oneturn.errors import ProgramError

HISTORY = "history"
SUBMIT = "submit"
"""The tool that ends a ``dspy.ReActV2``: its arguments are the signature's output fields."""


def ending_tool(module: Any) -> str | None:
    """Return the name of the tool that ``dspy.ReAct`` and ``dspy.ReActV2`` end a run with; ``None`` for others."""
    if isinstance(module, dspy.ReAct):
        return "finish"
    return SUBMIT if isinstance(module, dspy.ReActV2) else None


def with_history_field(signature: type[dspy.Signature]) -> type[dspy.Signature]:
    """Return the signature with an optional ``history`` input, which ``dspy.ReActV2`` accepts."""
    field = dspy.InputField(default=dspy.History(messages=[]))
    with_field: type[dspy.Signature] = signature.append(HISTORY, field, type_=dspy.History)
    return with_field


def with_submitted_turns(signature: type[dspy.Signature], inputs: Mapping[str, Any]) -> dict[str, Any]:
    """Return the inputs with past answers as ``submit`` calls: ``dspy.ReActV2`` shows its LM calls, not outputs."""
    history = inputs.get(HISTORY)
    if history is None:
        return {**inputs, HISTORY: dspy.History(messages=[])}
    turns = [_to_submitted_turn(signature, number, turn) for number, turn in enumerate(history.messages)]
    return {**inputs, HISTORY: dspy.History(messages=turns)}


def _to_submitted_turn(signature: type[dspy.Signature], number: int, turn: Mapping[str, Any]) -> dict[str, Any]:
    outputs = {name: turn[name] for name in signature.output_fields if name in turn}
    if not outputs or "tool_calls" in turn:
        return dict(turn)
    calls = dspy.ToolCalls(tool_calls=[dspy.ToolCalls.ToolCall(id=f"turn_{number}", name=SUBMIT, args=outputs)])
    results = dspy.ToolCallResults.from_tool_calls_and_values(calls, [outputs], [False])
    return {**turn, "next_thought": "", "tool_calls": calls.model_copy(update={"tool_call_results": results})}


_HINT = (
    'Set self.signature = dspy.Signature("question -> answer") in its __init__, with what goes in and comes out; '
    "or pass signature= to oneturn.ResponsesAdapter."
)


def signature_of(module: dspy.Module, given: str | type[dspy.Signature] | None = None) -> type[dspy.Signature]:
    """Return the signature of ``module``.

    In order of precedence: ``given``; the module's own ``signature``; the signature of its only predictor, without the
    ``reasoning`` of a ``dspy.ChainOfThought`` and without inputs that ``forward`` doesn't accept. A ``dspy.ReActV2``
    also gets a ``history`` input.

    Raises:
        ProgramError: no signature is found, or it doesn't match the parameters of ``forward``.
    """
    declared = given if given is not None else getattr(module, "signature", None)
    signature = _from_predictor(module) if declared is None else _to_signature(module, declared)
    _check(module, signature)
    if isinstance(module, dspy.ReActV2) and HISTORY not in signature.fields:
        return with_history_field(signature)
    return signature


def answer_field_of(signature: type[dspy.Signature], given: str | None = None) -> str | None:
    """Return the output field whose text is the answer: ``given``, or the first of type ``str``, or ``str | None``.

    Raises:
        ProgramError: the signature has no output field ``given``.
    """
    outputs = signature.output_fields
    if given is None:
        texts = [name for name, field in outputs.items() if field.annotation is str]
        optional_texts = [name for name, field in outputs.items() if field.annotation == str | None]
        return next(iter(texts + optional_texts), None)
    if given not in outputs:
        raise ProgramError(f"answer_field is {given!r}; the outputs of {signature.__name__} are: {', '.join(outputs)}.")
    return given


def answer_last_order(signature: type[dspy.Signature]) -> tuple[str, ...]:
    """Return the names of the outputs, the answer last."""
    answer = answer_field_of(signature)
    return tuple(sorted(signature.output_fields, key=lambda name: name == answer))


def _to_signature(module: dspy.Module, given: Any) -> type[dspy.Signature]:
    try:
        signature: type[dspy.Signature] = dspy.ensure_signature(given)
    except (TypeError, ValueError) as error:
        raise ProgramError(
            f"The signature of {type(module).__name__} can't be parsed ({error}): {given!r:.80}."
        ) from error
    if not (isinstance(signature, type) and issubclass(signature, dspy.Signature)):
        raise ProgramError(f"The signature of {type(module).__name__} is not a dspy.Signature: {given!r:.80}. {_HINT}")
    return signature


def _from_predictor(module: dspy.Module) -> type[dspy.Signature]:
    predictors = module.predictors()
    name = type(module).__name__
    if len(predictors) != 1:
        raise ProgramError(f"{name} has {len(predictors)} predictors and no signature of its own. {_HINT}")
    signature: type[dspy.Signature] = predictors[0].signature
    if any(chain.predict is predictors[0] for chain in _chains_of_thought(module)):
        signature = signature.delete("reasoning")
    for field in _unaccepted_inputs(module, signature):  # forward computes it, such as a retrieved context
        signature = signature.delete(field)
    return signature


def _check(module: dspy.Module, signature: type[dspy.Signature]) -> None:
    check_field_names(signature)
    check_predictors(module)
    name, inputs = type(module).__name__, ", ".join(signature.input_fields)
    if unaccepted := _unaccepted_inputs(module, signature):
        raise ProgramError(f"{name}.forward doesn't accept {unaccepted[0]!r}; the signature's inputs are: {inputs}.")
    required = [parameter for parameter, is_required in (_parameters(module) or {}).items() if is_required]
    if missing := [parameter for parameter in required if parameter not in signature.input_fields]:
        raise ProgramError(f"{name}.forward requires {missing[0]!r}; the signature's inputs are: {inputs}. {_HINT}")


PREDICTOR_NAMES = frozenset({"config", "demos", "instance", "lm", "new_signature", "self", "signature"})
"""Input names that ``dspy.Predict`` and ``dspy.Module`` take as their own arguments."""

_PREDICTION_NAMES = frozenset({"base", "self"})
"""Output names that ``dspy.Prediction`` takes as its own arguments."""


def check_field_names(signature: type[dspy.Signature]) -> None:
    """Check that DSPy can pass the signature's fields by name.

    Raises:
        ProgramError: it can't; the message names the field.
    """
    clashing = [name for name in signature.input_fields if name in PREDICTOR_NAMES]
    clashing += [name for name in signature.output_fields if name in _PREDICTION_NAMES]
    if clashing:
        raise ProgramError(
            f"{signature.__name__} can't have a field named {clashing[0]!r}: DSPy has an argument of this name. Rename "
            f"the field, for example to {clashing[0] + '_text'!r}."
        )


def check_predictors(module: dspy.Module) -> None:
    """Check that DSPy can pass the fields of all predictors by name.

    Raises:
        ProgramError: it can't; the message names the field.
    """
    for predictor in module.predictors():
        check_field_names(predictor.signature)


def _unaccepted_inputs(module: dspy.Module, signature: type[dspy.Signature]) -> list[str]:
    parameters = _parameters(module)
    return [] if parameters is None else [field for field in signature.input_fields if field not in parameters]


def _parameters(module: dspy.Module) -> dict[str, bool] | None:
    """Map each parameter of ``forward`` to whether it is required; ``None`` if ``forward`` accepts any keyword."""
    forward = vars(module).get("forward")  # dspy.syncify sets a bound method on the instance
    parameters = list(inspect.signature(forward or type(module).forward).parameters.values())[forward is None :]
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
        return None
    named = [parameter for parameter in parameters if parameter.kind is not parameter.VAR_POSITIONAL]
    return {parameter.name: parameter.default is parameter.empty for parameter in named}


def _chains_of_thought(module: dspy.Module) -> list[dspy.ChainOfThought]:
    return [chain for _, chain in module.named_sub_modules(dspy.ChainOfThought)]
