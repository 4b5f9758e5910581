"""An agent over rows of questions and answers, such as those of a JSONL file, with a signature and tools."""

from __future__ import annotations

import importlib
import random
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
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
Row = tuple[str, Mapping[str, Any]]
"""Where a row stands, and its values."""


def jsonl_agent(
    data: Path, signature: str, tools: Sequence[str], metric: str, config: oneturn.AgentConfig, seed: int = 0
) -> Agent:
    """Build an agent over a file of questions.

    Args:
        data: a JSONL file. Its rows have the signature's fields, and optionally an ``id``, a ``category`` and a
            ``split`` (``train``, ``dev`` or ``test``).
        signature: DSPy's string form, such as ``"question -> answer"``. Its first output is scored.
        tools: functions, each as ``module:name``.
        metric: ``exact``, ``contains``, ``number`` (the last number of the answer), or ``module:name``.
        config: the LM and the maximum number of steps.
        seed: the seed of the random split into train, dev and test (30%, 30%, 40%), for rows without ``split``.

    Raises:
        DataError: the file lacks a field, names another split, or has too few rows.
    """
    task = dspy.ensure_signature(signature)
    scorer = _metric(metric, next(iter(task.output_fields)))
    return rows_agent(data.stem, lambda: _read(data), task, tools, scorer, config, seed)


def rows_agent(
    name: str,
    rows: Callable[[], Iterable[Row]],
    signature: type[dspy.Signature],
    tools: Sequence[str],
    metric: Metric,
    config: oneturn.AgentConfig,
    seed: int = 0,
) -> Agent:
    """Build an agent over rows.

    Args:
        name: the agent's name.
        rows: returns the rows, each with the place that errors name; called once, when examples are needed.
        signature: inputs and outputs of the program.
        tools: functions, each as ``module:name``.
        metric: scores an answer.
        config: the LM and the maximum number of steps.
        seed: the seed of the random split, for rows without ``split``.

    Raises:
        DataError: a row lacks a field or names another split, or there are too few rows.
    """

    @cache
    def split() -> dict[str, list[dspy.Example]]:
        return _split(_examples(rows(), signature), seed)

    return Agent(
        name=name,
        config=config,
        build=lambda: oneturn.ReAct(signature, tools=[_import(tool) for tool in tools], max_iters=config.max_iters),
        metric=metric,
        examples=lambda name: split()[name],
        recipes={},
        root=Path.cwd(),
        code_paths=(),
        example_questions=(),
    )


def _read(path: Path) -> Iterator[Row]:
    for place, row in read_rows(path):
        if isinstance(row, str):
            raise DataError(f"{path}, {place}: {row}")
        yield f"{path}, {place}", row


def _examples(rows: Iterable[Row], signature: type[dspy.Signature]) -> list[dspy.Example]:
    examples = []
    for number, (place, row) in enumerate(rows, start=1):
        if missing := [name for name in signature.fields if row.get(name) is None]:
            raise DataError(f"{place}: there is no {missing[0]!r}; the signature needs it.")
        fields = {"category": "all", **row, "id": str(row.get("id", number))}
        examples.append(dspy.Example(**fields).with_inputs(*signature.input_fields))
    return examples


def _split(examples: list[dspy.Example], seed: int) -> dict[str, list[dspy.Example]]:
    if any("split" in example for example in examples):
        return _given_splits(examples)
    if len(examples) < 10:
        raise DataError(f"There are {len(examples)} rows; a split into train, dev and test needs 10 or more.")
    shuffled = random.Random(seed).sample(examples, len(examples))  # not for security
    train = round(len(shuffled) * PARTS["train"])
    dev = train + round(len(shuffled) * PARTS["dev"])
    return {"train": shuffled[:train], "dev": shuffled[train:dev], "test": shuffled[dev:]}


def _given_splits(examples: list[dspy.Example]) -> dict[str, list[dspy.Example]]:
    splits: dict[str, list[dspy.Example]] = {name: [] for name in PARTS}
    for example in examples:
        if (name := example.get("split")) not in splits:
            raise DataError(f"Row {example.id}: its split is {name!r}; it must be one of {', '.join(splits)}.")
        splits[name].append(example)
    if empty := [name for name, rows in splits.items() if not rows]:
        raise DataError(f"The split {empty[0]!r} has no rows; each of {', '.join(splits)} needs some.")
    return splits


def _import(path: str) -> Any:
    module, _, name = path.partition(":")
    return getattr(importlib.import_module(module), name)


def _metric(name: str, field: str) -> Metric:
    matches: dict[str, Callable[[str, str], bool]] = {
        "exact": lambda gold, answer: _normalize(gold) == _normalize(answer),
        "contains": lambda gold, answer: _normalize(gold) in _normalize(answer),
        "number": lambda gold, answer: _last_number(gold) == _last_number(answer) is not None,
    }
    if name not in matches:
        custom: Metric = _import(name)
        return custom

    def metric(gold: dspy.Example, pred: Any, trace: Any = None, pred_name: Any = None, pred_trace: Any = None) -> Any:
        expected, answer = str(gold[field]), str(getattr(pred, field, ""))
        score = float(matches[name](expected, answer))
        if pred_name is None:
            return score
        feedback = "Right." if score else f"{answer!r} is wrong; it should be {expected!r}."
        return dspy.Prediction(score=score, feedback=feedback)

    return metric


def _normalize(text: str) -> str:
    return " ".join(re.sub(r"[^\w\s.%-]", " ", text.casefold()).split()).strip(" .")


def _last_number(text: str) -> float | None:
    numbers = _NUMBER.findall(text)
    return float(numbers[-1].replace(",", "")) if numbers else None
