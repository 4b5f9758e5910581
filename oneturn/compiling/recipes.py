"""Recipes: how they are called, and how two become one."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import dspy

from oneturn.compiling.estimate import declared_work, recipe

Recipe = Callable[..., dspy.Module]


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
    """Call a recipe with those of the arguments that it takes."""
    parameters = inspect.signature(function).parameters.values()
    if any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in parameters):
        return function(student, **given)
    names = {parameter.name for parameter in parameters}
    return function(student, **{name: value for name, value in given.items() if name in names})


def described(recipes: dict[str, Recipe]) -> str:
    """The recipes' names, each with the line that says when to take it."""
    width = max(map(len, recipes), default=0)
    return "\n".join(f"  {name:<{width}}  {_first_line(function)}" for name, function in recipes.items())


def _first_line(function: Recipe) -> str:
    return (inspect.getdoc(function) or "It doesn't say when to take it.").splitlines()[0]
