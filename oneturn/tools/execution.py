"""Running the tools that one step calls: together, each with its own deadline, telling how they get on."""

from __future__ import annotations

import contextvars
import queue
import threading
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, replace

import dspy

from oneturn.core.background import KEEP_ALIVE
from oneturn.core.run_context import RunContext, current_run
from oneturn.core.steps import Item, ToolCall, ToolProgress, ToolResult, Usage
from oneturn.core.usage import Spend, spending
from oneturn.tools.decorator import options_of
from oneturn.tools.registry import failed, run_tool

_Told = ToolProgress | ToolResult | BaseException | None


@dataclass
class _Working:
    call: ToolCall
    control: RunContext
    timeout: float | None
    spend: Spend


def run_tools(
    tools: Mapping[str, dspy.Tool], calls: Sequence[ToolCall], keep_alive: float = KEEP_ALIVE
) -> Generator[ToolProgress | ToolResult, None, None]:
    """Run ``calls`` at the same time; yield what they report while they work, and each result as it comes.

    A result tells what the LM calls of its tool have cost.
    A tool that takes longer than its timeout has failed, and is asked to stop. Closing the generator asks all of them.

    Raises:
        RunCancelled: the run has to stop.
    """
    told: queue.SimpleQueue[_Told] = queue.SimpleQueue()
    control = current_run()
    working = {call.call_id: _start(tools, call, control, told) for call in calls}
    try:
        with control.waking(lambda: told.put(None)):
            while working:
                step = _wait(told, working, keep_alive)
                if isinstance(step, BaseException):
                    raise step
                control.check()
                yield from _overdue(working)
                if isinstance(step, ToolResult) and working.pop(step.call_id, None) is None:
                    continue  # it came too late, and has been told as failed
                if step is not None:
                    yield step
    finally:
        for work in working.values():
            work.control.cancel("abandoned")


def _start(
    tools: Mapping[str, dspy.Tool], call: ToolCall, parent: RunContext, told: queue.SimpleQueue[_Told]
) -> _Working:
    timeout = options_of(tools.get(call.name)).timeout

    def report(message: str, fraction: float | None, item: Item | None = None) -> None:
        told.put(ToolProgress(call.call_id, call.name, message, fraction, item))

    control = RunContext(timeout, parent, report)
    spend = Spend()

    def work() -> None:
        with control.active():
            try:
                with spending(spend):
                    result = run_tool(tools, call)
                told.put(_counted(result, spend))
            except BaseException as error:  # no tool's own: it is the run's, and its thread raises it
                told.put(error)

    context = contextvars.copy_context()
    threading.Thread(target=context.run, args=(work,), name=f"oneturn-tool-{call.name}", daemon=True).start()
    return _Working(call, control, timeout, spend)


def _wait(told: queue.SimpleQueue[_Told], working: Mapping[str, _Working], keep_alive: float) -> _Told:
    """The next thing told; a sign of life if nothing is; ``None`` if somebody's time is over."""
    limits = [work.control.remaining() for work in working.values()]
    timeout = min([keep_alive, *(limit for limit in limits if limit is not None)])
    try:
        return told.get(timeout=timeout)
    except queue.Empty:
        if timeout < keep_alive:
            return None
        first = next(iter(working.values())).call
        return ToolProgress(first.call_id, first.name)


def _overdue(working: dict[str, _Working]) -> list[ToolResult]:
    over = [work for work in working.values() if work.control.reason is not None]
    for work in over:
        del working[work.call.call_id]
        work.control.cancel("deadline_exceeded")
    return [
        _counted(failed(work.call, f"the tool took longer than its {work.timeout:g} s"), work.spend) for work in over
    ]


def _counted(result: ToolResult, spend: Spend) -> ToolResult:
    return replace(result, usage=Usage(spend.lm_calls, spend.get_total_tokens())) if spend.lm_calls else result
