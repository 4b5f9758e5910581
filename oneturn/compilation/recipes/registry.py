"""The recipes of an agent: its own choice, or all recipes of the engine."""

from __future__ import annotations

from collections.abc import Mapping

from oneturn.agent import Agent
from oneturn.compilation.recipes.calling import Recipe, chain
from oneturn.compilation.recipes.demo_counts import demo_curve, demos_per_question
from oneturn.compilation.recipes.demo_search import random_search
from oneturn.compilation.recipes.demos import bootstrap, bootstrap_random_search, labelled, scripted
from oneturn.compilation.recipes.instructions import gepa, miprov2, simba
from oneturn.compilation.recipes.thinking import thoughts

scripted_then_gepa = chain(
    scripted,
    gepa,
    when="Use it when both are worth it: demos show the steps, GEPA improves the instructions for the rest.",
)

RECIPES: Mapping[str, Recipe] = {
    "labelled": labelled,
    "thoughts": thoughts,
    "scripted": scripted,
    "random_search": random_search,
    "bootstrap": bootstrap,
    "bootstrap_random_search": bootstrap_random_search,
    "demo_curve": demo_curve,
    "demos_per_question": demos_per_question,
    "miprov2": miprov2,
    "simba": simba,
    "gepa": gepa,
    "scripted_then_gepa": scripted_then_gepa,
}
"""All recipes by name."""


def recipes_of(agent: Agent) -> Mapping[str, Recipe]:
    """Return the recipes that an agent declares; all of :data:`RECIPES` if it declares none."""
    return RECIPES if agent.recipes is None else agent.recipes
