"""Fingerprints of programs and functions: equal, in every process, for those that give the same results."""

from __future__ import annotations

import copy
import functools
import hashlib
import inspect
import textwrap
from collections.abc import Callable, Iterator, Mapping
from types import CodeType, FunctionType, MethodType
from typing import Any

import dspy

from oneturn.core.secrets import is_secret_name
from oneturn.core.serialization import canonical, canonical_json
from oneturn.core.settings import constructor_arguments, is_plain, named_settings, object_settings
from oneturn.lm.settings import lm_settings
from oneturn.programs.react import ReAct

_SCALARS = (str, int, float)
_OF_DSPY = frozenset([*vars(dspy.Module()), "stage"])  # a predictor's stage is random


def digest(fingerprint: Any) -> str:
    """The SHA-256 of a fingerprint."""
    return hashlib.sha256(canonical_json(fingerprint)).hexdigest()


def program_fingerprint(program: dspy.Module, lm: dspy.BaseLM | None = None) -> list[Any]:
    """Instructions, demos and tools of a program, its plain attributes, and the settings of its LMs; not its code.

    Args:
        program: the program.
        lm: the LM of predictors that have none; ``None`` for the one that DSPy is configured with.
    """
    return [
        type(program).__name__,
        _state(program),
        [_form(module) for _, module in program.named_sub_modules(ReAct)],
        [[name, _attributes(module)] for name, module in program.named_sub_modules()],
        [lm_settings(each.lm or lm or dspy.settings.lm) for _, each in program.named_predictors()],
    ]


def fingerprint(value: Any, seen: frozenset[int] = frozenset(), visited: set[Any] | None = None) -> Any:
    """A function by its source text and what is bound to it; an object by its class and its settings.

    Functions of the same module that it calls, and numbers and texts of the module, are part of it, each once.
    """
    visited = set() if visited is None else visited
    if id(value) in seen:
        return type(value).__name__
    if not isinstance(value, list | tuple | Mapping) and is_plain(value):
        return value
    part = functools.partial(fingerprint, seen=seen | {id(value)}, visited=visited)
    if isinstance(value, functools.partial):
        return ["partial", *map(part, (value.func, value.args, value.keywords))]
    if type(value) is MethodType:  # a mock with a spec is an instance by isinstance
        return [part(value.__func__), part(value.__self__)]
    if type(value) is FunctionType:
        if value in visited:
            return value.__qualname__
        visited.add(value)
        return _function(value, part)
    if isinstance(value, list | tuple):
        return list(map(part, value))
    if isinstance(value, Mapping):
        return {str(name): part(each) for name, each in value.items()}
    if isinstance(value, dspy.Module):
        return program_fingerprint(value)
    if isinstance(value, dspy.BaseLM):
        return lm_settings(value)
    if not callable(value):
        return [canonical(value), named_settings(object_settings(value))]
    kind: Any = value if isinstance(value, type) else type(value)
    call = getattr(kind, "__call__", None)  # noqa: B004  # the function, not whether there is one
    settings = {} if kind is value else {n: v for n, v in object_settings(value).items() if not is_secret_name(n)}
    name = getattr(value, "__qualname__", None)
    return [
        f"{kind.__module__}.{name if isinstance(name, str) else kind.__qualname__}",
        part(call) if inspect.isfunction(call) else None,
        part(settings),
    ]


def _state(program: dspy.Module) -> dict[str, Any]:
    """Instructions and demos, without LMs, because DSPy can't dump an LM with a custom engine."""
    return {name: _without_lm(part).dump_state() for name, part in program.named_parameters()}


def _without_lm(part: Any) -> Any:
    """A shallow copy: DSPy's deep copy of a program may share its predictors, whose LMs are in use."""
    if getattr(part, "lm", None) is None:
        return part
    copied = copy.copy(part)
    copied.lm = None
    return copied


def _form(react: ReAct) -> list[Any]:
    """What decides the answers of a ``ReAct`` besides its state."""
    schema = react.steps_schema
    tools = [(name, tool.desc, tool.args) for name, tool in react.tools.items()]
    return [react.max_iters, react.thoughts, react.thought_tokens, react.tool_calling, schema.outputs, repr(tools)]


def _attributes(module: dspy.Module) -> dict[str, Any]:
    """The texts and numbers of a module, and the lists and mappings that its constructor takes; others may grow."""
    names = constructor_arguments(type(module))
    attributes = {
        name: value
        for name, value in vars(module).items()
        if name not in _OF_DSPY
        and not isinstance(inspect.getattr_static(type(module), name, None), functools.cached_property)
        and (isinstance(value, _SCALARS) or (name.lstrip("_") in names and value is not None and is_plain(value)))
    }
    return named_settings(attributes)


def _function(function: FunctionType, part: Callable[[Any], Any]) -> list[Any]:
    code = function.__code__
    source = _source(code)
    bound = dict(zip(code.co_freevars, map(_content, function.__closure__ or ()), strict=True))
    module = {name: function.__globals__[name] for name in sorted(_names(code)) if name in function.__globals__}
    used = {
        name: value
        for name, value in module.items()
        if isinstance(value, _SCALARS)
        or (inspect.isfunction(value) and value.__globals__ is function.__globals__ and not name.startswith("__"))
    }
    # One line may have several lambdas.
    bytecode = _bytecode(code) if source is None or function.__name__ == "<lambda>" else None
    return [function.__qualname__, source, bytecode, *map(part, (function.__defaults__, function.__kwdefaults__)),
            part(bound), part(used)]  # fmt: skip


def _source(code: CodeType) -> str | None:
    try:
        return textwrap.dedent(inspect.getsource(code))
    except (OSError, TypeError):
        return None


def _content(cell: Any) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # not assigned yet
        return None


def _inner(code: CodeType) -> Iterator[CodeType]:
    return (each for each in code.co_consts if isinstance(each, CodeType))


def _names(code: CodeType) -> set[str]:
    return {*code.co_names, *(name for inner in _inner(code) for name in _names(inner))}


def _constant(value: Any) -> str:
    """The text of a constant, the same in every process: the order of a set isn't."""
    if isinstance(value, tuple | frozenset):
        parts = list(map(_constant, value))
        return f"{type(value).__name__}({', '.join(parts if isinstance(value, tuple) else sorted(parts))})"
    return repr(value)


def _bytecode(code: CodeType) -> list[Any]:
    constants = [_constant(each) for each in code.co_consts if not isinstance(each, CodeType)]
    return [code.co_code.hex(), list(code.co_names), constants, list(map(_bytecode, _inner(code)))]
