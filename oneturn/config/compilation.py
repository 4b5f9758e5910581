"""How prompts are compiled, and versions judged, as a configuration declares it."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import BeforeValidator, Field, field_validator

from oneturn.config.base import Count, Section
from oneturn.config.lm import LMConfig, model_named


class BudgetConfig(Section):
    """What a compile may cost at most; it ends with the best program so far."""

    lm_calls: Count | None = None
    """LM calls; null for no limit."""
    tokens: Count | None = None
    """Tokens read and written; null for no limit."""
    minutes: Annotated[float, Field(gt=0)] | None = None
    """Minutes of work, over all starts; null for no limit."""
    cost: Annotated[float, Field(gt=0)] | None = None
    """US dollars, where the prices are known; null for no limit."""


class CompileConfig(Section):
    """How the prompts are compiled."""

    recipe: str = "random_search"
    """The recipe's name."""
    seed: Annotated[int, Field(ge=0)] = 0
    """What its random choices start from: the same seed, the same choices."""
    dev_examples: Count | None = None
    """How many examples of the development split candidates are judged on, the first ones; null for all."""
    threads: Count = 1
    """Examples at the same time. The embedded LM uses all cores for one: more doesn't make it faster."""
    teacher: Annotated[LMConfig | None, BeforeValidator(model_named)] = None
    """The LM that shows how it is done, proposes instructions or reflects on failures: a model string, or a section;
    null for the agent's own."""
    budget: BudgetConfig = BudgetConfig()
    """What a compile may cost at most."""


class GateConfig(Section):
    """When a version may become the champion: `oneturn promote`."""

    alias: str = "champion"
    """The alias of the registered model that is moved."""
    min_difference: float = 0.0
    """The lower bound of the difference's 95% interval must be above this."""
    max_category_loss: Annotated[float, Field(ge=0)] = 0.10
    """No category may lose more than this."""
    category: str = "category"
    """The examples' label that says their category."""
    min_category_examples: Count = 5
    """Categories with fewer examples are judged together, as one."""
    min_examples: Count = 10
    """Fewer examples than this can't tell two versions apart: the rule doesn't hold."""


class JudgeConfig(Section):
    """Which LM judges answers, beside the metric, in `oneturn evaluate`."""

    model: str | None = None
    """MLflow's URI of the judge's LM, such as `openai:/gpt-4.1-mini`, `endpoints:/<name>` or `databricks`; null for no
    judge."""
    guidelines: list[str] = []
    """What answers must keep to, a sentence each; judged as one more column."""
    min_kappa: Annotated[float, Field(ge=-1, le=1)] = 0.6
    """A judge that agrees less with people than this (Cohen's kappa) is flagged by `oneturn judge`."""

    @field_validator("model")
    @classmethod
    def _is_a_uri(cls, model: str | None) -> str | None:
        if model is not None and model != "databricks" and not re.fullmatch(r"[\w-]+:/+[^/\s].*", model):
            raise ValueError(f"should be an MLflow URI, such as 'openai:/gpt-4.1-mini' or 'databricks', not {model!r}")
        return model
