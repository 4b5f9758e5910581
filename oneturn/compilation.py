"""Compile an agent: measure it, let a recipe work on it, measure it again, keep what came of it."""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import datetime, timezone
from importlib.metadata import version
from pathlib import Path

import dspy

from oneturn.agent import Agent
from oneturn.compiled import Manifest, save_compiled
from oneturn.datasets import dataset_hash
from oneturn.errors import ConfigError
from oneturn.evaluation import Evaluation, evaluate
from oneturn.spend import spending


@dataclass(frozen=True)
class Compilation:
    """A compiled program with how it did before and after, on the development split."""

    program: dspy.Module
    manifest: Manifest
    before: Evaluation
    after: Evaluation
    path: Path


def compile(agent: Agent, *, recipe: str | None = None, save_to: Path | None = None) -> Compilation:
    """Compile ``agent``'s program with a recipe and save it.

    The recipe's LM calls are cached on disk, so that a compilation that was interrupted catches up in moments when the
    same command is given again. What is measured before and after isn't, to be measured as it is.

    Args:
        agent: what to compile; its configuration names LM, teacher, recipe and seed.
        recipe: the recipe's name; ``None`` for the configured one.
        save_to: where to save; ``None`` for the configured place.

    Raises:
        ConfigError: there is no recipe of that name.
    """
    settings = agent.config.compile
    name = recipe or settings.recipe
    if name not in agent.recipes:
        raise ConfigError(f"There is no recipe {name!r}; known: {', '.join(agent.recipes)}.")
    path = save_to or agent.compiled_path
    lm = agent.lm()
    trainset, devset = agent.examples("train"), agent.examples("dev")[: settings.dev_examples]
    student = agent.program(compiled=False)
    before = evaluate(student, devset, agent.metric, lm=lm, threads=settings.threads)
    started = time.perf_counter()
    with spending() as spend, dspy.context(lm=lm.copy(cache=True)):
        program = agent.recipes[name](
            student,
            trainset=trainset,
            valset=devset,
            metric=agent.metric,
            seed=settings.seed,
            threads=settings.threads,
        )
    seconds = time.perf_counter() - started
    after = evaluate(program, devset, agent.metric, lm=lm, threads=settings.threads)
    manifest = Manifest(
        recipe=name,
        lm=lm.model,
        seed=settings.seed,
        created=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        versions={package: version(package) for package in ("oneturn", "dspy", "mlflow")},
        dataset={"train": dataset_hash(_rows(trainset)), "dev": dataset_hash(_rows(devset))},
        scores={"before": before.summary(), "after": after.summary()},
        spend={**{k: float(v) for k, v in spend.to_dict().items()}, "seconds": round(seconds, 1)},
    )
    save_compiled(program, manifest, path)
    return Compilation(program, manifest, before, after, path)


def _rows(examples: list[dspy.Example]) -> list[dict[str, object]]:
    return [example.toDict() for example in examples]
