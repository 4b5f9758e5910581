"""``oneturn.ReAct``: a DSPy module whose run is a generator of steps."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager
from typing import Any, Literal

import dspy

from oneturn.core.client_tools import ClientTools
from oneturn.core.fields import field_default, field_description
from oneturn.core.run_context import LM_SETTINGS, RunContext, current_run
from oneturn.core.steps import Answer, ApprovalWanted, Resumption, Step, ToolResult, WaitingCall
from oneturn.errors import ApprovalRequired, ProgramError, RunError
from oneturn.lm.capabilities import ToolCalling
from oneturn.programs.react.demo_pool import DemoPool
from oneturn.programs.react.grounding import SeenValues, citing_fields, with_annotated_args
from oneturn.programs.react.llm_step import StepCaller
from oneturn.programs.react.loop import Run
from oneturn.programs.react.prompt import StepAdapter
from oneturn.programs.react.schema import StepSchema
from oneturn.programs.react.tool_calling import AdapterSelector, check_tool_calling
from oneturn.programs.react.trajectory import ToolCallArgs, Turn, turn_of
from oneturn.programs.signature import answer_field_of, answer_last_order, check_field_names
from oneturn.tools.registry import ToolLike, toolset

_CAPTURE_RUN_ERRORS = "oneturn_keep_failed_runs"
_APPROVE = "oneturn_approve_call"
_RESERVED = {"trajectory", "thought", "tool_call", "parallel_calls"}


Thoughts = bool | Literal["free"]
"""Whether the LM writes a thought before each call: in the call's JSON, or (``"free"``) as text before the first."""
THOUGHT_TOKENS = 512


def check_thoughts(value: Any) -> Thoughts:
    """Return the option; ``"free"`` for ``None``.

    Raises:
        ProgramError: there is no such option.
    """
    if isinstance(value, bool):
        return value
    if value is None or value == "free":
        return "free"
    raise ProgramError(f"thoughts is {value!r}; it must be True, False or 'free'.")


@contextmanager
def capture_run_errors() -> Iterator[None]:
    """Make a failing :class:`ReAct` return a ``Prediction`` with ``error`` and ``trajectory`` instead of raising.

    Use it with an optimizer that learns from failures, such as ``dspy.GEPA``, which ignores runs that raise. The metric
    must score a prediction without outputs, and may explain the score.
    """
    with dspy.context(**{_CAPTURE_RUN_ERRORS: True}):
        yield


@contextmanager
def approving_calls(approve: Callable[[WaitingCall], bool]) -> Iterator[None]:
    """Make a :class:`ReAct` that is called ask ``approve`` about each call that needs a person's approval.

    Without it, such a call ends the run with :class:`oneturn.errors.ApprovalRequired`. A streamed run (``steps``)
    always ends with an ``ApprovalWanted``.
    """
    with dspy.context(**{_APPROVE: approve}):
        yield


def ask_for_approval(call: WaitingCall) -> bool | None:
    """Ask the function that :func:`approving_calls` has set; ``None`` if there is none."""
    approve = dspy.settings.get(_APPROVE)
    return None if approve is None else approve(call) is True


class ReAct(dspy.Module):
    """An agent that calls tools until it can produce its outputs, with one LM call per step.

    The final outputs are the arguments of the ``finish`` call, so a question that needs one tool takes two
    LM calls. The idea is ReAct's (Yao et al., 2023); the names are those of ``dspy.ReAct``.

    How a run ends:

    - ``finish`` with outputs of the signature's types: the run's ``Prediction``;
    - ``finish`` with outputs that don't validate: the LM gets the reason and one more attempt;
    - a tool that fails, an unknown tool, a reply that can't be parsed: the LM gets one short error line and the run
      continues;
    - a call made before: it isn't repeated, and the next step can only be ``finish``. A call that failed may be made
      again, and so may one after a call of another tool, and one of a tool declared with ``repeatable``;
    - the last of ``max_iters`` steps can only be ``finish``;
    - a prompt too long for the LM: the longest observation is cut in half and the step is retried.

    Args:
        signature: the declared inputs and typed outputs; the first ``str`` output is the answer text. An output of
            type ``list[oneturn.Citation]`` can only name documents that a tool returned in the run.
        tools: functions or ``dspy.Tool``s; a function's docstring and type hints describe it to the LM.
        max_iters: the maximum number of steps of a run, ``finish`` included; at least 1.
        thoughts: whether the LM writes a thought before each call: ``True`` for a few words in the step's JSON,
            ``"free"`` (also ``None``) for reasoning in free text before the JSON of the run's first step; without tools
            the text ends in an output, and the JSON is an object of the outputs. An LM that can't be held to free text
            and JSON in one reply writes it in the JSON. A compiled program keeps the value that it was compiled with.
        parallel_calls: whether a step may contain several independent calls, which run in parallel. An LM with
            function calling may always make them.
        tool_calling: how the LM is asked for its steps: by ``"native"`` function calling, by a JSON ``"schema"`` of
            its reply, or by the prompt alone (``"text"``). ``"auto"`` chooses by what the LM can do.
        answer_last: whether ``finish`` takes the answer after the other outputs, so that they are checked before it
            streams; otherwise it takes the outputs in the declared order. A compiled program keeps the order that it
            was compiled with.
        thought_tokens: the maximum number of tokens of a thought in free text, in addition to the LM's ``max_tokens``.
        supported_citations: whether citations are replaced by the sources that hold the numbers of the answer, or its
            words. A small LM often cites all that it has read.

    Attributes:
        demo_pool: worked runs of which each question gets the most similar as demos, behind those of ``step``; ``None``
            unless a recipe sets it.

    Raises:
        ProgramError: the signature or the tools use a reserved name, ``max_iters`` or ``thought_tokens`` is below 1,
            ``tool_calling`` or ``thoughts`` is unknown, or a ``Citation`` or ``Seen`` is used where it isn't supported.
    """

    request_settings = LM_SETTINGS | {"max_tool_calls", "tools"}

    def __init__(
        self,
        signature: str | type[dspy.Signature],
        tools: Iterable[ToolLike],
        max_iters: int = 6,
        thoughts: Thoughts | None = None,
        parallel_calls: bool = False,
        tool_calling: str = "auto",
        answer_last: bool = True,
        thought_tokens: int = THOUGHT_TOKENS,
        supported_citations: bool = False,
    ):
        super().__init__()
        self.signature = dspy.ensure_signature(signature)
        self.tools = {name: with_annotated_args(tool) for name, tool in toolset(tools).items()}
        self.max_iters = max_iters
        self.thoughts = check_thoughts(thoughts)
        self.thought_tokens = thought_tokens
        self.parallel_calls = parallel_calls
        self.supported_citations = supported_citations
        self.tool_calling = check_tool_calling(tool_calling)
        self._check()
        self.order_outputs(answer_last_order(self.signature) if answer_last else self.signature.output_fields)
        self.step = dspy.Predict(_step_signature(self.signature, bool(self.thoughts), parallel_calls))
        self.demo_pool: DemoPool | None = None

    @property
    def answer_field(self) -> str | None:
        """The output field whose text is the answer: the first of type ``str``, or else ``str | None``."""
        return answer_field_of(self.signature)

    @property
    def citing_fields(self) -> tuple[str, ...]:
        """The output fields of type ``list[oneturn.Citation]``."""
        return citing_fields(self.signature)

    def order_outputs(self, names: Iterable[str]) -> None:
        """Set the order in which ``finish`` takes the outputs.

        Raises:
            ProgramError: ``names`` aren't the outputs of the signature; or see :class:`ReAct`.
        """
        order = tuple(names)
        if sorted(order) != sorted(self.signature.output_fields):
            outputs = ", ".join(self.signature.output_fields)
            raise ProgramError(f"The outputs of {self.signature.__name__} are {outputs}; got {', '.join(order)}.")
        free = self.thought_tokens if self.thoughts == "free" else 0
        self.steps_schema = StepSchema(
            self.signature, self.tools, bool(self.thoughts), self.parallel_calls, order, free
        )

    def set_thoughts(self, thoughts: Thoughts | None) -> None:
        """Set whether and how the LM writes thoughts; the instructions and the demos are kept.

        Raises:
            ProgramError: there is no such value.
        """
        self.thoughts = check_thoughts(thoughts)
        self.order_outputs(self.steps_schema.outputs)
        signature = _step_signature(self.signature, bool(self.thoughts), self.parallel_calls)
        self.step.signature = signature.with_instructions(self.step.signature.instructions)

    def shared_messages(self) -> list[dict[str, Any]]:
        """Return the messages that every run starts with: the instructions, the tools and the demos."""
        messages: list[dict[str, Any]] = self._adapter().format(self.step.signature, self.step.demos, {})
        return messages[:-1]

    def protocol(self) -> str:
        """Return the part of the prompt after the instructions: the format of a step, and the tools.

        Include it in the prompt of an instruction proposer, such as ``dspy.GEPA``'s, so that the instructions don't
        repeat it.
        """
        return self._adapter().protocol()

    def tool_calling_with(self, lm: dspy.BaseLM) -> ToolCalling:
        """Return how ``lm`` is asked for its steps: ``native``, ``schema`` or ``text``."""
        return self._adapter(lm).tool_calling

    def _adapter(self, lm: dspy.BaseLM | None = None) -> StepAdapter:
        """Return the adapter for any step with the LM; that of the local grammar if there is no LM yet."""
        lm = lm or self.step.lm or dspy.settings.lm
        names = self.steps_schema.names
        if lm is None:
            return StepAdapter(self.steps_schema, names)
        selector = AdapterSelector(lm, self.steps_schema, self.tool_calling, self.answer_field)
        return selector.adapter(names, SeenValues())

    def steps(self, **inputs: Any) -> Iterator[Step]:
        """Run the program and yield its steps as they happen, text token by token if the LM streams.

        Raises:
            ProgramError: an input is missing or unknown.
            RunError: the run ended without an answer.
        """
        return self._run(inputs, streaming=True)

    def resume(self, at: Resumption, /, **inputs: Any) -> Iterator[Step]:
        """Resume a run that ended with an ``ApprovalWanted``, with the approval or refusal in ``at``, or with calls of
        the client, which are among its finished calls.

        Finished calls aren't repeated. ``inputs`` must be the inputs of the run that waited.

        Raises:
            ProgramError: an input is missing or unknown.
            RunError: the run ended without an answer.
        """
        return self._run(inputs, streaming=True, at=at)

    def forward(self, **inputs: Any) -> dspy.Prediction:
        """Run the program to its end; the ``Prediction`` has the outputs and the ``trajectory``.

        Raises:
            ProgramError: an input is missing or unknown.
            ApprovalRequired: a call needs a person's approval; see :func:`approving_calls`.
            RunError: the run ended without an answer.
        """
        try:
            return self._run_to_end(inputs)
        except RunError as error:
            if dspy.settings.get(_CAPTURE_RUN_ERRORS):
                return dspy.Prediction(trajectory=error.trajectory, error=str(error))
            raise

    async def aforward(self, **inputs: Any) -> dspy.Prediction:
        """Run :meth:`forward` in a thread, with this task's ``dspy.context``. Cancelling the task stops the run.

        Raises:
            Exception: as :meth:`forward`.
        """
        context = RunContext(parent=current_run())
        forward = object.__getattribute__(self, "forward")  # for self.forward, DSPy logs a warning

        def run() -> dspy.Prediction:
            with context.active():
                prediction: dspy.Prediction = forward(**inputs)
                return prediction

        try:
            return await asyncio.to_thread(run)
        except asyncio.CancelledError:
            context.cancel("cancelled")
            raise

    def _run_to_end(self, inputs: dict[str, Any]) -> dspy.Prediction:
        at: Resumption | None = None
        while True:
            steps = self._run(inputs, streaming=False, at=at)
            last = next((step for step in steps if isinstance(step, Answer | ApprovalWanted)), None)
            if isinstance(last, Answer):
                return last.prediction
            if last is None:
                raise RunError("The run ended without an answer; this is a bug in oneturn.", "server_error")
            approved = ask_for_approval(last.waiting)
            if approved is None:
                turns = [turn_of(call) for call in last.finished]
                raise ApprovalRequired(last.waiting.name, last.waiting.args, turns)
            at = Resumption(last.waiting, last.finished, approved)

    def _run(self, inputs: dict[str, Any], streaming: bool, at: Resumption | None = None) -> Iterator[Step]:
        self._check_inputs(inputs)
        values = {**self._default_inputs(), **inputs}
        client = current_run().client_tools if streaming else ClientTools()
        schema = self.steps_schema.with_client_tools(client.tools) if client.tools else self.steps_schema
        caller = StepCaller(self.step, schema, self.answer_field, values, streaming, self.tool_calling, self.demo_pool)
        citing = self.citing_fields if self.supported_citations else ()
        run = Run(caller, schema, self.tools, self.answer_field, values, client, citing)
        generator = run.steps(self.max_iters) if at is None else run.resume(at, self.max_iters)
        with closing(generator) as steps:
            for step in steps:
                if isinstance(step, ToolResult) and step.usage is not None:
                    caller.usage += step.usage
                yield step

    def _check(self) -> None:
        check_field_names(self.signature)
        if reserved := _RESERVED.intersection(self.signature.fields):
            raise ProgramError(
                f"{self.signature.__name__} can't have a field named {sorted(reserved)[0]!r}; give it another name. "
                f"ReAct reserves {', '.join(sorted(_RESERVED))}."
            )
        for name in ("max_iters", "thought_tokens"):
            if (value := getattr(self, name)) < 1:
                raise ProgramError(f"{name} is {value}; it must be at least 1.")

    def _check_inputs(self, inputs: dict[str, Any]) -> None:
        fields = self.signature.input_fields
        required = {name for name, field in fields.items() if field.is_required()}
        if missing := sorted(required - set(inputs)):
            raise ProgramError(f"Input {missing[0]!r} is missing; {self.signature.__name__} takes {', '.join(fields)}.")
        if unknown := sorted(set(inputs) - set(fields)):
            raise ProgramError(f"Input {unknown[0]!r} is unknown; {self.signature.__name__} takes {', '.join(fields)}.")

    def _default_inputs(self) -> dict[str, Any]:
        fields = self.signature.input_fields.items()
        return {name: field_default(field) for name, field in fields if not field.is_required()}


def _step_signature(signature: type[dspy.Signature], thoughts: bool, parallel: bool) -> type[dspy.Signature]:
    fields: dict[str, Any] = {
        name: (field.annotation, _step_input(field_description(name, field)))
        for name, field in signature.input_fields.items()
    }
    fields["trajectory"] = (list[Turn], dspy.InputField(desc="The steps taken so far and their results."))
    if thoughts:
        fields["thought"] = (str, dspy.OutputField(desc="Why this step, in a few words."))
    fields["tool_call"] = (ToolCallArgs, dspy.OutputField(desc="The tool to call next, with its arguments."))
    if parallel:
        fields["parallel_calls"] = (list[ToolCallArgs], dspy.OutputField(desc="Calls to make at the same time."))
    step_signature: type[dspy.Signature] = dspy.Signature(
        fields, signature.instructions, signature_name=f"{signature.__name__}Step"
    )
    return step_signature


def _step_input(description: str | None) -> Any:
    return dspy.InputField() if description is None else dspy.InputField(desc=description)
