"""The columns of an example that a metric needs, read from its source, so that a missing one is found at once."""

from __future__ import annotations

import ast
import functools
import inspect
import itertools
import textwrap
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from types import FunctionType
from typing import Any

import dspy

from oneturn.errors import DataError

_MAX_DEPTH = 6
_EXAMPLE_NAMES = frozenset(dir(dspy.Example))
SAMPLE = 1000
"""The number of examples whose columns are read."""


def check_columns(metrics: Mapping[str, Callable[..., Any]], examples: Iterable[Any]) -> None:
    """Check that the examples have the columns that the metrics need.

    Args:
        metrics: the metrics by name.
        examples: the examples; the first 1,000 are read, and what isn't an example is skipped.

    Raises:
        DataError: a metric reads a column, whatever the answer is, that no example has.
    """
    needed = {name: required_columns(metric) for name, metric in metrics.items()}
    if not any(needed.values()):
        return
    sample = [each for each in itertools.islice(examples, SAMPLE) if isinstance(each, dspy.Example)]
    columns = list(dict.fromkeys(str(name) for each in sample for name in each.keys()))  # noqa: SIM118  # not a dict
    for name, required in needed.items():
        if sample and (missing := sorted(required - set(columns))):
            raise DataError(
                f"The metric {name!r} needs the column {missing[0]!r}, and no row has it; the columns are "
                f"{', '.join(columns)}. Add it, or read it in the metric with example.get({missing[0]!r})."
            )


def required_columns(metric: Callable[..., Any]) -> set[str]:
    """The columns that a metric, and functions it passes the example to, read outside of branches and loops.

    Partial and decorated functions and callable objects are read like what they call. What is read after an early
    ``return`` counts: few data sets have no row that gets there. Empty if the columns can't be determined: there is no
    source, or the example's name is rebound. A column that is read in a ``try`` block, or also tested
    (``example.get("x")``, ``hasattr(example, "x")``, ``"x" in example``), isn't needed.
    """
    return _required(metric, 0, 0, set())


@dataclass(frozen=True)
class _Function:
    """The function that a call runs, without the objects around it: methods, partials, callable objects.

    Attributes:
        function: the function.
        position: the position of the example among its arguments.
        owner: the object that it is a method of.
    """

    function: FunctionType
    position: int
    owner: Any = None


def _unwrap(called: Any, position: int) -> _Function | None:
    owner = None
    for _ in range(_MAX_DEPTH):
        if inspect.isfunction(called):
            return _Function(called, position, owner)
        if isinstance(called, functools.partial):
            called, position = called.func, position + len(called.args)
        elif inspect.ismethod(called):
            called, position, owner = called.__func__, position + 1, called.__self__
        elif not callable(called) or inspect.isclass(called) or inspect.isroutine(called):
            return None
        else:
            called = getattr(called, "__wrapped__", None) or called.__call__
    return None


def _required(called: Any, position: int, depth: int, seen: set[Any]) -> set[str]:
    unwrapped = _unwrap(called, position)
    if unwrapped is None or depth > _MAX_DEPTH or unwrapped.function in seen:
        return set()
    function, position = unwrapped.function, unwrapped.position
    seen.add(function)
    node = _parsed(function)
    parameters = function.__code__.co_varnames[: function.__code__.co_argcount]
    if node is None:
        return set()
    is_passed_on = position >= len(parameters)  # in *args, as in the wrapper that a decorator returns
    name = None if is_passed_on else parameters[position]
    passed_on = node.args.vararg.arg if is_passed_on and node.args.vararg else None
    nodes = list(ast.walk(node))
    assigned = {each.id for each in nodes if isinstance(each, ast.Name) and not isinstance(each.ctx, ast.Load)}
    if not assigned.isdisjoint({name, passed_on}):
        return set()
    mentioned = {text for each in nodes for text in _guarded(each, name)}
    columns: set[str] = set()
    body = node.body if isinstance(node.body, list) else [node.body]
    for each in itertools.chain.from_iterable(map(_unconditional, body)):
        if isinstance(each, ast.Attribute) and _is(each.value, name) and each.attr not in _EXAMPLE_NAMES | mentioned:
            columns.add(each.attr)
        elif isinstance(each, ast.Subscript) and _is(each.value, name) and isinstance(each.slice, ast.Constant):
            columns.add(str(each.slice.value))
        elif isinstance(each, ast.Call):
            for index, argument in enumerate(each.args):
                if _is(argument, name):
                    columns |= _required(_resolve(unwrapped, each.func), index, depth + 1, seen)
                elif isinstance(argument, ast.Starred) and _is(argument.value, passed_on):
                    place = position - len(parameters) + index
                    columns |= _required(_resolve(unwrapped, each.func), place, depth + 1, seen)
    return columns


def _parsed(function: FunctionType) -> ast.FunctionDef | ast.Lambda | None:
    """The definition of a function; ``None`` if its source isn't available, or has several lambdas like it."""
    try:  # the source of the code: that of a decorated function is the decorator's
        tree = ast.parse(textwrap.dedent(inspect.getsource(function.__code__)))
    except (OSError, TypeError, SyntaxError):  # no file, or a lambda inside an unfinished expression
        return None
    kind = ast.Lambda if function.__code__.co_name == "<lambda>" else ast.FunctionDef
    found = [node for node in ast.walk(tree) if isinstance(node, kind)]
    if kind is ast.Lambda:
        parameters = list(function.__code__.co_varnames[: function.__code__.co_argcount])
        found = [node for node in found if [each.arg for each in node.args.posonlyargs + node.args.args] == parameters]
        return found[0] if len(found) == 1 else None
    return found[0] if found else None


def _unconditional(node: ast.AST) -> Iterator[ast.AST]:
    """The nodes that run whenever ``node`` does: no branches, loops' bodies, later operands or nested functions."""
    yield node
    children: Iterable[ast.AST]
    if isinstance(node, ast.If | ast.IfExp | ast.While):
        children = [node.test]
    elif isinstance(node, ast.For):
        children = [node.iter]
    elif isinstance(node, ast.BoolOp):
        children = node.values[:1]
    elif isinstance(node, ast.Compare):
        children = [node.left, node.comparators[0]]
    elif isinstance(node, ast.ListComp | ast.SetComp | ast.DictComp | ast.GeneratorExp):
        children = [node.generators[0].iter]
    elif isinstance(node, ast.With) and any("suppress" in ast.unparse(each) for each in node.items):
        children = node.items
    elif isinstance(node, ast.Try | ast.Lambda | ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.Match):
        children = []
    else:
        children = ast.iter_child_nodes(node)
    for child in children:
        yield from _unconditional(child)


def _guarded(node: ast.AST, name: str | None) -> Iterator[str]:
    """The columns that an expression tests."""
    operands: list[ast.expr] = []
    if isinstance(node, ast.Call):
        operands = [*node.args, *([node.func.value] if isinstance(node.func, ast.Attribute) else [])]
    elif isinstance(node, ast.Compare):
        operands = [node.left, *node.comparators]
    if any(_is(each, name) for each in operands):
        yield from (each.value for each in operands if isinstance(each, ast.Constant) and isinstance(each.value, str))


def _is(node: ast.AST, name: str | None) -> bool:
    return isinstance(node, ast.Name) and node.id == name


def _resolve(caller: _Function, node: ast.AST) -> Any:
    """The function that an expression in ``caller`` names: ``f``, ``module.f`` or ``self.f``; ``None`` for others."""
    if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
        is_owner = caller.owner is not None and node.value.id == caller.function.__code__.co_varnames[0]
        owner = caller.owner if is_owner else _variable(caller.function, node.value.id)
        return getattr(owner, node.attr, None) if is_owner or inspect.ismodule(owner) else None
    return _variable(caller.function, node.id) if isinstance(node, ast.Name) else None


def _variable(function: FunctionType, name: str) -> Any:
    cells = dict(zip(function.__code__.co_freevars, function.__closure__ or (), strict=True))
    if name in cells:
        try:
            return cells[name].cell_contents
        except ValueError:  # not assigned yet
            return None
    return function.__globals__.get(name)
