"""``ModuleProgram``: a ``dspy.Module`` as a program that yields steps."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import dspy
import mlflow
from mlflow.entities import LiveSpan

from oneturn.core.background import stream_in_thread
from oneturn.core.run_context import RunContext, current_run
from oneturn.core.steps import Answer, Step, Usage, Working
from oneturn.core.usage import RunUsage
from oneturn.errors import ProgramError
from oneturn.programs.callback import LMCall, RunCallback, RunEvent
from oneturn.programs.react import ReAct
from oneturn.programs.react.grounding import citing_fields
from oneturn.programs.signature import answer_field_of, signature_of, with_submitted_turns
from oneturn.programs.stream_parsers import AnswerPiece, AnswerText
from oneturn.tools.decorator import options_of


class ModuleProgram:
    """Runs a module as it is, and tells what happens in it: DSPy's callbacks and the LM's stream say it.

    Tool calls are those of ``dspy.Tool``, in whatever thread DSPy calls them. Thoughts are the ``reasoning`` and
    ``next_thought`` of its predictors. The answering text comes from every predictor whose signature has the answering
    field, as it is written; where the final answer isn't that text, it is told anew, as another attempt.

    The module is shared by all runs and must not write to itself in ``forward``.

    Args:
        module: the module; it must have a ``forward``.
        signature: what it takes and gives. If not said: the module's own ``signature``, or that of its only predictor.
        answer_field: the output whose text is the answer. If not said: the first of type ``str``, if there is one.

    Raises:
        ProgramError: the module has no ``forward``, its signature isn't known or doesn't fit ``forward``, or a tool of
            it needs a person's approval.
    """

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
        """Run the module and yield its steps as they happen. Closing the iterator ends the run at its next step.

        Raises:
            RunCancelled: the run has to stop: its deadline is over, or it was cancelled.
            ProgramError: ``forward`` gave something else than the signature's outputs.
            Exception: whatever the module raises.
        """
        usage = RunUsage()
        answer = AnswerText()
        control = RunContext(parent=current_run())
        lm_calls = 0

        def call(tell: Callable[[RunEvent], None]) -> dspy.Prediction:
            with control.active():
                return self._run(inputs, tell, usage, control)

        run = stream_in_thread(call, Working())
        try:
            while True:
                happening = next(run)
                if isinstance(happening, AnswerPiece):
                    yield from answer.add(happening)
                elif isinstance(happening, LMCall):
                    lm_calls += 1
                elif happening is not None:
                    yield happening
        except StopIteration as end:
            prediction: dspy.Prediction = end.value
        finally:
            control.cancel("abandoned")
            run.close()
        if self.answer_field is not None:
            yield from answer.finish(_text(prediction[self.answer_field]))
        yield Answer(prediction)
        yield Usage(lm_calls, usage.get_total_tokens())

    def _run(
        self, inputs: dict[str, Any], tell: Callable[[RunEvent], None], usage: RunUsage, control: RunContext
    ) -> dspy.Prediction:
        outer = dspy.settings.usage_tracker
        callback = RunCallback(tell, self.signature, self.answer_field, usage, control, _span_to_open_others_below())
        callbacks = [callback, *dspy.settings.callbacks]
        try:
            with dspy.context(callbacks=callbacks, usage_tracker=usage, trace=[], **callback.own_run()):
                return self._prediction(self.module(**self._given(inputs)))
        finally:
            if outer is not None:
                usage.add_to(outer)

    def _given(self, inputs: dict[str, Any]) -> dict[str, Any]:
        return with_submitted_turns(self.signature, inputs) if isinstance(self.module, dspy.ReActV2) else inputs

    def _prediction(self, given: Any) -> dspy.Prediction:
        outputs = given
        if isinstance(given, str) and self.answer_field is not None:
            outputs = dspy.Prediction(**{self.answer_field: given})
        elif isinstance(given, Mapping):
            outputs = dspy.Prediction(**given)
        name = type(self.module).__name__
        wanted = ", ".join(self.signature.output_fields)
        if not isinstance(outputs, dspy.Prediction):
            raise ProgramError(f"{name}.forward gave {given!r:.80}; it must give a dspy.Prediction with {wanted}.")
        if missing := [field for field in self.signature.output_fields if field not in outputs]:
            raise ProgramError(f"{name}.forward gave a dspy.Prediction without {missing[0]!r}; it must have {wanted}.")
        return outputs


def _check_forward(module: dspy.Module) -> None:
    cls = type(module)
    if hasattr(cls, "forward") or "forward" in vars(module):
        return
    if hasattr(cls, "aforward"):
        raise ProgramError(
            f"{cls.__name__} has only aforward: steps are yielded synchronously. Give it a forward too: "
            "dspy.syncify(program) makes one."
        )
    raise ProgramError(f"{cls.__name__} has no forward: there is nothing to run.")


def _check_approvals(module: dspy.Module) -> None:
    """A module runs to its end: it can't wait for a person, as ``oneturn.ReAct`` does."""
    for path, part in [("self", module), *module.named_sub_modules()]:
        tools = getattr(part, "tools", None) if not isinstance(part, ReAct) else None
        for tool in tools.values() if isinstance(tools, Mapping) else tools if isinstance(tools, list) else ():
            if isinstance(tool, dspy.Tool) and options_of(tool).approval:
                where = type(module).__name__ if path == "self" else f"{type(module).__name__} ({path})"
                raise ProgramError(
                    f"The tool {tool.name!r} of {where} needs a person's approval, which {type(part).__name__} can't "
                    "wait for. Use oneturn.ReAct, or declare the tool without approval."
                )


def _span_to_open_others_below() -> LiveSpan | None:
    """The active span; ``None`` if there is none, or if ``mlflow.dspy.autolog`` opens spans of its own."""
    logged = any(type(callback).__module__ == "mlflow.dspy.callback" for callback in dspy.settings.callbacks)
    return None if logged else mlflow.get_current_active_span()


def _text(answer: Any) -> str:
    return "" if answer is None else str(answer)
