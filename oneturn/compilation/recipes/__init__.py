"""Recipes that compile prompts: each is one of DSPy's optimizers with settings and a cost estimate.

The first line of a recipe's docstring says when to use it. The settings keep each recipe within 270 runs of the program
for 99 training and 24 development examples: three quarters of an hour on the embedded LM, at ten seconds per run. None
depends on an agent's metric or columns; a ``category`` is used if examples have one.
"""

from oneturn.compilation.recipes.calling import Recipe, chain, with_options
from oneturn.compilation.recipes.demo_counts import demo_curve, demos_per_question
from oneturn.compilation.recipes.demo_search import random_search
from oneturn.compilation.recipes.demos import bootstrap, bootstrap_random_search, labelled, scripted
from oneturn.compilation.recipes.instructions import gepa, miprov2, simba
from oneturn.compilation.recipes.registry import RECIPES, recipes_of, scripted_then_gepa
from oneturn.compilation.recipes.thinking import thoughts
from oneturn.compilation.recipes.work import Work, recipe

__all__ = [
    "RECIPES",
    "Recipe",
    "Work",
    "bootstrap",
    "bootstrap_random_search",
    "chain",
    "demo_curve",
    "demos_per_question",
    "gepa",
    "labelled",
    "miprov2",
    "random_search",
    "recipe",
    "recipes_of",
    "scripted",
    "scripted_then_gepa",
    "simba",
    "thoughts",
    "with_options",
]
