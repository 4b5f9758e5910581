"""An agent for questions that nobody here wrote: any JSONL of questions and answers, a signature, tools."""

from __future__ import annotations

import importlib
import random
import re
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import dspy

import oneturn
from oneturn import Agent
from oneturn.datasets import read_rows
from oneturn.errors import DataError

PARTS = {"train": 0.3, "dev": 0.3, "test": 0.4}
_NUMBER = re.compile(r"-?\d[\d,]*(?:\.\d+)?")

Metric = Callable[..., float]


def outside_agent(
    data: Path, signature: str, tools: Sequence[str], metric: str, config: oneturn.AgentConfig, seed: int = 0
) -> Agent:
    """An agent over a file of questions.

    Args:
        data: JSONL; its rows have the signature's fields, and may have an ``id``, a ``category``, and a ``split``
            (``train``, ``dev`` or ``test``), as a benchmark has its own.
        signature: DSPy's short form, such as ``"question -> answer"``. Its first output is what is judged.
        tools: functions, each as ``module:name``.
        metric: ``exact``, ``contains``, ``number`` (the last number of the answer), or ``module:name``.
        config: which LM, how many steps.
        seed: of the split into train, dev and test, 30%, 30% and 40% of the rows, where the rows don't say theirs.

    Raises:
        DataError: the file lacks a field, names another split, or has too few rows.
    """
    declared = dspy.ensure_signature(signature)

    @cache
    def split() -> dict[str, list[dspy.Example]]:
        return _split(_examples(data, declared), seed)

    return Agent(
        name=data.stem,
        config=config,
        build=lambda: oneturn.ReAct(declared, tools=[_named(tool) for tool in tools], max_iters=config.max_iters),
        metric=_metric(metric, next(iter(declared.output_fields))),
        examples=lambda name: split()[name],
        recipes={},
        root=Path.cwd(),
        code_paths=(),
        example_questions=(),
    )


def _examples(path: Path, signature: type[dspy.Signature]) -> list[dspy.Example]:
    found = []
    for number, (place, row) in enumerate(read_rows(path), start=1):
        if isinstance(row, str):
            raise DataError(f"{path}, {place}: {row}")
        if missing := [name for name in signature.fields if row.get(name) is None]:
            raise DataError(f"{path}, {place}: there is no {missing[0]!r}; the signature has it.")
        known = {"category": "all", **row, "id": str(row.get("id", number))}
        found.append(dspy.Example(**known).with_inputs(*signature.input_fields))
    return found


def _split(examples: list[dspy.Example], seed: int) -> dict[str, list[dspy.Example]]:
    if any("split" in example for example in examples):
        return _as_told(examples)
    if len(examples) < 10:
        raise DataError(f"There are {len(examples)} rows; 10 or more can be split into train, dev and test.")
    shuffled = random.Random(seed).sample(examples, len(examples))  # no secret: a draw
    train = round(len(shuffled) * PARTS["train"])
    dev = train + round(len(shuffled) * PARTS["dev"])
    return {"train": shuffled[:train], "dev": shuffled[train:dev], "test": shuffled[dev:]}


def _as_told(examples: list[dspy.Example]) -> dict[str, list[dspy.Example]]:
    found: dict[str, list[dspy.Example]] = {name: [] for name in PARTS}
    for example in examples:
        if (name := example.get("split")) not in found:
            raise DataError(f"Row {example.id}: its split is {name!r}; it must be one of {', '.join(found)}.")
        found[name].append(example)
    if empty := [name for name, rows in found.items() if not rows]:
        raise DataError(f"No row is of the split {empty[0]!r}; each of {', '.join(found)} needs some.")
    return found


def _named(place: str) -> Any:
    module, _, name = place.partition(":")
    return getattr(importlib.import_module(module), name)


def _metric(name: str, field: str) -> Metric:
    judges: dict[str, Callable[[str, str], bool]] = {
        "exact": lambda gold, given: _plain(gold) == _plain(given),
        "contains": lambda gold, given: _plain(gold) in _plain(given),
        "number": lambda gold, given: _last_number(gold) == _last_number(given) is not None,
    }
    if name not in judges:
        found: Metric = _named(name)
        return found

    def judge(gold: dspy.Example, pred: Any, trace: Any = None, pred_name: Any = None, pred_trace: Any = None) -> Any:
        wanted, given = str(gold[field]), str(getattr(pred, field, ""))
        score = float(judges[name](wanted, given))
        if pred_name is None:
            return score
        told = "Right." if score else f"{given!r} is wrong; it should be {wanted!r}."
        return dspy.Prediction(score=score, feedback=told)

    return judge


def _plain(text: str) -> str:
    return " ".join(re.sub(r"[^\w\s.%-]", " ", text.casefold()).split()).strip(" .")


def _last_number(text: str) -> float | None:
    found = _NUMBER.findall(text)
    return float(found[-1].replace(",", "")) if found else None
