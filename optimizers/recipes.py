"""The recipes of this agent: all of oneturn's. Those that work examples out do it with ``solve``."""

from oneturn.compilation import recipes
from oneturn.compilation.recipes import with_options
from optimizers.scripted import solve

SCRIPTED = ("scripted", "random_search", "scripted_then_gepa", "demo_curve", "demos_per_question")

RECIPES = {**recipes.RECIPES, **{name: with_options(recipes.RECIPES[name], solve=solve) for name in SCRIPTED}}
