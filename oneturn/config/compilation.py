"""Configuration of compilation, promotion and the LM judge."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, field_validator

from oneturn.config.base import Count, Section
from oneturn.config.lm import LMConfig, model_named


class BudgetConfig(Section):
    """Limits of a compile; once one is reached, the compile returns the best program so far."""

    lm_calls: Count | None = None
    """Maximum number of LM calls; null for no limit."""
    tokens: Count | None = None
    """Maximum number of input and output tokens; null for no limit."""
    minutes: Annotated[float, Field(gt=0)] | None = None
    """Maximum run time in minutes, resumed runs included; null for no limit."""
    cost: Annotated[float, Field(gt=0)] | None = None
    """Maximum cost in US dollars, if prices are known; null for no limit."""


class CompileConfig(Section):
    """Prompt compilation."""

    recipe: str = "random_search"
    """The recipe's name."""
    seed: Annotated[int, Field(ge=0)] = 0
    """The random seed."""
    dev_examples: Count | None = None
    """Score candidates on N examples, spread evenly over the development split; null for all."""
    threads: Count = 1
    """Number of examples to run in parallel. The embedded LM uses all cores for one; more threads don't speed it up."""
    teacher: Annotated[LMConfig | None, BeforeValidator(model_named)] = None
    """The LM that generates demonstrations, proposes instructions or reflects on failures: a model string or a
    section; null for the agent's LM."""
    lms: list[Annotated[LMConfig, BeforeValidator(model_named)]] = []
    """Further LMs to compile for, each a model string or a section: the recipe runs once for the agent's LM and once
    for each of these, within one budget, and the front compares their programs."""
    prefer: Literal["quality", "balanced", "cost"] = "quality"
    """Which candidate of the front becomes the compiled program: the highest score, the point nearest to it at the
    lowest cost, or the cheapest without a significant loss."""
    budget: BudgetConfig = BudgetConfig()
    """Limits of a compile."""


class GateConfig(Section):
    """Criteria of `oneturn promote`."""

    alias: str = "champion"
    """The alias of the registered model to move."""
    min_difference: float = 0.0
    """The lower bound of the 95% confidence interval of the score difference must be above this."""
    max_category_loss: Annotated[float, Field(ge=0)] = 0.10
    """The maximum drop of any category's score."""
    category: str = "category"
    """The label of the examples that holds their category. Examples without one are a category of their own; with
    another label than the default, no version is promoted unless the examples have it."""
    min_category_examples: Count = 5
    """Categories with fewer examples are pooled."""
    min_examples: Count = 10
    """With fewer examples, nothing is compared and no version is promoted."""
    max_failed_rows: Annotated[float, Field(ge=0, lt=1)] = 0.1
    """The maximum share of either version's rows that failed; with more, the version isn't promoted."""


class JudgeConfig(Section):
    """The LM judge that scores answers in `oneturn evaluate`, in addition to the metric."""

    model: str | None = None
    """MLflow model URI of the judge, such as `openai:/gpt-4.1-mini`, `endpoints:/<name>` or `databricks`; null for no
    judge."""
    guidelines: list[str] = []
    """Guidelines that answers must follow, one sentence each; scored in a column of their own."""
    min_kappa: Annotated[float, Field(ge=-1, le=1)] = 0.6
    """`oneturn judge calibrate` flags a judge whose agreement with people (Cohen's kappa) is below this."""

    @field_validator("model")
    @classmethod
    def _is_a_uri(cls, model: str | None) -> str | None:
        if model is not None and model != "databricks" and not re.fullmatch(r"[\w-]+:/+[^/\s].*", model):
            raise ValueError(f"should be an MLflow URI, such as 'openai:/gpt-4.1-mini' or 'databricks', not {model!r}")
        return model
