"""The recipes of this agent: all of oneturn's. Those that work examples out do it with ``solve``."""

from oneturn.compilation import Work, recipes
from oneturn.compilation.recipes import recipe, with_options
from optimizers.scripted import solve

DOCUMENTS = 2  # passages that a demo shows of a search, which finds up to four

_OPTIONS = {
    "scripted": {"documents": DOCUMENTS},
    "scripted_then_gepa": {"documents": DOCUMENTS},
    "random_search": {"documents": DOCUMENTS, "more": 1},
    "demo_curve": {},
    "demos_per_question": {},
}
_OWN = {name: with_options(recipes.RECIPES[name], solve=solve, **options) for name, options in _OPTIONS.items()}

RECIPES = {
    **recipes.RECIPES,
    **_OWN,
    "random_search": recipe(lambda train, dev: Work(runs=(4 * dev, 6 * dev), prompt_growth=(2, 4)))(
        _OWN["random_search"]
    ),
}
