"""``ModuleProgram``: a ``dspy.Module`` as a program that yields steps."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import dspy
import mlflow

from oneturn.core.background import stream_in_thread
from oneturn.core.run_context import LM_SETTINGS, LMSettings, current_run
from oneturn.core.steps import Answer, Step, Working
from oneturn.core.usage import CallTracker, track_usage
from oneturn.errors import ProgramError
from oneturn.programs.callback import RunCallback, RunEvent
from oneturn.programs.react import ReAct
from oneturn.programs.react.grounding import citing_fields
from oneturn.programs.signature import answer_field_of, signature_of, with_submitted_turns
from oneturn.programs.stream_parsers import AnswerPiece, AnswerText
from oneturn.tools.decorator import options_of
from oneturn.tools.registry import tools_in


class ModuleProgram:
    """Runs a module unmodified and yields its steps, observed through DSPy's callbacks and the LM's stream.

    Tool calls are those of ``dspy.Tool``, in whichever thread DSPy makes them. Thoughts are the ``reasoning`` and
    ``next_thought`` outputs of its predictors. The answer text is streamed from every predictor whose signature has the
    answer field; if the final answer differs from that text, it is sent again as a new attempt.

    All runs share the module, so ``forward`` must not modify it.

    Args:
        module: the module; it must have a ``forward``.
        signature: its input and output fields. By default the module's own ``signature``, or that of its only
            predictor.
        answer_field: the output whose text is the answer. By default the first of type ``str``, if there is one.

    Raises:
        ProgramError: the module has no ``forward``, its signature is unknown or doesn't match ``forward``, or one of
            its tools requires human approval.
    """

    request_settings = LM_SETTINGS

    def __init__(
        self,
        module: dspy.Module,
        signature: str | type[dspy.Signature] | None = None,
        answer_field: str | None = None,
    ):
        _check_forward(module)
        _check_approvals(module)
        self.module = module
        self.signature = signature_of(module, signature)
        self._answer_field = answer_field_of(self.signature, answer_field)
        self._citing_fields = citing_fields(self.signature)

    @property
    def answer_field(self) -> str | None:
        """The output field whose text is the answer; ``None`` when all outputs are structured."""
        return self._answer_field

    @property
    def citing_fields(self) -> tuple[str, ...]:
        """The output fields of type ``list[oneturn.Citation]``."""
        return self._citing_fields

    def steps(self, **inputs: Any) -> Iterator[Step]:
        """Run the module and yield its steps as they happen. Closing the iterator stops the run at its next step.

        Raises:
            RunCancelled: the run's deadline passed, or it was cancelled.
            ProgramError: ``forward`` doesn't return the signature's outputs.
            Exception: any exception of the module.
        """
        tracker = CallTracker()
        answer = AnswerText()
        lm_settings = current_run().lm_settings

        def call(emit: Callable[[RunEvent], None]) -> dspy.Prediction:
            return self._run(inputs, emit, tracker, lm_settings)

        run = stream_in_thread(call, Working(), gathers=lambda: answer.begun)
        try:
            while True:
                event = next(run)
                if isinstance(event, AnswerPiece):
                    yield from answer.add(event)
                elif event is not None:
                    yield event
        except StopIteration as end:
            prediction: dspy.Prediction = end.value
        finally:
            run.close()
        if self.answer_field is not None:
            yield from answer.finish(_text(prediction[self.answer_field]))
        yield Answer(prediction)
        yield tracker.usage

    def _run(
        self,
        inputs: dict[str, Any],
        emit: Callable[[RunEvent], None],
        tracker: CallTracker,
        lm_settings: LMSettings,
    ) -> dspy.Prediction:
        fields = self.signature, self.answer_field
        sole_writer = _writers(self.module, self.answer_field) == 1
        autologged = _is_autologged()
        span = None if autologged else mlflow.get_current_active_span()
        callback = RunCallback(emit, *fields, tracker, current_run(), span, lm_settings, sole_writer, autologged)
        callbacks = [callback, *dspy.settings.callbacks]
        with track_usage(tracker), dspy.context(callbacks=callbacks, trace=[], **callback.run_settings()):
            prediction = self.module(**self._module_inputs(inputs))
            if autologged:
                callback.set_run_usage(prediction)
            return self._to_prediction(prediction)

    def _module_inputs(self, inputs: dict[str, Any]) -> dict[str, Any]:
        return with_submitted_turns(self.signature, inputs) if isinstance(self.module, dspy.ReActV2) else inputs

    def _to_prediction(self, result: Any) -> dspy.Prediction:
        outputs = result
        if isinstance(result, str) and self.answer_field is not None:
            outputs = dspy.Prediction(**{self.answer_field: result})
        elif isinstance(result, Mapping):
            outputs = dspy.Prediction(**result)
        name = type(self.module).__name__
        expected = ", ".join(self.signature.output_fields)
        if not isinstance(outputs, dspy.Prediction):
            raise ProgramError(
                f"{name}.forward returned {result!r:.80}; it must return a dspy.Prediction with {expected}."
            )
        if missing := [field for field in self.signature.output_fields if field not in outputs]:
            raise ProgramError(
                f"{name}.forward returned a dspy.Prediction without {missing[0]!r}; it must have {expected}."
            )
        return outputs


def _writers(module: dspy.Module, answer_field: str | None) -> float:
    """Count the predictors and agents that write the answer; one that is run again for a better answer is many."""
    parts = [part for _, part in module.named_sub_modules()]
    if any(isinstance(part, dspy.Refine | dspy.BestOfN) for part in parts):
        return math.inf
    agents = [part for part in parts if isinstance(part, dspy.ReActV2 | ReAct)]
    predictors = [part for part in parts if isinstance(part, dspy.Predict)]
    return sum(answer_field in part.signature.output_fields for part in [*agents, *predictors])


def _check_forward(module: dspy.Module) -> None:
    cls = type(module)
    if hasattr(cls, "forward") or "forward" in vars(module):
        return
    if hasattr(cls, "aforward"):
        raise ProgramError(
            f"{cls.__name__} has only aforward, but steps are yielded synchronously. Add a forward with "
            "dspy.syncify(program)."
        )
    raise ProgramError(f"{cls.__name__} has no forward method, so it can't be run. Define one.")


def _check_approvals(module: dspy.Module) -> None:
    """Reject tools that require approval: only ``oneturn.ReAct`` can pause a run for it."""
    for path, submodule in [("self", module), *module.named_sub_modules()]:
        for tool in () if isinstance(submodule, ReAct) else tools_in(submodule):
            if options_of(tool).approval:
                where = type(module).__name__ if path == "self" else f"{type(module).__name__} ({path})"
                raise ProgramError(
                    f"The tool {tool.name!r} of {where} needs human approval, which {type(submodule).__name__} doesn't "
                    "support. Use oneturn.ReAct, or declare the tool without approval."
                )


def _is_autologged() -> bool:
    """Return whether ``mlflow.dspy.autolog`` creates spans of its own."""
    return any(type(callback).__module__ == "mlflow.dspy.callback" for callback in dspy.settings.callbacks)


def _text(answer: Any) -> str:
    return "" if answer is None else str(answer)
