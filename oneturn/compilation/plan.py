"""The plan of a compile, and the key that identifies the compile when it is started again."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import dspy

from oneturn.agent import Agent, Recipe
from oneturn.compilation.recipes import recipes_of
from oneturn.compilation.recipes.calling import call, check, format_recipes
from oneturn.compilation.recipes.work import work_of
from oneturn.datasets.rows import dataset_hash, spread
from oneturn.errors import ConfigError
from oneturn.evaluation.metric_columns import check_columns
from oneturn.evaluation.row import finite_metric
from oneturn.lm import build_lm
from oneturn.lm.settings import lm_settings
from oneturn.programs.state import check_savable

REFLECTOR = 7
"""Billions of parameters from which on an LM may be its own teacher. The embedded 1.5B model found nothing in 528
calls; the smallest LM of GEPA's paper (Agrawal et al. 2025, arXiv 2507.19457) has 8B parameters."""
_SIZE = re.compile(r"(?<![\w.])(\d+(?:\.\d+)?)b(?![\w])", re.IGNORECASE)
WORK = Path(".oneturn") / "compile"
"""Directory of the journals, relative to the agent's root."""


@dataclass(frozen=True)
class Plan:
    """A compile: an agent, a recipe, and the examples.

    Attributes:
        agent: the agent to compile.
        recipe: name of the recipe.
        optimize: the recipe.
        lm: the LM to compile for.
        teacher: the configured LM that generates demos and prompts; ``None`` for the LM that is compiled for.
        further_lms: further LMs to compile for, after ``lm``.
        student: the uncompiled program.
        trainset: training examples.
        devset: development examples.
        key: hash of all inputs of the compile; a restart of the same compile has the same key.
    """

    agent: Agent
    recipe: str
    optimize: Recipe
    lm: dspy.BaseLM
    teacher: dspy.BaseLM | None
    further_lms: Sequence[dspy.BaseLM]
    student: dspy.Module
    trainset: Sequence[dspy.Example]
    devset: Sequence[dspy.Example]
    key: str

    @classmethod
    def of(cls, agent: Agent, recipe: str | None) -> Plan:
        """Build the plan from the agent's configuration.

        Args:
            agent: the agent to compile.
            recipe: name of the recipe; ``None`` for the configured one.

        Raises:
            ConfigError: no recipe has that name, or it has an unknown required parameter.
            DataError: the metric needs a column that no example has.
            ProgramError: an example has an input that a compiled program can't save.
        """
        settings = agent.config.compile
        name = recipe or settings.recipe
        recipes = recipes_of(agent)
        if name not in recipes:
            raise ConfigError(f"There is no recipe {name!r}. Available recipes:\n{format_recipes(recipes)}")
        check(recipes[name])
        train, dev = agent.examples("train"), spread(agent.examples("dev"), settings.dev_examples)
        check_columns({getattr(agent.metric, "__name__", "metric"): agent.metric}, [*dev, *train])
        lm, student = agent.lm(), agent.program(compiled=False)
        for _, predictor in student.named_predictors():
            check_savable(cls.rows(train), predictor.signature)
        teacher = None if settings.teacher is None else build_lm(settings.teacher)
        further = [build_lm(each) for each in settings.lms]
        _check_names([lm, *further])
        inputs = [
            agent.name,
            name,
            settings.seed,
            settings.threads,
            agent.config.lm.model_dump(mode="json"),
            [lm_settings(each) for each in (lm, teacher or lm, *further)],
            settings.teacher and settings.teacher.model_dump(mode="json"),
            student.dump_state(),
            [dataset_hash(cls.rows(examples)) for examples in (train, dev)],
            version("dspy"),
            *([each.model_dump(mode="json") for each in settings.lms],) * bool(settings.lms),
        ]
        fingerprint = json.dumps(inputs, sort_keys=True, default=str)
        return cls(agent, name, recipes[name], lm, teacher, further, student, train, dev, _short_hash(fingerprint))

    @property
    def lms(self) -> dict[str, dspy.BaseLM]:
        """All LMs to compile for, by model string; the agent's own is the first."""
        return {each.model: each for each in (self.lm, *self.further_lms)}

    @property
    def folder(self) -> Path:
        """Directory of this compile's journal."""
        return self.agent.root / WORK / f"{self.recipe}-{self.key}"

    def reflector_warning(self) -> str | None:
        """Return a warning if the recipe needs a teacher that writes instructions, and the LM is too small to be it.

        The size is read from the model's name, such as ``local/1.5B`` or ``ollama_chat/llama3.2:3b``; an LM without a
        size in its name gets no warning.
        """
        work = work_of(self.optimize, len(self.trainset), len(self.devset))
        if self.teacher is not None or work is None or not work.reflections[1]:
            return None
        small = [(name, size) for name in self.lms if (size := _billions(name)) is not None and size < REFLECTOR]
        if not small:
            return None
        name, size = small[0]
        return (
            f"The recipe {self.recipe!r} asks an LM to write instructions, and {name} would be its own teacher. With "
            f"{size:g} billion parameters it is unlikely to find any that help: set compile.teacher to a larger LM "
            f"({REFLECTOR} billion or more), or choose a recipe that selects demos."
        )

    def run(self, teacher: dspy.LM) -> dspy.Module:
        """Run the recipe and return the compiled program.

        Args:
            teacher: the LM that generates demos and prompts.
        """
        settings = self.agent.config.compile
        arguments = {
            "trainset": list(self.trainset),
            "valset": list(self.devset),
            "metric": finite_metric(self.agent.metric),
            "seed": settings.seed,
            "threads": settings.threads,
            "teacher": teacher,
        }
        return call(self.optimize, self.student.deepcopy(), arguments)

    @staticmethod
    def rows(examples: Sequence[dspy.Example]) -> list[dict[str, Any]]:
        """Convert examples to dictionaries."""
        return [example.toDict() for example in examples]


def _billions(model: str) -> float | None:
    """Return the billions of parameters that a model's name states; ``None`` if it states none."""
    match = _SIZE.search(model)
    return float(match[1]) if match else None


def _check_names(lms: Sequence[dspy.BaseLM]) -> None:
    names = [lm.model for lm in lms]
    if repeated := [name for name in names if names.count(name) > 1]:
        raise ConfigError(
            f"compile.lms: {repeated[0]} occurs twice; the agent's LM and each of compile.lms need different models."
        )


def _short_hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:12]
