"""One run of a ``ReAct``: its loop and its mutable state."""

from __future__ import annotations

import uuid
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import dspy
from dspy.utils.exceptions import AdapterParseError, ContextWindowExceededError
from mlflow.entities import SpanType

from oneturn.core.client_tools import ClientTools
from oneturn.core.run_context import current_run
from oneturn.core.serialization import normalise_arguments
from oneturn.core.steps import (
    Answer,
    AnswerDelta,
    ApprovalWanted,
    ClientCall,
    FinishedCall,
    Resumption,
    Step,
    Thought,
    ToolCall,
    ToolResult,
    WaitingCall,
)
from oneturn.core.tracing import child_span
from oneturn.errors import RunError
from oneturn.lm.reply_ending import ReplyEnded
from oneturn.programs.react.citing import supported_citations
from oneturn.programs.react.grounding import SeenValues
from oneturn.programs.react.llm_step import Allowed, StepCall, StepCaller
from oneturn.programs.react.observations import (
    NO_CALL,
    NOT_YET,
    REFUSED,
    REPEATED,
    TOO_MANY,
    has_failed,
    refusal,
    shorten,
    turn_of_step,
)
from oneturn.programs.react.protocol import CALL_AGAIN, UNPARSABLE
from oneturn.programs.react.schema import MOST_AT_ONCE, StepSchema
from oneturn.programs.react.trajectory import ToolCallArgs, Turn, reported_calls, turn_of
from oneturn.tools.arguments import convert_arguments, invalid_arguments, needs_approval
from oneturn.tools.decorator import options_of
from oneturn.tools.execution import run_tools
from oneturn.tools.registry import FINISH, failed

_MOST_ATTEMPTS = 3
_ENDINGS = {
    "max_output_tokens": "the LM's reply was cut at its token limit; raise max_tokens",
    "content_filter": "the content filter of the LM's provider stopped the reply; change the request",
    "refusal": "the LM refused to answer: {text}",
}


class Run:
    """One run and its state; a new instance is created for each run.

    Args:
        caller: calls the LM.
        schema: the schema of a step.
        tools: the tools by name.
        answer_field: the output field that holds the answer, if there is one.
        inputs: the program's inputs.
        client: the tools that the client offers; the schema has them too.
        citing: the outputs whose citations are limited to those that support the answer.
    """

    def __init__(
        self,
        caller: StepCaller,
        schema: StepSchema,
        tools: Mapping[str, dspy.Tool],
        answer_field: str | None,
        inputs: Mapping[str, Any],
        client: ClientTools,
        citing: Sequence[str] = (),
    ):
        self.caller = caller
        self.schema = schema
        self.tools = tools
        self.answer_field = answer_field
        self.client = client
        self.citing = citing
        self.max_tool_calls = current_run().max_tool_calls
        self.calls_at_once = MOST_AT_ONCE if current_run().parallel_tool_calls else 1
        self.trajectory: list[Turn] = []
        self.seen = [str(value) for value in inputs.values()]
        self.given = len(self.seen)
        self.sources: list[str] = []
        self.finished: list[FinishedCall] = []
        self.waits = False
        self.sources_dropped = False
        self.must_finish = False
        self.repaired = False
        self.attempt = 0

    def steps(self, max_iters: int) -> Generator[Step, None, None]:
        """Take up to ``max_iters`` steps and yield them.

        Raises:
            RunError: the run ended without an answer.
        """
        remaining = max_iters
        while True:
            remaining -= 1
            call = yield from self._next_step(self._allowed(remaining))
            if call is None:
                if remaining <= 0:
                    raise self._error("invalid_output", "the LM's last reply can't be parsed as a step")
                continue
            self.attempt = call.attempt + bool(call.emitted_answer and call.call.name != FINISH)
            if call.reasoning and not call.reasoning_emitted:
                yield Thought(call.reasoning)
            if call.thought and not call.thought_emitted:
                yield Thought(call.thought)
            ends = call.call.name in self._endings
            if remaining <= 0 and not ends:
                raise self._error("max_iters", f"{max_iters} steps were taken without a {self._ending} call", call)
            if call.call.name != FINISH:
                yield from self._use_tools(call)
                if self.waits:
                    return
            elif not ends:
                self.attempt += bool(call.emitted_answer)
                self.trajectory.append(turn_of_step(call, NOT_YET.format(ending=self._ending)))
            else:
                prediction = yield from self._finish(call)
                if prediction is not None:
                    yield Answer(prediction)
                    yield self.caller.usage
                    return

    def resume(self, at: Resumption, max_iters: int) -> Generator[Step, None, None]:
        """Resume a run that waited for approval, with the decision in ``at``, or for the client's calls.

        Raises:
            RunError: the run ended without an answer.
        """
        self.sources_dropped = at.sources_dropped
        if at.unverified:
            reported = reported_calls(at.unverified)
            self.trajectory.append(Turn(observation=reported))
            self.seen.append(reported)
        for call in at.finished:
            is_error = call.output.startswith("Error: ")  # an error may repeat invented values
            self._add_finished(call, seen=not is_error)
        if (waiting := at.waiting) is not None:
            approved = ToolCallArgs(name=waiting.name, args=dict(waiting.args))
            yield from self._run_calls([approved], waiting.thought, refusal=None if at.approve else refusal(at.reason))
        taken = sum(not call.same_step for call in self.finished)
        yield from self.steps(max(1, max_iters - taken))

    @property
    def _endings(self) -> frozenset[str]:
        """The names of the calls that can end the run."""
        return frozenset(self.client.tools) if self.client.required else frozenset({FINISH})

    @property
    def _ending(self) -> str:
        return " or ".join(sorted(self._endings))

    def _allowed(self, remaining: int) -> Allowed:
        names = self.schema.names if not self.client.required else self.schema.names - {FINISH}
        if remaining <= 0 or self.must_finish:
            names = self._endings
        elif not self._may_call():
            names = self._endings | self.client.tools.keys()
        return Allowed(names, self._seen_values())

    def _may_call(self, also: int = 0) -> bool:
        """Whether the request allows another call of the run's own tools, after the finished ones and ``also``."""
        made = sum(not call.by_client for call in self.finished)
        return self.max_tool_calls is None or made + also < self.max_tool_calls

    def _seen_values(self) -> SeenValues:
        used: dict[str, list[Any]] = {}
        for turn in self.trajectory:
            if turn.tool_call is not None and not self._may_make(turn.tool_call):
                used.setdefault(turn.tool_call.name, []).extend(turn.tool_call.args.values())
        results = tuple(self.seen[self.given :])
        return SeenValues(tuple(self.seen), tuple(self.sources), used, results, self.schema.looks_up)

    def _next_step(self, allowed: Allowed) -> Generator[Step, None, StepCall | None]:
        while True:
            try:
                return (yield from self.caller.next_step(self.trajectory, allowed, self.attempt, self._is_checked))
            except AdapterParseError as error:
                self._keep_unreadable(error.lm_response)
                return None
            except ReplyEnded as ended:
                raise self._ended(ended) from ended
            except ContextWindowExceededError as error:
                if not shorten(self.trajectory):
                    raise self._error("context_length_exceeded", "the prompt is too long for the LM") from error

    def _keep_unreadable(self, reply: str) -> None:
        """Keep a reply that is no step in the chat, with one line that says so."""
        native = self.caller.tool_calling == "native"
        if native and any(turn.observation == NO_CALL for turn in self.trajectory):
            raise self._error("invalid_output", "the LM replies with text instead of the outputs")
        self.trajectory.append(Turn(reply=reply, observation=NO_CALL if native else UNPARSABLE))

    def _use_tools(self, step: StepCall) -> Generator[Step, None, None]:
        step = replace(step, calls=tuple(map(self._converted, step.calls)))
        calls = self._new_calls(step)
        if not calls:
            if (
                self.must_finish or not self.caller.narrows
            ):  # no schema stops the LM, so the error must be in its prompt
                error = REPEATED if self._may_call() else TOO_MANY
                self.trajectory.append(turn_of_step(step, error.format(ending=self._ending)))
            self.must_finish = True
            return
        clients = [call for call in calls if call.name in self.client.tools]
        waiting = [call for call in calls if call not in clients and self._needs_approval(call)]
        ready = [call for call in calls if call not in clients and call not in waiting]
        yield from self._run_calls(ready, step.thought or "", made_in=step)
        if waiting:  # only the first; the LM repeats the others later, and those of the client
            self.waits = True
            thought = "" if ready else step.thought or ""
            args = normalise_arguments(waiting[0].args)
            yield ApprovalWanted(WaitingCall(waiting[0].name, args, thought), tuple(self.finished))
            yield self.caller.usage
        elif clients:
            yield from self._leave_to_client(clients, step, same_step=bool(ready))

    def _converted(self, call: ToolCallArgs) -> ToolCallArgs:
        """Return the call with its arguments in the declared types: these are shown, signed, run and remembered."""
        if (client := self.client.tools.get(call.name)) is not None:
            return ToolCallArgs(name=call.name, args=client.convert_arguments(call.args))
        tool = self.tools.get(call.name)
        return call if tool is None else ToolCallArgs(name=call.name, args=convert_arguments(tool, call.args))

    def _new_calls(self, step: StepCall) -> list[ToolCallArgs]:
        """Return the distinct calls of a step that weren't made before, or may be repeated."""
        calls: list[ToolCallArgs] = []
        own = 0
        for call in step.calls[: self.calls_at_once]:
            if call.name == FINISH or call in calls:
                continue
            if call.name in self.client.tools:  # the client may stop a run that repeats itself
                calls.append(call)
            elif self._may_make(call) and self._may_call(own):
                calls.append(call)
                own += 1
        return calls

    def _leave_to_client(
        self, calls: Sequence[ToolCallArgs], step: StepCall, same_step: bool
    ) -> Generator[Step, None, None]:
        """End the run with the calls that fit their tools. The LM repeats the others if none does."""
        problems = [self.client.tools[call.name].invalid_arguments(call.args) for call in calls]
        fitting = [call for call, problem in zip(calls, problems, strict=True) if problem is None]
        for call in fitting:
            args = normalise_arguments(call.args)
            with child_span(call.name, SpanType.TOOL, args) as span:
                if span is not None:
                    span.set_attribute("oneturn.run_by", "client")
            yield ClientCall(f"call_{uuid.uuid4().hex[:24]}", call.name, args)
        if fitting:
            self.waits = True
            yield self.caller.usage
            return
        for call, problem in zip(calls, problems, strict=True):
            turn = Turn(thought="" if same_step else step.thought, tool_call=call, observation=f"Error: {problem}")
            self.trajectory.append(turn.in_step(same_step, step.reasoning, step.state))
            same_step = True

    def _may_make(self, call: ToolCallArgs) -> bool:
        """Whether a call wasn't made before, or may be made again.

        A repeatable one may, one whose result another tool may have changed since, and one that failed.
        """
        earlier = [index for index, turn in enumerate(self.trajectory) if turn.tool_call == call]
        if not earlier or options_of(self.tools.get(call.name)).repeatable:
            return True
        if len(earlier) >= _MOST_ATTEMPTS:
            return False
        last = self.trajectory[earlier[-1]]
        if has_failed(last):
            return call.name in self.tools and not last.observation.startswith(REFUSED)
        later = self.trajectory[earlier[-1] + 1 :]
        return any(turn.tool_call is not None and turn.tool_call.name != call.name for turn in later)

    def _needs_approval(self, call: ToolCallArgs) -> bool:
        reason = self._reason_to_reject(call.name, call.args, self._seen_values())
        return not reason and needs_approval(self.tools.get(call.name), call.args)

    def _reason_to_reject(self, name: str, args: Mapping[str, Any], seen: SeenValues) -> str | None:
        """Why a call isn't run: unseen values; or arguments that don't fit, if a person may have to approve it.

        A tool's predicate decides about the converted arguments, so none may be converted after it.
        """
        tool = self.tools.get(name)
        if reason := self.schema.ungrounded_value(name, args, seen):
            return reason
        return invalid_arguments(tool, args) if tool and options_of(tool).approval is not False else None

    def _run_calls(
        self,
        requested: Sequence[ToolCallArgs],
        thought: str,
        refusal: str | None = None,
        made_in: StepCall | None = None,
    ) -> Generator[Step, None, None]:
        """Run calls in parallel. Refused calls, and those with a reason to reject them, fail without being run."""
        seen_values = self._seen_values()
        calls = [ToolCall(f"call_{uuid.uuid4().hex[:24]}", call.name, call.args) for call in requested]
        yield from calls
        results: dict[str, ToolResult] = {}
        rejected: set[str] = set()
        for call in calls:
            if reason := refusal or self._reason_to_reject(call.name, call.args, seen_values):
                rejected.add(call.call_id)
                yield results.setdefault(call.call_id, failed(call, reason))
        for step in run_tools(self.tools, [call for call in calls if call.call_id not in rejected]):
            if isinstance(step, ToolResult):
                results[step.call_id] = step
            yield step
        for number, call in enumerate(calls):
            result = results[call.call_id]
            first = "" if number else thought
            finished = FinishedCall(call.name, call.args, first, result.output, result.documents, result.media)
            self._add_finished(finished, seen=call.call_id not in rejected)  # a rejection may repeat invented values
            if made_in is not None:
                self.trajectory[-1].in_step(bool(number), made_in.reasoning, made_in.state)

    def _add_finished(self, finished: FinishedCall, seen: bool) -> None:
        """Add a finished call to the trajectory; with ``seen``, its output counts as seen text."""
        self.finished.append(finished)
        self.trajectory.append(turn_of(finished))
        if seen:
            self.seen.append(finished.output)
        self.sources += [str(doc.id) for doc in finished.documents if str(doc.id) not in self.sources]

    def _is_checked(self, args: Mapping[str, Any]) -> bool:
        """Whether ``finish`` with these arguments can't be repaired any more, but for the answer's end."""
        if self.answer_field is None or self.client.required:
            return False
        return self.schema.is_checked(self.answer_field, self._citable(args), self._seen_values())

    def _citable(self, args: Mapping[str, Any]) -> Mapping[str, Any]:
        """The arguments of ``finish`` without citations of sources that the client left out."""
        if not self.sources_dropped:  # if it did, they are in the results' text, so the LM may cite them
            return args
        return self.schema.drop_unseen_citations(args, self._seen_values())

    def _finish(self, step: StepCall) -> Generator[Step, None, dspy.Prediction | None]:
        try:
            outputs = self.schema.validate(self._citable(step.call.args), self._seen_values(), self.repaired)
        except ValueError as error:
            self._repair(step, error)
            return None
        if self.answer_field is not None and (answer := outputs[self.answer_field]):
            given = self.seen[: self.given]
            for name in self.citing:
                outputs[name] = supported_citations(answer, outputs[name], self.finished, given)
        prediction = dspy.Prediction(trajectory=list(self.trajectory), **outputs)  # dspy.majority takes the last field
        self.caller.record(self.trajectory, step)
        if self.answer_field is not None:
            yield from self._rest_of_answer(outputs[self.answer_field], step.emitted_answer)
        return prediction

    def _rest_of_answer(self, answer: str | None, streamed: str) -> Iterator[Step]:
        answer = answer or ""
        if not answer.startswith(streamed):
            self.attempt += 1
            streamed = ""
        if rest := answer[len(streamed) :]:
            yield AnswerDelta(rest, self.attempt)

    def _repair(self, step: StepCall, error: ValueError) -> None:
        if self.repaired:
            raise self._error("invalid_output", f"the outputs don't fit the signature: {error}", step) from error
        self.repaired = self.must_finish = True
        self.attempt += bool(step.emitted_answer)
        observation = f"Error: {error}. {CALL_AGAIN}"
        self.trajectory.append(turn_of_step(step, observation))

    def _ended(self, ended: ReplyEnded) -> RunError:
        reason = _ENDINGS[ended.ending].format(text=" ".join(ended.text.split())[:200].rstrip("."))
        self.caller.record(self.trajectory, None, error=reason)
        self.caller.forget_replies()
        return RunError(f"The run ended without an answer: {reason}.", ended.ending, self.trajectory)

    def _error(self, code: str, reason: str, step: StepCall | None = None) -> RunError:
        self.caller.record(self.trajectory, step, error=reason)
        self.caller.forget_replies()
        advice = "Compile the program, raise max_iters, or take a stronger LM."
        return RunError(f"The run ended without an answer: {reason}. {advice}", code, self.trajectory)
