"""What is declared of a tool beyond its function, and how it holds wherever the tool is called.

``oneturn.ReAct`` looks after its tools itself. In any other ``dspy.Module`` the tool does so: its time is limited, and
a call that a person would have to approve isn't made.
"""

from __future__ import annotations

import contextvars
import functools
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import dspy

from oneturn.core.background import run_in_thread
from oneturn.core.run_context import RunContext, current_run
from oneturn.errors import ProgramError, RunCancelled, ToolError

_OPTIONS = "__oneturn_options__"


@dataclass(frozen=True)
class ToolOptions:
    """What ``oneturn.tool`` declares of a tool."""

    timeout: float | None = None
    approval: bool | Callable[..., bool] = False

    def needs_approval(self, args: Mapping[str, Any]) -> bool:
        """Whether a person has to approve a call with these arguments; a predicate that fails says yes."""
        if not callable(self.approval):
            return self.approval
        try:
            return bool(self.approval(**args))
        except Exception:  # when in doubt, a person decides
            return True


def tool(
    func: Callable[..., Any] | None = None,
    *,
    timeout: float | None = None,
    approval: bool | Callable[..., bool] = False,
) -> Any:
    """Declare more of a tool than its function says; a plain function is a tool without it.

        @oneturn.tool(timeout=60)
        def run_report(month: str) -> str:
            \"\"\"Make the report of a month.\"\"\"

    Args:
        func: the tool's function; its docstring and type hints describe it to the LM.
        timeout: seconds it may take; then it has failed, is told so by ``oneturn.cancelled()``, and the run goes on.
        approval: whether a person has to approve each call; or a function of the call's arguments that says whether.

    Returns:
        A ``dspy.Tool``; or, called without a function, a decorator that makes one.

    Raises:
        ProgramError: the timeout isn't above 0.
    """
    if timeout is not None and not timeout > 0:
        raise ProgramError(f"A tool's timeout is {timeout!r} s; it must be above 0.")

    def declare(function: Callable[..., Any]) -> dspy.Tool:
        options = ToolOptions(timeout, approval)

        @functools.wraps(function)
        def declared(*args: Any, **kwargs: Any) -> Any:
            if _ready.get() is options or not dspy.settings.caller_modules:
                return _alone(function, args, kwargs)
            return _guarded(declared.__name__, options, lambda: _alone(function, args, kwargs), kwargs)

        declared.__dict__[_OPTIONS] = options
        return dspy.Tool(declared)

    return declare if func is None else declare(func)


def options_of(tool: dspy.Tool | None) -> ToolOptions:
    """What was declared of a tool; nothing of an unknown one."""
    found = getattr(tool.func, _OPTIONS, None) if tool is not None else None
    return found or ToolOptions()


@contextmanager
def ready(options: ToolOptions) -> Iterator[None]:
    """Whoever calls a tool in the block has seen to what is declared of it."""
    token = _ready.set(options)
    try:
        yield
    finally:
        _ready.reset(token)


_ready: contextvars.ContextVar[ToolOptions | None] = contextvars.ContextVar("oneturn_ready", default=None)


def _alone(function: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
    """Call it; a tool that it calls itself isn't seen to yet."""
    token = _ready.set(None)
    try:
        return function(*args, **kwargs)
    finally:
        _ready.reset(token)


def _guarded(name: str, options: ToolOptions, call: Callable[[], Any], args: Mapping[str, Any]) -> Any:
    if options.needs_approval(args):
        raise ToolError(f"{name} needs a person's approval, and this agent can't ask for one: do without it")
    if options.timeout is None:
        return call()
    outer = current_run()
    control = RunContext(options.timeout, outer, outer.on_progress)
    try:
        with control.active():
            result = run_in_thread(lambda tell: call(), lambda told: None)
            control.check()  # what comes too late has failed
            return result
    except RunCancelled:
        outer.check()
        raise ToolError(f"the tool took longer than its {options.timeout:g} s") from None
    finally:
        control.cancel("abandoned")
