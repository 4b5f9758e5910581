"""Call recipes: with the arguments that they take, with options, and one after the other."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any

import dspy

from oneturn.compilation.recipes.work import declared_work, recipe
from oneturn.core._dspy import mark_uncompiled
from oneturn.errors import ConfigError

Recipe = Callable[..., dspy.Module]

GIVEN = ("trainset", "valset", "metric", "seed", "threads", "teacher")
"""Arguments that a recipe may take besides the program."""


def chain(first: Recipe, second: Recipe, *, when: str | None = None) -> Recipe:
    """Return a recipe that runs ``second`` on the program of ``first``; both get all arguments of the compile.

    Args:
        first: for example a recipe that selects demos.
        second: such as a recipe that rewrites instructions. A recipe that selects demos replaces those of ``first``.
        when: a line that says when to use the recipe; ``None`` to join those of the two.
    """

    def chained(student: dspy.Module, **arguments: Any) -> dspy.Module:
        program = call(first, student, arguments)
        mark_uncompiled(program)
        return call(second, program, arguments)

    chained.__doc__ = when or f"{_first_line(first)} Then: {_first_line(second)}"
    declared = [declared_work(part) for part in (first, second)]
    if declared[0] is None or declared[1] is None:
        return chained
    before, after = declared[0], declared[1]
    return recipe(lambda train, dev: before(train, dev).then(after(train, dev)))(chained)


def with_options(recipe: Recipe, **options: Any) -> Recipe:
    """Return a recipe with other values for some of its own parameters; its name, description and work stay.

        desk = with_options(oneturn.compilation.recipes.scripted, solve=solve)

    Args:
        recipe: the recipe.
        **options: values by parameter.

    Raises:
        ConfigError: the recipe has no such parameter.
    """
    parameters = inspect.signature(recipe).parameters.values()
    names = [parameter.name for parameter in parameters if parameter.kind in _NAMED][1:]
    takes_all = any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in parameters)
    if unknown := [name for name in options if name not in names and not takes_all]:
        own = [name for name in names if name not in GIVEN]
        raise ConfigError(
            f"The recipe {_name(recipe)} has no option {unknown[0]!r}; its options are {', '.join(own) or 'none'}."
        )

    @functools.wraps(recipe)
    def configured(student: dspy.Module, **arguments: Any) -> dspy.Module:
        return call(recipe, student, {**arguments, **options})

    return configured


def call(function: Recipe, student: dspy.Module, arguments: Mapping[str, Any]) -> dspy.Module:
    """Call a recipe with those of the arguments that it takes, and return its program.

    Raises:
        ConfigError: it has an unknown required parameter, or doesn't return a program.
    """
    check(function)
    parameters = inspect.signature(function).parameters.values()
    takes_all = any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in parameters)
    names = {parameter.name for parameter in parameters}
    program = function(student, **{name: value for name, value in arguments.items() if takes_all or name in names})
    if not isinstance(program, dspy.Module):
        raise ConfigError(
            f"The recipe {_name(function)} returned {program!r:.80}: it must return the compiled program."
        )
    return program


def check(function: Recipe) -> None:
    """Check the parameters of a recipe.

    Raises:
        ConfigError: a required parameter isn't one of ``GIVEN``.
    """
    parameters = list(inspect.signature(function).parameters.values())[1:]
    required = [
        parameter for parameter in parameters if parameter.kind in _NAMED and parameter.default is parameter.empty
    ]
    if unknown := [parameter.name for parameter in required if parameter.name not in GIVEN]:
        raise ConfigError(
            f"The recipe {_name(function)} requires {', '.join(unknown)}. Besides the program, a recipe may take "
            f"{', '.join(GIVEN)}; give any other parameter a default."
        )


def format_recipes(recipes: Mapping[str, Recipe]) -> str:
    """Format the names of recipes, each with the first line of its docstring."""
    width = max(map(len, recipes), default=0)
    return "\n".join(f"  {name:<{width}}  {_first_line(function)}" for name, function in recipes.items())


_NAMED = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)


def _name(function: Recipe) -> str:
    return getattr(function, "__name__", type(function).__name__)


def _first_line(function: Recipe) -> str:
    return (inspect.getdoc(function) or "(no description)").splitlines()[0]
