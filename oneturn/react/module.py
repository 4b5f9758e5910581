"""``oneturn.ReAct``: a DSPy module whose run is a generator of steps."""

from __future__ import annotations

import uuid
from collections.abc import Generator, Iterable, Iterator
from typing import Any

import dspy
from dspy.signatures.signature import ensure_signature
from dspy.utils.exceptions import AdapterParseError, ContextWindowExceededError

from oneturn.errors import ProgramError, RunError
from oneturn.react.calls import Allowed, StepCall, StepCaller
from oneturn.react.grounding import Ground, annotated
from oneturn.react.schema import StepSchema
from oneturn.react.turns import ToolCallArgs, Turn
from oneturn.steps import Answer, AnswerDelta, Step, Thought, ToolCall, Usage
from oneturn.tools import FINISH, ToolLike, failed, run_tool, toolset

_RESERVED = {"trajectory", "thought", "tool_call"}
_UNPARSABLE = "Error: that was not one JSON object with a tool_call. Write only the JSON object."
_REPEATED = f"Error: that call was made before and its result stands above. Call {FINISH}."


class ReAct(dspy.Module):
    """An agent that calls tools until it can fulfil its signature, one LM call a step.

    The final outputs are the arguments of the ``finish`` call, so a question that needs one tool costs two
    LM calls. The idea is ReAct's (Yao et al., 2023); the names are those of ``dspy.ReAct``.

    How a run ends:

    - ``finish`` with outputs of the signature's types: the run's ``Prediction``;
    - ``finish`` with outputs that don't validate: the LM is told why and asked once more;
    - a tool that fails, an unknown tool, a reply that can't be parsed: the LM reads one short line and goes on;
    - a call made before: it isn't made again, and the next step can only be ``finish``;
    - the last of ``max_iters`` steps can only be ``finish``;
    - a prompt too long for the LM: the longest observation is cut in half and the step taken again.

    Args:
        signature: the declared inputs and typed outputs; the first ``str`` output is the answering text. An output of
            type ``list[oneturn.Citation]`` can only name documents that a tool of the run has given.
        tools: functions or ``dspy.Tool``s; a function's docstring and type hints describe it to the LM.
        max_iters: the most steps a run may take, the finishing one included; at least 1.
        thoughts: whether the LM writes a ``thought`` before each call.

    Raises:
        ProgramError: the signature or the tools use a reserved name, ``max_iters`` is below 1, or a ``Citation`` or
            ``Seen`` stands where it would not be heeded.
    """

    def __init__(
        self,
        signature: str | type[dspy.Signature],
        tools: Iterable[ToolLike],
        max_iters: int = 6,
        thoughts: bool = True,
    ):
        super().__init__()
        self.signature = ensure_signature(signature)
        self.tools = {name: annotated(tool) for name, tool in toolset(tools).items()}
        self.max_iters = max_iters
        self.thoughts = thoughts
        self._check()
        self.steps_schema = StepSchema(self.signature, self.tools, thoughts)
        self.step = dspy.Predict(_step_signature(self.signature, thoughts))

    @property
    def answer_field(self) -> str | None:
        """The output field whose text is the answer: the first of type ``str``."""
        return next((name for name, field in self.signature.output_fields.items() if field.annotation is str), None)

    @property
    def citing_fields(self) -> tuple[str, ...]:
        """The output fields of type ``list[oneturn.Citation]``."""
        return self.steps_schema.citing

    def steps(self, **inputs: Any) -> Iterator[Step]:
        """Run the program and yield its steps as they happen, text token by token where the LM streams.

        Raises:
            ProgramError: an input is missing or unknown.
            RunError: the run ended without an answer.
        """
        return self._run(inputs, streaming=True)

    def forward(self, **inputs: Any) -> dspy.Prediction:
        """Run the program to its end; the ``Prediction`` has the outputs and the ``trajectory``."""
        (answer,) = (step for step in self._run(inputs, streaming=False) if isinstance(step, Answer))
        return answer.prediction

    def _run(self, inputs: dict[str, Any], streaming: bool) -> Generator[Step, None, None]:
        self._check_inputs(inputs)
        run = _Run(self, {**self._default_inputs(), **inputs}, streaming)
        yield from run.steps()

    def _check(self) -> None:
        if taken := _RESERVED.intersection(self.signature.fields):
            raise ProgramError(
                f"{self.signature.__name__} can't have a field named {sorted(taken)[0]!r}: ReAct uses it."
            )
        if self.max_iters < 1:
            raise ProgramError(f"max_iters is {self.max_iters}; a run takes at least 1 step.")

    def _check_inputs(self, inputs: dict[str, Any]) -> None:
        fields = self.signature.input_fields
        required = {name for name, field in fields.items() if field.is_required()}
        if missing := sorted(required - set(inputs)):
            raise ProgramError(f"Input {missing[0]!r} is missing; {self.signature.__name__} takes {', '.join(fields)}.")
        if unknown := sorted(set(inputs) - set(fields)):
            raise ProgramError(f"Input {unknown[0]!r} is unknown; {self.signature.__name__} takes {', '.join(fields)}.")

    def _default_inputs(self) -> dict[str, Any]:
        fields = self.signature.input_fields.items()
        return {name: field.get_default(call_default_factory=True) for name, field in fields if not field.is_required()}


class _Run:
    """One run: all that changes while the program works. Nothing of it outlives the run."""

    def __init__(self, program: ReAct, inputs: dict[str, Any], streaming: bool):
        self.program = program
        self.trajectory: list[Turn] = []
        self.caller = StepCaller(program.step, program.steps_schema, program.answer_field, inputs, streaming)
        self.seen = [str(value) for value in inputs.values()]
        self.sources: list[str] = []
        self.must_finish = False
        self.repaired = False
        self.attempt = 0

    def steps(self) -> Generator[Step, None, None]:
        remaining = self.program.max_iters
        while True:
            remaining -= 1
            call = yield from self._next_step(self._allowed(remaining))
            if call is None:
                if remaining <= 0:
                    raise self._error("invalid_output", "the LM's last reply can't be parsed as a step")
                continue
            if call.thought and not call.thought_told:
                yield Thought(call.thought)
            if call.call.name == FINISH:
                prediction = yield from self._finish(call)
                if prediction is not None:
                    yield Answer(prediction)
                    yield Usage(self.caller.lm_calls, self.caller.tokens())
                    return
            elif remaining <= 0:
                raise self._error("max_iters", f"{self.program.max_iters} steps were taken without a {FINISH} call")
            else:
                yield from self._use_tool(call)

    def _allowed(self, remaining: int) -> Allowed:
        last = remaining <= 0 or self.must_finish
        names = frozenset({FINISH}) if last else self.program.steps_schema.names
        return Allowed(names, self._ground())

    def _ground(self) -> Ground:
        used: dict[str, list[Any]] = {}
        for turn in self.trajectory:
            if turn.tool_call is not None:
                used.setdefault(turn.tool_call.name, []).extend(turn.tool_call.args.values())
        return Ground(tuple(self.seen), tuple(self.sources), used)

    def _next_step(self, allowed: Allowed) -> Generator[Step, None, StepCall | None]:
        while True:
            try:
                return (yield from self.caller.ask(self.trajectory, allowed, self.attempt))
            except AdapterParseError:
                self.trajectory.append(Turn(observation=_UNPARSABLE))
                return None
            except ContextWindowExceededError as error:
                if not _shorten(self.trajectory):
                    raise self._error("context_length_exceeded", "the prompt is too long for the LM") from error

    def _use_tool(self, step: StepCall) -> Generator[Step, None, None]:
        if any(turn.tool_call == step.call for turn in self.trajectory):
            if self.must_finish:  # the LM doesn't keep to the schema: it has to be told
                self.trajectory.append(Turn(thought=step.thought, tool_call=step.call, observation=_REPEATED))
            self.must_finish = True
            return
        call = ToolCall(f"call_{uuid.uuid4().hex[:24]}", step.call.name, step.call.args)
        yield call
        misgrounded = self.program.steps_schema.misgrounded(call.name, call.args, self._ground())
        result = failed(call, misgrounded) if misgrounded else run_tool(self.program.tools, call)
        if not misgrounded:  # the refusal names what was made up: that doesn't make it seen
            self.seen.append(result.output)
        self.trajectory.append(Turn(thought=step.thought, tool_call=step.call, observation=result.output))
        self.sources += [str(doc.id) for doc in result.documents if str(doc.id) not in self.sources]
        yield result

    def _finish(self, step: StepCall) -> Generator[Step, None, dspy.Prediction | None]:
        try:
            outputs = self.program.steps_schema.validate(step.call.args, self._ground())
        except ValueError as error:
            self._repair(step, error)
            return None
        prediction = dspy.Prediction(**outputs, trajectory=list(self.trajectory))
        self.caller.record(self.trajectory, step)
        if self.program.answer_field is not None:
            yield from self._rest_of_answer(outputs[self.program.answer_field], step.answer_told)
        return prediction

    def _rest_of_answer(self, answer: str, streamed: str) -> Iterator[Step]:
        if not answer.startswith(streamed):
            self.attempt += 1
            streamed = ""
        if rest := answer[len(streamed) :]:
            yield AnswerDelta(rest, self.attempt)

    def _repair(self, step: StepCall, error: ValueError) -> None:
        if self.repaired:
            raise self._error("invalid_output", f"the outputs don't fit the signature: {error}") from error
        self.repaired = self.must_finish = True
        self.attempt += bool(step.answer_told)
        observation = f"Error: {error}. Call {FINISH} again with outputs that fit."
        self.trajectory.append(Turn(thought=step.thought, tool_call=step.call, observation=observation))

    def _error(self, code: str, reason: str) -> RunError:
        advice = "Compile the program, raise max_iters, or take a stronger LM."
        return RunError(f"The run ended without an answer: {reason}. {advice}", code, self.trajectory)


def _step_signature(signature: type[dspy.Signature], thoughts: bool) -> type[dspy.Signature]:
    fields: dict[str, Any] = {
        name: (field.annotation, dspy.InputField(desc=(field.json_schema_extra or {}).get("desc")))
        for name, field in signature.input_fields.items()
    }
    fields["trajectory"] = (list[Turn], dspy.InputField(desc="The steps taken so far and their results."))
    if thoughts:
        fields["thought"] = (str, dspy.OutputField(desc="Why this step, in a few words."))
    fields["tool_call"] = (ToolCallArgs, dspy.OutputField(desc="The tool to call next, with its arguments."))
    made: type[dspy.Signature] = dspy.Signature(
        fields, signature.instructions, signature_name=f"{signature.__name__}Step"
    )
    return made


def _shorten(trajectory: list[Turn]) -> bool:
    longest = max(trajectory, key=lambda turn: len(turn.observation), default=None)
    if longest is None or len(longest.observation) < 80:
        return False
    longest.observation = longest.observation[: len(longest.observation) // 2] + " … (cut: too long)"
    return True
