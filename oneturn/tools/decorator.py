"""The ``tool`` decorator: timeouts and approvals, enforced wherever the tool is called.

``oneturn.ReAct`` enforces them itself. In any other ``dspy.Module`` the tool does: it applies the timeout and refuses a
call that needs approval.
"""

from __future__ import annotations

import contextvars
import functools
import inspect
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import dspy

from oneturn.core.background import run_in_thread
from oneturn.core.run_context import RunContext, current_run
from oneturn.errors import ProgramError, RunCancelled, ToolError
from oneturn.tools.functions import describe_callable, name_of, returning

_OPTIONS = "__oneturn_options__"

MAX_CHARS = 50_000
"""The default maximum length of a tool's output."""


@dataclass(frozen=True)
class ToolOptions:
    """Options declared with ``oneturn.tool``."""

    timeout: float | None = None
    approval: bool | Callable[..., bool] = False
    repeatable: bool = False
    max_chars: int = MAX_CHARS

    def needs_approval(self, args: Mapping[str, Any]) -> bool:
        """Whether a call with these arguments needs approval; ``True`` if the predicate raises."""
        if not callable(self.approval):
            return self.approval
        try:
            return bool(self.approval(**args))
        except Exception:  # fail safe: require approval
            return True


def tool(
    func: Callable[..., Any] | None = None,
    *,
    timeout: float | None = None,
    approval: bool | Callable[..., bool] = False,
    repeatable: bool = False,
    max_chars: int = MAX_CHARS,
) -> Any:
    """Declare a tool's options. A plain function without options doesn't need the decorator.

        @oneturn.tool(timeout=60)
        def run_report(month: str) -> str:
            \"\"\"Create the report of a month.\"\"\"

    Args:
        func: the tool's function; its docstring and type hints describe it to the LM.
        timeout: time limit in seconds; after it, the call fails, ``oneturn.cancelled()`` returns ``True`` in the tool,
            and the run continues.
        approval: whether each call needs a person's approval, or a predicate over the call's arguments.
        repeatable: whether a run may repeat a call with the same arguments, because its result changes: the status of
            a job, a mailbox, a clock.
        max_chars: the maximum length of its output, in characters. A longer one is cut, lists and objects between two
            entries, and ends with ``(cut; N characters)``, its full length.

    Returns:
        A ``dspy.Tool``; without ``func``, a decorator that returns one.

    Raises:
        ProgramError: the timeout or ``max_chars`` isn't positive.
    """
    if timeout is not None and not timeout > 0:
        raise ProgramError(f"A tool's timeout is {timeout!r} s; it must be positive.")

    if max_chars < 1:
        raise ProgramError(f"A tool's max_chars is {max_chars!r}; it must be positive.")

    def declare(function: Callable[..., Any]) -> dspy.Tool:
        options = ToolOptions(timeout, approval, repeatable, max_chars)
        run = returning(function)

        @functools.wraps(function)
        def declared(*args: Any, **kwargs: Any) -> Any:
            if _enforced.get() is options or _is_called_by_a_person():
                return _call(run, args, kwargs)
            return _enforce(declared.__name__, options, lambda: _call(run, args, kwargs), kwargs)

        declared.__dict__[_OPTIONS] = options
        if not inspect.isroutine(function):
            declared.__name__ = name_of(function)
            return describe_callable(declared)
        try:
            return dspy.Tool(declared)
        except RecursionError:  # a model that refers to itself
            return describe_callable(declared)

    return declare if func is None else declare(func)


def options_of(tool: dspy.Tool | None) -> ToolOptions:
    """Return the options of a tool; defaults if it declares none or is ``None``."""
    options = getattr(tool.func, _OPTIONS, None) if tool is not None else None
    return options or ToolOptions()


@contextmanager
def options_enforced(options: ToolOptions) -> Iterator[None]:
    """Mark the tool's options as enforced by the caller inside the block."""
    token = _enforced.set(options)
    try:
        yield
    finally:
        _enforced.reset(token)


_enforced: contextvars.ContextVar[ToolOptions | None] = contextvars.ContextVar("oneturn_enforced", default=None)


def _is_called_by_a_person() -> bool:
    """Whether the call is direct, as in a notebook's cell. A module's own threads don't know that a module runs."""
    return not dspy.settings.caller_modules and threading.current_thread() is threading.main_thread()


def _refusal(name: str) -> str:
    """Say why a call without approval isn't made: to the LM in a module, to the author of the code in a thread."""
    if dspy.settings.caller_modules:
        return f"{name} needs a person's approval, which this agent can't request; continue without this call"
    return (
        f"{name} needs a person's approval, which can't be requested in the thread "
        f"{threading.current_thread().name!r}: only a direct call in the main thread counts as approved. Call it in "
        "the main thread, or call the function that oneturn.tool decorates where your own code has asked. In a tool "
        "or a module, continue without this call"
    )


def _call(function: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
    """Call the function; tools that it calls enforce their own options."""
    token = _enforced.set(None)
    try:
        return function(*args, **kwargs)
    finally:
        _enforced.reset(token)


def _enforce(name: str, options: ToolOptions, call: Callable[[], Any], args: Mapping[str, Any]) -> Any:
    if options.needs_approval(args):
        raise ToolError(_refusal(name))
    if options.timeout is None:
        return call()
    outer = current_run()
    control = RunContext(options.timeout, outer, outer.on_progress)
    try:
        with control.active():
            result = run_in_thread(lambda emit: call(), lambda event: None)
            control.check()  # a late result is a timeout
            return result
    except RunCancelled:
        outer.check()
        raise ToolError(f"the tool exceeded its timeout of {options.timeout:g} s") from None
    finally:
        control.cancel("abandoned")
