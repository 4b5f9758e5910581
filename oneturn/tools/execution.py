"""Run the tool calls of one step in parallel, each with its own timeout, and stream their progress."""

from __future__ import annotations

import contextvars
import queue
import threading
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, replace

import dspy

from oneturn.core.background import KEEP_ALIVE, ConsumerGone, abandon, check_abandoned
from oneturn.core.run_context import RunContext, current_run
from oneturn.core.steps import Item, ToolCall, ToolProgress, ToolResult
from oneturn.core.usage import CallTracker, track_usage
from oneturn.tools.decorator import options_of
from oneturn.tools.registry import failed, run_tool

_Event = ToolProgress | ToolResult | BaseException | None


@dataclass
class _RunningCall:
    call: ToolCall
    control: RunContext
    timeout: float | None
    tracker: CallTracker
    thread: threading.Thread


def run_tools(
    tools: Mapping[str, dspy.Tool], calls: Sequence[ToolCall], keep_alive: float = KEEP_ALIVE
) -> Generator[ToolProgress | ToolResult, None, None]:
    """Run ``calls`` in parallel; yield their progress and each result as it completes.

    A result includes the usage of its tool's LM calls. A tool that exceeds its timeout fails and is cancelled. Closing
    the generator cancels all of them.

    Args:
        tools: tools by name.
        calls: the calls to run.
        keep_alive: seconds without an event after which an empty ``ToolProgress`` is yielded.

    Raises:
        RunCancelled: the run was cancelled, or its deadline passed.
        AgentError: too many calls that can't be interrupted were abandoned and are still running.
    """
    events: queue.SimpleQueue[_Event] = queue.SimpleQueue()
    control = current_run()
    check_abandoned()
    running = {call.call_id: _start(tools, call, control, events) for call in calls}
    try:
        with control.waking(lambda: events.put(None)):
            while running:
                step = _next_event(events, running, keep_alive)
                if isinstance(step, BaseException):
                    raise step
                control.check()
                yield from _timed_out(running)
                if isinstance(step, ToolResult) and running.pop(step.call_id, None) is None:
                    continue  # a late result: the timeout was already reported
                if step is not None:
                    yield step
    finally:
        for call in running.values():
            abandon(call.thread, call.control)


def _start(
    tools: Mapping[str, dspy.Tool], call: ToolCall, parent: RunContext, events: queue.SimpleQueue[_Event]
) -> _RunningCall:
    timeout = options_of(tools.get(call.name)).timeout

    def report(message: str, fraction: float | None, item: Item | None = None) -> None:
        events.put(ToolProgress(call.call_id, call.name, message, fraction, item))

    control = RunContext(timeout, parent, report)
    tracker = CallTracker()

    def work() -> None:
        with control.active():
            try:
                with track_usage(tracker):
                    result = run_tool(tools, call)
                events.put(_with_usage(result, tracker))
            except ConsumerGone:  # the call was cancelled, perhaps for its own timeout
                events.put(None)
            except BaseException as error:  # not a tool failure: raised in the run's thread
                events.put(error)

    context = contextvars.copy_context()
    thread = threading.Thread(target=context.run, args=(work,), name=f"oneturn-tool-{call.name}", daemon=True)
    thread.start()
    return _RunningCall(call, control, timeout, tracker, thread)


def _next_event(events: queue.SimpleQueue[_Event], running: Mapping[str, _RunningCall], keep_alive: float) -> _Event:
    """Return the next event; a keep-alive if there is none in time; ``None`` if a call timed out."""
    limits = [call.control.remaining() for call in running.values()]
    timeout = min([keep_alive, *(limit for limit in limits if limit is not None)])
    try:
        return events.get(timeout=timeout)
    except queue.Empty:
        if timeout < keep_alive:
            return None
        first = next(iter(running.values())).call
        return ToolProgress(first.call_id, first.name)


def _timed_out(running: dict[str, _RunningCall]) -> list[ToolResult]:
    overdue = [item for item in running.values() if item.control.reason is not None]
    for item in overdue:
        del running[item.call.call_id]
        abandon(item.thread, item.control, "deadline_exceeded")
    return [
        _with_usage(failed(item.call, f"the tool exceeded its timeout of {item.timeout:g} s"), item.tracker)
        for item in overdue
    ]


def _with_usage(result: ToolResult, tracker: CallTracker) -> ToolResult:
    return replace(result, usage=tracker.usage) if tracker.usage_data else result
