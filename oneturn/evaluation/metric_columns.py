"""The columns of an example that a metric needs, read from its source, so that a missing one is found at once."""

from __future__ import annotations

import ast
import inspect
import itertools
import textwrap
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import dspy

from oneturn.errors import DataError

_MAX_DEPTH = 6
_EXAMPLE_NAMES = frozenset(dir(dspy.Example))
_SAMPLE = 1000
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
    sample = [each for each in itertools.islice(examples, _SAMPLE) if isinstance(each, dspy.Example)]
    columns = list(dict.fromkeys(str(name) for each in sample for name in each.keys()))  # noqa: SIM118  # not a dict
    for name, required in needed.items():
        if sample and (missing := sorted(required - set(columns))):
            raise DataError(
                f"The metric {name!r} needs the column {missing[0]!r}, and no row has it; the columns are "
                f"{', '.join(columns)}. Add it, or read it in the metric with example.get({missing[0]!r})."
            )


def required_columns(metric: Callable[..., Any]) -> set[str]:
    """The columns that a metric, and functions it passes the example to, read outside of branches and loops.

    Empty if that can't be determined: there is no source, or the example's name is rebound. A column that is read in a
    ``try`` block, or also tested (``example.get("x")``, ``hasattr(example, "x")``, ``"x" in example``), isn't needed.
    """
    function = metric if inspect.isroutine(metric) else getattr(type(metric), "__call__", None)  # noqa: B004
    return _required(function, 0 if inspect.isfunction(metric) else 1, 0, set())


def _required(function: Any, position: int, depth: int, seen: set[Any]) -> set[str]:
    if inspect.ismethod(function):
        function = function.__func__
    if not inspect.isfunction(function) or depth > _MAX_DEPTH or function in seen:
        return set()
    seen.add(function)
    node = _parsed(function)
    parameters = function.__code__.co_varnames[: function.__code__.co_argcount]
    if node is None or position >= len(parameters):
        return set()
    name, nodes = parameters[position], list(ast.walk(node))
    if any(isinstance(each, ast.Name) and each.id == name and not isinstance(each.ctx, ast.Load) for each in nodes):
        return set()
    mentioned = {text for each in nodes for text in _guarded(each, name)}
    body = node.body if isinstance(node.body, list) else [node.body]
    columns: set[str] = set()
    for each in itertools.chain.from_iterable(map(_unconditional, body)):
        if isinstance(each, ast.Attribute) and _is(each.value, name) and each.attr not in _EXAMPLE_NAMES | mentioned:
            columns.add(each.attr)
        elif isinstance(each, ast.Subscript) and _is(each.value, name) and isinstance(each.slice, ast.Constant):
            columns.add(str(each.slice.value))
        elif isinstance(each, ast.Call) and isinstance(each.func, ast.Name):
            called = _resolve(function, each.func.id)
            for index, argument in enumerate(each.args):
                if _is(argument, name):
                    columns |= _required(called, index, depth + 1, seen)
    return columns


def _parsed(function: Any) -> ast.FunctionDef | ast.Lambda | None:
    """The definition of a function; ``None`` if its source isn't available, or has several lambdas."""
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(function)))
    except (OSError, TypeError, SyntaxError):  # no file, or a lambda inside an unfinished expression
        return None
    kind = ast.Lambda if function.__name__ == "<lambda>" else ast.FunctionDef
    found = [node for node in ast.walk(tree) if isinstance(node, kind)]
    if kind is ast.Lambda and len(found) != 1:
        return None
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
    elif isinstance(node, ast.Try | ast.Lambda | ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.Match):
        children = []
    else:
        children = ast.iter_child_nodes(node)
    for child in children:
        yield from _unconditional(child)


def _guarded(node: ast.AST, name: str) -> Iterator[str]:
    """The columns that an expression tests."""
    operands: list[ast.expr] = []
    if isinstance(node, ast.Call):
        operands = [*node.args, *([node.func.value] if isinstance(node.func, ast.Attribute) else [])]
    elif isinstance(node, ast.Compare):
        operands = [node.left, *node.comparators]
    if any(_is(each, name) for each in operands):
        yield from (each.value for each in operands if isinstance(each, ast.Constant) and isinstance(each.value, str))


def _is(node: ast.AST, name: str) -> bool:
    return isinstance(node, ast.Name) and node.id == name


def _resolve(function: Any, name: str) -> Any:
    cells = dict(zip(function.__code__.co_freevars, function.__closure__ or (), strict=True))
    if name in cells:
        try:
            return cells[name].cell_contents
        except ValueError:  # not assigned yet
            return None
    return function.__globals__.get(name)
