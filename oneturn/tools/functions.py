"""Functions as tools: async, generator and cached functions, ``*args``, ``**kwargs``, callables and recursive models.

``dspy.Tool`` describes a plain synchronous function correctly. This module builds the tool for the others.
"""

from __future__ import annotations

import functools
import inspect
import re
from collections.abc import Callable, Mapping
from typing import Any, get_type_hints

import dspy
import pydantic

from oneturn.core._dspy import inline_references
from oneturn.core.background import run_async
from oneturn.core.serialization import jsonable
from oneturn.errors import ProgramError, ToolError
from oneturn.tools.schemas import plain_schema

CLASHING_NAMES = frozenset({"instance", "self"})
"""Argument names that ``dspy.Tool.__call__`` uses itself."""

_WRAPPED = "__oneturn_function__"
_SECTION = re.compile(r"^(Args|Arguments|Parameters):\s*$", re.MULTILINE)
_OTHER_SECTION = re.compile(
    r"^(Returns?|Raises|Yields?|Examples?|Notes?|Attributes|References|See Also|Warnings?|Todo):", re.MULTILINE
)
_ARGUMENT = re.compile(r"^\*{0,2}(?P<name>\w+)\s*(?:\([^)]*\))?\s*:\s*(?P<text>.*)$")


def build_tool(function: Callable[..., Any]) -> dspy.Tool:
    """Return the tool of a function or another callable.

    Raises:
        ProgramError: its arguments can't be described to an LM.
    """
    if _is_plain(function):
        try:
            return dspy.Tool(function)
        except RecursionError:  # a model that refers to itself
            pass
        except (NameError, TypeError, pydantic.PydanticUserError) as error:
            raise ProgramError(f"The tool {name_of(function)!r} can't be described to an LM: {error}") from error
    return describe_callable(function)


def adapt_tool(tool: dspy.Tool) -> dspy.Tool:
    """Return a tool that can be called synchronously with the arguments that it describes, in plain schemas."""
    args = {name: plain_schema(schema) for name, schema in (tool.args or {}).items()}
    if args != tool.args:
        tool = dspy.Tool(tool.func, tool.name, tool.desc, args, tool.arg_types, tool.arg_desc)
    if is_described(tool) and not _is_plain(tool.func) and not hasattr(tool.func, _WRAPPED):
        described = describe_callable(tool.func)
        return dspy.Tool(described.func, tool.name, tool.desc, described.args, described.arg_types)
    if (function := returning(tool.func)) is not tool.func:
        return dspy.Tool(function, tool.name, tool.desc, tool.args, tool.arg_types, tool.arg_desc)
    return tool


def is_described(tool: dspy.Tool) -> bool:
    """Return whether a tool's arguments are the parameters of its function, and not declared apart, as MCP's are."""
    try:
        return bool(dspy.Tool(tool.func).args == tool.args)
    except (TypeError, ValueError):
        return False


def returning(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function that returns a value when it is called; one that already does, unchanged.

    An async function runs on the process's background event loop. The values of a generator become a list.
    """
    inner = function
    while isinstance(inner, functools.partial):
        inner = inner.func
    called = inner if inspect.isroutine(inner) else getattr(inner, "__call__", inner)  # noqa: B004
    if inspect.iscoroutinefunction(inner) or inspect.iscoroutinefunction(called):
        return _synchronous(function, function)
    if inspect.isasyncgenfunction(called):

        async def collect(*args: Any, **kwargs: Any) -> list[Any]:
            return [value async for value in function(*args, **kwargs)]

        return _synchronous(function, collect)
    if inspect.isgeneratorfunction(called):
        return functools.wraps(function)(lambda *args, **kwargs: list(function(*args, **kwargs)))
    return function


def _synchronous(function: Callable[..., Any], asynchronous: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        return run_async(functools.partial(asynchronous, *args, **kwargs))

    return call


def argument_docs(docstring: str | None) -> tuple[str, dict[str, str]]:
    """Split a docstring in Google's style into its text without the ``Args`` section, and its arguments' descriptions.

    What a function returns or raises stays in the text.
    """
    text = inspect.cleandoc(docstring or "")
    start = _SECTION.search(text)
    if start is None:
        return text, {}
    section = text[start.end() :]
    end = _OTHER_SECTION.search(section)
    rest = section[end.start() :] if end else ""
    section = section[: end.start()] if end else section
    lines = section.strip("\n").split("\n")
    indent = len(lines[0]) - len(lines[0].lstrip()) if lines else 0
    descriptions: dict[str, str] = {}
    name, after = "", []
    for line in lines:
        depth = len(line) - len(line.lstrip())
        if line.strip() and indent and depth == 0:  # a paragraph after the section
            name = ""
            after.append(line)
        elif after:
            after.append(line)
        elif (match := _ARGUMENT.match(line.strip())) and depth == indent:
            name = match["name"]
            descriptions[name] = match["text"].strip()
        elif name and line.strip():
            descriptions[name] = f"{descriptions[name]} {line.strip()}".strip()
    parts = [text[: start.start()].strip(), "\n".join(after).strip(), rest.strip()]
    return "\n\n".join(part for part in parts if part), descriptions


def _is_plain(function: Callable[..., Any]) -> bool:
    is_function = inspect.isfunction(function) or inspect.ismethod(function)  # functools.cache makes something else
    if not is_function or returning(function) is not function:
        return False
    parameters = inspect.signature(function).parameters.values()
    special = (inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.POSITIONAL_ONLY)
    return not any(parameter.kind in special or parameter.name in CLASHING_NAMES for parameter in parameters)


def name_of(function: Callable[..., Any]) -> str:
    """Return the name of the function inside a callable."""
    inner = _inner(function)
    return str(getattr(inner, "__name__", type(inner).__name__))


def _inner(function: Callable[..., Any]) -> Callable[..., Any]:
    while True:
        if isinstance(function, functools.partial):
            function = function.func
        elif hasattr(function, "__wrapped__"):
            function = function.__wrapped__
        else:
            return function


def describe_callable(function: Callable[..., Any]) -> dspy.Tool:
    """Describe a callable's arguments by its own type hints, and convert them with pydantic before each call."""
    name = name_of(function)
    try:
        parameters = _parameters(function)
        adapters = {argument: _adapter(parameter) for argument, parameter in parameters.items()}
        args = {argument: _schema(adapters[argument], parameter) for argument, parameter in parameters.items()}
    except (NameError, TypeError, ValueError, pydantic.PydanticUserError) as error:
        raise ProgramError(f"The tool {name!r} can't be described to an LM: {error}") from error
    run = returning(function)

    def call(**values: Any) -> Any:
        return _call(run, name, parameters, adapters, values)

    call.__name__ = name
    call.__dict__.update({key: value for key, value in vars(_annotated(function)).items() if key != "__wrapped__"})
    vars(call)[_WRAPPED] = function
    return dspy.Tool(call, name, _doc(function), args, {})


def argument_types(tool: dspy.Tool) -> Mapping[str, Any]:
    """Return the types of a tool's arguments, as far as they are known."""
    function = getattr(tool.func, _WRAPPED, None)
    if tool.arg_types or function is None:
        return tool.arg_types or {}
    return {name: parameter.annotation for name, parameter in _parameters(function).items()}


def _annotated(function: Callable[..., Any]) -> Any:
    """Return the function that carries the options of ``oneturn.tool``; one without attributes if there is none."""
    return function if inspect.isfunction(function) else (lambda: None)


def _doc(function: Callable[..., Any]) -> str:
    inner = _inner(function)
    if inspect.isroutine(inner):
        return inspect.getdoc(inner) or ""
    return vars(type(inner)).get("__doc__") or inspect.getdoc(type(inner).__call__) or ""


def _parameters(function: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    """Return the parameters to describe, with their resolved type hints; those that a partial function sets, not."""
    bound: set[str] = set()
    inner: Any = function
    while isinstance(inner, functools.partial):
        bound.update(inner.keywords)
        inner = inner.func
    signature = inspect.signature(function)
    source = _inner(function)
    hints = get_type_hints(source if inspect.isroutine(source) else type(source).__call__, include_extras=True)
    parameters = {}
    for name, parameter in signature.parameters.items():
        if name not in bound:
            hint = hints.get(name, Any if parameter.annotation is parameter.empty else parameter.annotation)
            parameters[name] = parameter.replace(annotation=hint)
    return parameters


def _adapter(parameter: inspect.Parameter) -> pydantic.TypeAdapter[Any]:
    hint: Any = parameter.annotation
    if parameter.kind is parameter.VAR_POSITIONAL:
        return pydantic.TypeAdapter(list[hint])
    if parameter.kind is parameter.VAR_KEYWORD:
        return pydantic.TypeAdapter(dict[str, hint])
    return pydantic.TypeAdapter(hint)


def _schema(adapter: pydantic.TypeAdapter[Any], parameter: inspect.Parameter) -> dict[str, Any]:
    schema = adapter.json_schema()
    try:
        schema = inline_references(schema)
    except RecursionError:
        schema = _cut_recursion(schema)
    if parameter.kind is parameter.VAR_POSITIONAL:
        return {**schema, "default": []}
    if parameter.kind is parameter.VAR_KEYWORD:
        return {**schema, "description": "Further arguments by name.", "default": {}}
    if parameter.default is not parameter.empty:
        return {**schema, "default": jsonable(parameter.default)}
    return schema


def _cut_recursion(schema: Mapping[str, Any]) -> dict[str, Any]:
    """Return a schema without references: a model inside itself becomes any object."""
    models = schema.get("$defs", {})

    def resolve(part: Any, parents: tuple[str, ...]) -> Any:
        if isinstance(part, list):
            return [resolve(each, parents) for each in part]
        if not isinstance(part, Mapping):
            return part
        if "$ref" not in part:
            return {key: resolve(value, parents) for key, value in part.items() if key != "$defs"}
        name = str(part["$ref"]).rsplit("/", 1)[-1]
        rest = {key: value for key, value in part.items() if key not in ("$ref", "$defs")}
        if name in parents:
            return {"type": "object", **rest}
        return {**resolve(models[name], (*parents, name)), **rest}

    resolved: dict[str, Any] = resolve(schema, ())
    return resolved


def _call(
    function: Callable[..., Any],
    name: str,
    parameters: Mapping[str, inspect.Parameter],
    adapters: Mapping[str, pydantic.TypeAdapter[Any]],
    values: Mapping[str, Any],
) -> Any:
    """Convert the arguments to their types, then call the function.

    Raises:
        ToolError: an argument is unknown or missing, or has the wrong type.
    """
    further = next((each for each, one in parameters.items() if one.kind is one.VAR_KEYWORD), None)
    unknown = {key: value for key, value in values.items() if key not in parameters}
    if unknown and further is None:
        raise ToolError(f"{name} has no argument {next(iter(unknown))!r}; it takes {', '.join(parameters) or 'none'}")
    positional: list[Any] = []
    keywords: dict[str, Any] = {}
    has_rest = any(one.kind is one.VAR_POSITIONAL and values.get(each) for each, one in parameters.items())
    for argument, parameter in parameters.items():
        is_rest = parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
        if argument not in values or (values[argument] is None and is_rest):
            if parameter.default is parameter.empty and not is_rest:
                raise ToolError(f"{name} needs the argument {argument!r}")
            if is_rest:
                continue
            value = parameter.default
        else:
            value = _convert(name, argument, adapters[argument], values[argument])
        if parameter.kind is parameter.VAR_POSITIONAL:
            positional += value
        elif parameter.kind is parameter.VAR_KEYWORD:
            keywords.update(value)
        elif parameter.kind is parameter.POSITIONAL_ONLY or (has_rest and parameter.kind is not parameter.KEYWORD_ONLY):
            positional.append(value)
        else:
            keywords[argument] = value
    if further is not None:
        item: Any = pydantic.TypeAdapter(parameters[further].annotation)
        keywords.update({key: _convert(name, key, item, value) for key, value in unknown.items()})
    return function(*positional, **keywords)


def _convert(name: str, argument: str, adapter: pydantic.TypeAdapter[Any], value: Any) -> Any:
    try:
        return adapter.validate_python(value)
    except pydantic.ValidationError as error:
        detail = error.errors()[0]
        place = ".".join(map(str, (argument, *detail["loc"])))
        raise ToolError(f"{name}: {place}: {detail['msg']}") from None
