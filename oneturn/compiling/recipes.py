"""Recipes: how they are called, and how two become one."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import dspy

from oneturn.compiling.estimate import declared_work, recipe
from oneturn.errors import ConfigError

Recipe = Callable[..., dspy.Module]

GIVEN = ("trainset", "valset", "metric", "seed", "threads", "teacher")
"""What a recipe can have, beside the program."""


def composed(first: Recipe, second: Recipe, *, when: str | None = None) -> Recipe:
    """A recipe that lets ``second`` work on what ``first`` has made, each with all that the compile was given.

    Args:
        first: such as one that finds demos.
        second: such as one that rewrites instructions. One that finds demos puts its own in the place of the first's.
        when: the line that says when to take it; ``None`` for those of the two.
    """

    def both(student: dspy.Module, **given: Any) -> dspy.Module:
        made = call(first, student, given)
        made._compiled = False  # an optimizer leaves a part that is marked so as it is
        return call(second, made, given)

    both.__doc__ = when or f"{_first_line(first)} Then: {_first_line(second)}"
    works = [declared_work(part) for part in (first, second)]
    if works[0] is None or works[1] is None:
        return both
    before, after = works[0], works[1]
    return recipe(lambda train, dev: before(train, dev).then(after(train, dev)))(both)


def call(function: Recipe, student: dspy.Module, given: dict[str, Any]) -> dspy.Module:
    """Call a recipe with those of the arguments that it takes.

    Raises:
        ConfigError: it wants something else, too, or gives no program.
    """
    check(function)
    parameters = inspect.signature(function).parameters.values()
    takes_all = any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in parameters)
    names = {parameter.name for parameter in parameters}
    made = function(student, **{name: value for name, value in given.items() if takes_all or name in names})
    if not isinstance(made, dspy.Module):
        raise ConfigError(f"The recipe {_name(function)} gave {made!r:.80}: it must return the compiled program.")
    return made


def check(function: Recipe) -> None:
    """Raise ``ConfigError`` if a recipe wants something that no compile gives."""
    others = list(inspect.signature(function).parameters.values())[1:]
    needed = [parameter for parameter in others if parameter.kind in _NAMED and parameter.default is parameter.empty]
    if unknown := [parameter.name for parameter in needed if parameter.name not in GIVEN]:
        raise ConfigError(
            f"The recipe {_name(function)} wants {', '.join(unknown)}. Beside the program a recipe can have "
            f"{', '.join(GIVEN)}; give anything else a default."
        )


def described(recipes: dict[str, Recipe]) -> str:
    """The recipes' names, each with the line that says when to take it."""
    width = max(map(len, recipes), default=0)
    return "\n".join(f"  {name:<{width}}  {_first_line(function)}" for name, function in recipes.items())


_NAMED = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)


def _name(function: Recipe) -> str:
    return getattr(function, "__name__", type(function).__name__)


def _first_line(function: Recipe) -> str:
    return (inspect.getdoc(function) or "It doesn't say when to take it.").splitlines()[0]
