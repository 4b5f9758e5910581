"""A run inside a tool call: how deep, how long, stopped with the run around it, its failures one short line."""

from __future__ import annotations

import inspect
import json
import logging
import textwrap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, TypeVar, get_args

import dspy
from dspy.adapters.utils import serialize_for_json
from mlflow.entities import Document
from pydantic import BaseModel

from oneturn.core.run_context import RunContext, current_run
from oneturn.core.usage import Spend, spending
from oneturn.errors import AgentError, EndpointError, ProgramError, RunCancelled, ToolError
from oneturn.programs.callback import inside_another_run
from oneturn.responses.errors import to_client_error
from oneturn.responses.request import MESSAGES
from oneturn.tools.documents import SourcedText
from oneturn.tools.errors import to_lm_error

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
        run: does the work; ``oneturn.core.run_context.current_run()`` tells it when to stop.

    Raises:
        ToolError: whatever ``run`` raises, in one line; its time is over; or agents call each other too deep.
        RunCancelled: the run around it has to stop.
    """
    depth = (dspy.settings.get(_DEPTH) or 0) + 1
    if depth > MAX_DEPTH:
        raise ToolError(f"agents have called each other {MAX_DEPTH} deep; answer without {name}")
    outer = current_run()
    control = RunContext(timeout, outer, outer.on_progress)
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
    ours = to_client_error(error)
    failure = error if isinstance(error, EndpointError) else ours  # an endpoint's own code says more to the LM
    if failure.code == "server_error" and not isinstance(error, AgentError | EndpointError):
        _log.error("The agent %r failed inside a tool call.", name, exc_info=error)
    if failure.code == "invalid_request" or failure.status in (400, 422):  # it tells what to ask otherwise
        return to_lm_error(ToolError(f"the agent refused the request: {failure}"))
    return _unanswered(failure.code)


def _unanswered(code: str) -> str:
    return to_lm_error(ToolError(f"the agent gave no answer ({code}); do without it, or ask it otherwise"))


_CHARS = 100


def answer_text(outputs: Mapping[str, Any], answer_field: str | None, sources: Sequence[Document]) -> SourcedText:
    """The answer, or all outputs as JSON if there are more of them; then a line with the sources and their ids."""
    only_text = list(outputs) == [answer_field]
    text = str(outputs[answer_field] or "") if answer_field and only_text else _json(outputs)
    if sources:
        text += "\n\nSources: " + "; ".join(_named(document) for document in sources)
    return SourcedText(text, sources)


def describe_call(name: str, arguments: Mapping[str, Any]) -> str:
    """A tool call in a few words."""
    values = ", ".join(value if isinstance(value, str) else _json(value) for value in arguments.values())
    return describe_work(name, values)


def describe_work(name: str, message: str) -> str:
    """What a tool does, in a few words."""
    return textwrap.shorten(f"{name}: {message}" if message else name, _CHARS, placeholder=" …")


def _named(document: Document) -> str:
    title = str(document.metadata.get("title") or "")
    return f"[{document.id}] {title}" if title and title != document.id else f"[{document.id}]"


def _json(value: Any) -> str:
    return json.dumps(serialize_for_json(value), ensure_ascii=False)


_UNWRITABLE = (dspy.Image, dspy.Audio, dspy.File)


@dataclass(frozen=True)
class Argument:
    """One argument of a tool. ``default`` is ``inspect.Parameter.empty`` where it must be given."""

    type: Any
    description: str | None = None
    default: Any = inspect.Parameter.empty


QUESTION = Argument(str, "The question, to be understood on its own.")


def declared(
    call: Callable[[dict[str, Any]], Any], name: str, description: str, arguments: Mapping[str, Argument]
) -> dspy.Tool:
    """A tool that calls ``call`` with its arguments as one dict."""

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
    told = {name: argument.description for name, argument in arguments.items() if argument.description}
    return dspy.Tool(tool, name, description, arg_desc=told)


def of_signature(signature: type[dspy.Signature]) -> dict[str, Argument]:
    """The input fields that an LM can write, as arguments.

    A ``dspy.History`` isn't asked for: each call is a conversation of its own. In the place of a whole chat
    (``messages``) there is its ``question``.

    Raises:
        ProgramError: an input that has no default is one that no LM can write, such as an image.
    """
    arguments = {}
    for name, field in signature.input_fields.items():
        if name == MESSAGES:
            arguments["question"] = QUESTION
        elif _has(field.annotation, _UNWRITABLE):
            if field.is_required():
                raise ProgramError(
                    f"{name!r} of {signature.__name__} is no input that an LM can write; give a default."
                )
        elif not _has(field.annotation, (dspy.History,)):
            arguments[name] = _argument(name, field, (field.json_schema_extra or {}).get("desc"))
    return arguments


def inputs_for(signature: type[dspy.Signature], given: Mapping[str, Any]) -> dict[str, Any]:
    """The program's inputs for a call with these arguments."""
    inputs = dict(given)
    for name, field in signature.input_fields.items():
        if name == MESSAGES:
            inputs[name] = [{"role": "user", "content": inputs.pop("question")}]
        elif _has(field.annotation, (dspy.History,)):
            inputs[name] = dspy.History(messages=[])
    return inputs


def of_model(model: type[BaseModel]) -> dict[str, Argument]:
    """A pydantic model's fields as arguments."""
    return {name: _argument(name, field, field.description) for name, field in model.model_fields.items()}


def _argument(name: str, field: Any, description: str | None) -> Argument:
    # DSPy and pydantic keep what an Annotated type says (a bound, a pattern) beside the type.
    annotated: Any = Annotated
    parts = (field.annotation, *field.metadata)
    annotation = annotated[parts] if field.metadata else field.annotation
    default = inspect.Parameter.empty if field.is_required() else field.get_default(call_default_factory=True)
    return Argument(annotation, None if description == f"${{{name}}}" else description, default)


def _has(annotation: Any, kinds: tuple[Any, ...]) -> bool:
    return annotation in kinds or any(_has(part, kinds) for part in get_args(annotation))
