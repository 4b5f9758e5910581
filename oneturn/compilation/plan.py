"""What a compile is to do, and what makes it the same compile when it is started again."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import dspy

from oneturn.agent import Agent, Recipe
from oneturn.compilation.recipes import call, check, described
from oneturn.datasets.rows import dataset_hash
from oneturn.errors import ConfigError
from oneturn.lm import build_lm

WORK = Path(".oneturn") / "compile"
"""Where compiles keep their journals, in the agent's folder."""


@dataclass(frozen=True)
class Plan:
    """A compile: an agent, a recipe, and the examples.

    Attributes:
        agent: what is compiled.
        recipe: the recipe's name.
        optimize: the recipe.
        lm: the LM that is compiled for.
        teacher: the LM that shows how it is done; the same one if no other is configured.
        student: the uncompiled program.
        trainset: training examples.
        devset: development examples.
        key: the same for each start of the same compile.
    """

    agent: Agent
    recipe: str
    optimize: Recipe
    lm: dspy.BaseLM
    teacher: dspy.BaseLM
    student: dspy.Module
    trainset: Sequence[dspy.Example]
    devset: Sequence[dspy.Example]
    key: str

    @classmethod
    def of(cls, agent: Agent, recipe: str | None) -> Plan:
        """The compile that the agent's configuration describes.

        Raises:
            ConfigError: there is no recipe of that name, or it wants what no compile gives.
        """
        settings = agent.config.compile
        name = recipe or settings.recipe
        if name not in agent.recipes:
            raise ConfigError(f"There is no recipe {name!r}. Known are:\n{described(dict(agent.recipes))}")
        check(agent.recipes[name])
        train, dev = agent.examples("train"), agent.examples("dev")[: settings.dev_examples]
        lm, student = agent.lm(), agent.program(compiled=False)
        teacher = lm if settings.teacher is None else build_lm(settings.teacher)
        determined_by = [
            agent.name,
            name,
            settings.seed,
            settings.threads,
            agent.config.lm.model_dump(mode="json"),
            settings.teacher and settings.teacher.model_dump(mode="json"),
            student.dump_state(),
            [dataset_hash(cls.rows(examples)) for examples in (train, dev)],
            version("dspy"),
        ]
        told = json.dumps(determined_by, sort_keys=True, default=str)
        return cls(agent, name, agent.recipes[name], lm, teacher, student, train, dev, _short(told))

    @property
    def folder(self) -> Path:
        """Where this compile keeps its journal."""
        return self.agent.root / WORK / f"{self.recipe}-{self.key}"

    def run(self, teacher: dspy.LM) -> dspy.Module:
        """Let the recipe work.

        Args:
            teacher: the LM that shows how it is done, or thinks about prompts.
        """
        settings = self.agent.config.compile
        given = {
            "trainset": list(self.trainset),
            "valset": list(self.devset),
            "metric": self.agent.metric,
            "seed": settings.seed,
            "threads": settings.threads,
            "teacher": teacher,
        }
        return call(self.optimize, self.student.deepcopy(), given)

    @staticmethod
    def rows(examples: Sequence[dspy.Example]) -> list[dict[str, Any]]:
        """The examples as plain rows."""
        return [example.toDict() for example in examples]


def _short(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:12]
