"""A run inside a tool call: how deep, how long, stopped with the run around it, its failures one short line."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TypeVar

import dspy

from oneturn.control import RunControl, current
from oneturn.errors import AgentError, EndpointError, ProgramError, RunCancelled, ToolError
from oneturn.programs.callback import inside_another_run
from oneturn.responses.failures import told
from oneturn.spend import Spend, spending
from oneturn.tools.errors import told_to_lm

MAX_DEPTH = 5
"""How many agents may stand below each other, each a tool of the one above."""

# Kept in DSPy's settings, which dspy.Parallel hands to its threads; they don't get the context.
_DEPTH = "oneturn_agent_depth"
_log = logging.getLogger(__name__)

T = TypeVar("T")


def nested(name: str, timeout: float | None, run: Callable[[Spend], T]) -> T:
    """Call ``run`` with what counts its cost; it is a part of the tool call that this is called in.

    Args:
        name: the tool's.
        timeout: seconds that it may take; ``None`` for no limit but the outer run's.
        run: does the work; ``oneturn.control.current()`` tells it when to stop.

    Raises:
        ToolError: whatever ``run`` raises, in one line; its time is over; or agents call each other too deep.
        RunCancelled: the run around it has to stop.
    """
    depth = (dspy.settings.get(_DEPTH) or 0) + 1
    if depth > MAX_DEPTH:
        raise ToolError(f"agents have called each other {MAX_DEPTH} deep; answer without {name}")
    outer = current()
    control = RunControl(timeout, outer, outer.on_progress)
    try:
        with (
            control.active(),
            dspy.context(**{_DEPTH: depth, "trace": None}, **inside_another_run()),
            spending() as spend,
        ):
            return run(spend)
    except ToolError:
        raise
    except RunCancelled as stopped:
        outer.check()
        over = timeout is not None and control.reason == "deadline_exceeded"
        raise ToolError(
            f"the tool took longer than its {timeout:g} s" if over else _unanswered(stopped.reason)
        ) from None
    except Exception as error:  # whatever another agent raises is the LM's to read, never the outer run's end
        raise ToolError(_unanswered_for(error, name)) from None
    finally:
        control.cancel("abandoned")


def check_declared(name: str, timeout: float | None) -> None:
    """Refuse a name that no LM could call, and a time that is none.

    Raises:
        ProgramError: it is so.
    """
    if not name.replace("-", "_").isidentifier() or not name.isascii() or len(name) > 64:
        raise ProgramError(f"{name!r} is no name of a tool; use at most 64 letters, digits and underscores.")
    if timeout is not None and not timeout > 0:
        raise ProgramError(f"The timeout of {name!r} is {timeout!r} s; it must be above 0.")


def _unanswered_for(error: Exception, name: str) -> str:
    ours = told(error)
    failure = error if isinstance(error, EndpointError) else ours  # an endpoint's own code says more to the LM
    if failure.code == "server_error" and not isinstance(error, AgentError | EndpointError):
        _log.error("The agent %r failed inside a tool call.", name, exc_info=error)
    if failure.code == "invalid_request" or failure.status in (400, 422):  # it tells what to ask otherwise
        return told_to_lm(ToolError(f"the agent refused the request: {failure}"))
    return _unanswered(failure.code)


def _unanswered(code: str) -> str:
    return told_to_lm(ToolError(f"the agent gave no answer ({code}); do without it, or ask it otherwise"))
