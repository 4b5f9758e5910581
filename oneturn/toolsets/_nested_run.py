"""Run an agent inside a tool call, with a depth limit, a timeout, cancellation and one-line errors."""

from __future__ import annotations

import inspect
import json
import logging
import textwrap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar, get_args

import dspy
from mlflow.entities import Document
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from oneturn.core.fields import field_default, field_description, field_type
from oneturn.core.run_context import RunContext, current_run
from oneturn.core.serialization import jsonable
from oneturn.core.usage import CallTracker, track_usage
from oneturn.errors import AgentError, EndpointError, ProgramError, RunCancelled, ToolError
from oneturn.programs.callback import inside_another_run
from oneturn.responses.errors import to_client_error
from oneturn.responses.request import MESSAGES
from oneturn.tools.errors import to_lm_error
from oneturn.tools.registry import SourcedText

MAX_DEPTH = 5
"""Maximum nesting depth of agents that are tools of each other."""

# Stored in DSPy's settings: dspy.Parallel passes the settings to its threads, but not the context.
_DEPTH = "oneturn_agent_depth"
_log = logging.getLogger(__name__)

T = TypeVar("T")


def run_nested(name: str, timeout: float | None, run: Callable[[CallTracker], T]) -> T:
    """Return the result of ``run``, called as a part of the current tool call.

    Args:
        name: the tool's name.
        timeout: seconds until the run is stopped; ``None`` for the outer run's limit only.
        run: does the work; it gets the tracker of its LM calls. ``oneturn.core.run_context.current_run()`` signals
            cancellation.

    Raises:
        ToolError: ``run`` failed, with its error in one line; it timed out; or agents are nested too deep.
        RunCancelled: the outer run is cancelled.
    """
    depth = (dspy.settings.get(_DEPTH) or 0) + 1
    if depth > MAX_DEPTH:
        raise ToolError(f"agents are nested {MAX_DEPTH} deep, the maximum; answer without {name}")
    outer = current_run()
    control = RunContext(timeout, outer, outer.on_progress)
    try:
        with (
            control.active(),
            dspy.context(**{_DEPTH: depth, "trace": None}, **inside_another_run()),
            track_usage() as tracker,
        ):
            return run(tracker)
    except ToolError:
        raise
    except Exception as error:  # an agent's error becomes a message for the LM; it never ends the outer run
        outer.check()
        if timeout is not None and control.reason == "deadline_exceeded":  # what it waited for may fail first
            raise ToolError(f"the tool exceeded its timeout of {timeout:g} s") from None
        message = _no_answer(error.reason) if isinstance(error, RunCancelled) else _describe_failure(error, name)
        raise ToolError(message) from None
    finally:
        control.cancel("abandoned")


def validate_tool(name: str, timeout: float | None) -> None:
    """Check the name and the timeout of a tool.

    Raises:
        ProgramError: an LM can't call a tool of this name, or the timeout isn't above 0.
    """
    if not name.replace("-", "_").isidentifier() or not name.isascii() or len(name) > 64:
        raise ProgramError(f"{name!r} isn't a valid tool name; use at most 64 letters, digits and underscores.")
    if timeout is not None and not timeout > 0:
        raise ProgramError(f"The timeout of {name!r} is {timeout!r} s; it must be above 0.")


def _describe_failure(error: Exception, name: str) -> str:
    client_error = to_client_error(error)
    failure = error if isinstance(error, EndpointError) else client_error  # an endpoint's own code is more specific
    if failure.code == "server_error" and not isinstance(error, AgentError | EndpointError):
        _log.error("The agent %r failed inside a tool call.", name, exc_info=error)
    if failure.code == "invalid_request" or failure.status in (400, 422):  # the LM can correct its request
        return to_lm_error(ToolError(f"the agent refused the request: {failure}"))
    return _no_answer(failure.code)


def _no_answer(code: str) -> str:
    return to_lm_error(ToolError(f"the agent gave no answer ({code}); do without it, or rephrase the request"))


def needs_approval(name: str) -> ToolError:
    """Return the error of an agent that ended at a call of ``name``, which a person has to approve."""
    return ToolError(
        f"the agent gave no answer: its call of {name} needs a person's approval, which can't be given inside a tool "
        "call. The call was not run; do without it"
    )


_MAX_CHARS = 100


def answer_text(outputs: Mapping[str, Any], answer_field: str | None, sources: Sequence[Document]) -> SourcedText:
    """Return the answer, or all outputs as JSON if there are several, and a line with the sources and their ids."""
    only_text = list(outputs) == [answer_field]
    text = str(outputs[answer_field] or "") if answer_field and only_text else _json(outputs)
    if sources:
        text += "\n\nSources: " + "; ".join(_citation(document) for document in sources)
    return SourcedText(text, sources)


def describe_call(name: str, arguments: Mapping[str, Any]) -> str:
    """Return a short description of a tool call."""
    values = ", ".join(value if isinstance(value, str) else _json(value) for value in arguments.values())
    return describe_progress(name, values)


def describe_progress(name: str, message: str) -> str:
    """Return a short description of a tool's progress."""
    return textwrap.shorten(f"{name}: {message}" if message else name, _MAX_CHARS, placeholder=" …")


def _citation(document: Document) -> str:
    title = str(document.metadata.get("title") or "")
    return f"[{document.id}] {title}" if title and title != document.id else f"[{document.id}]"


def _json(value: Any) -> str:
    return json.dumps(jsonable(value), ensure_ascii=False)


_MEDIA_TYPES = (dspy.Image, dspy.Audio, dspy.File)


@dataclass(frozen=True)
class Argument:
    """One argument of a tool. ``default`` is ``inspect.Parameter.empty`` if it is required."""

    type: Any
    description: str | None = None
    default: Any = inspect.Parameter.empty


QUESTION = Argument(str, "The question, to be understood on its own.")


def build_tool(
    call: Callable[[dict[str, Any]], Any], name: str, description: str, arguments: Mapping[str, Argument]
) -> dspy.Tool:
    """Return a tool that calls ``call`` with its arguments as one dict."""

    def tool(**inputs: Any) -> Any:
        return call(inputs)

    kind = inspect.Parameter.KEYWORD_ONLY
    parameters = [
        inspect.Parameter(name, kind, annotation=argument.type, default=argument.default)
        for name, argument in arguments.items()
    ]
    tool.__name__ = name
    tool.__doc__ = description
    tool.__annotations__ = {name: argument.type for name, argument in arguments.items()}
    tool.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]  # inspect reads it
    descriptions = {name: argument.description for name, argument in arguments.items() if argument.description}
    return dspy.Tool(tool, name, description, arg_desc=descriptions)


def signature_arguments(signature: type[dspy.Signature]) -> dict[str, Argument]:
    """Return the signature's input fields that an LM can write, as arguments.

    A ``dspy.History`` is left out: each call is a separate conversation. A whole chat (``messages``) is replaced by its
    ``question``.

    Raises:
        ProgramError: an LM can't write a required input, such as an image.
    """
    arguments = {}
    for name, field in signature.input_fields.items():
        if name == MESSAGES:
            arguments["question"] = QUESTION
        elif _contains_type(field.annotation, _MEDIA_TYPES):
            if field.is_required():
                raise ProgramError(f"An LM can't write the input {name!r} of {signature.__name__}; give it a default.")
        elif not _contains_type(field.annotation, (dspy.History,)):
            arguments[name] = _argument(name, field)
    return arguments


def program_inputs(signature: type[dspy.Signature], arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Return the program's inputs for a tool call with these arguments."""
    inputs = dict(arguments)
    for name, field in signature.input_fields.items():
        if name == MESSAGES:
            inputs[name] = [{"role": "user", "content": inputs.pop("question")}]
        elif _contains_type(field.annotation, (dspy.History,)):
            inputs[name] = dspy.History(messages=[])
    return inputs


def model_arguments(model: type[BaseModel]) -> dict[str, Argument]:
    """Return a pydantic model's fields as arguments."""
    return {name: _argument(name, field) for name, field in model.model_fields.items()}


def _argument(name: str, field: FieldInfo) -> Argument:
    default = inspect.Parameter.empty if field.is_required() else field_default(field)
    return Argument(field_type(field), field_description(name, field), default)


def _contains_type(annotation: Any, types: tuple[Any, ...]) -> bool:
    return annotation in types or any(_contains_type(part, types) for part in get_args(annotation))
