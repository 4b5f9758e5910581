"""Evaluate a program and write each row to a journal, so that an interrupted measurement resumes."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import dspy
import pandas as pd
from tqdm.auto import tqdm

from oneturn.evaluation import Metric, evaluate
from oneturn.programs.react import ReAct


def evaluate_with_journal(
    name: str,
    program: dspy.Module,
    examples: Sequence[dspy.Example],
    metric: Metric,
    lm: dspy.LM,
    folder: Path,
    depends_on: Sequence[Any] = (),
) -> pd.DataFrame:
    """Return the program's rows on ``examples``: rows in the journal are read, missing rows are evaluated.

    Args:
        name: the name of the progress bar and of the journal file.
        program: the program to evaluate.
        examples: the examples; each has an ``id``.
        metric: scores an answer.
        lm: the LM that the program uses.
        folder: the folder of the journal files.
        depends_on: further values that the rows depend on, in addition to the program's state, the format of its
            replies and the LM's settings.
    """
    path = folder / f"{_slug(name)}-{_key(program, lm, depends_on)}.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    journalled = set(_read(path)["id"])
    missing = [example for example in examples if example.id not in journalled]
    print(f"{name}: {len(examples) - len(missing)} of {len(examples)} rows are in the journal", flush=True)
    for example in tqdm(missing, desc=name, unit="row"):
        rows = evaluate(program, [example], metric, lm=lm, progress=False).rows
        with path.open("a", encoding="utf-8") as file:
            rows.drop(columns="pred_trajectory", errors="ignore").to_json(file, orient="records", lines=True)
    return _read(path)


def _read(path: Path) -> pd.DataFrame:
    return pd.read_json(path, lines=True, dtype={"id": str}) if path.exists() else pd.DataFrame({"id": []})


def _slug(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9.]+", "-", name).strip("-")


def _key(program: dspy.Module, lm: dspy.LM, depends_on: Sequence[Any]) -> str:
    with dspy.context(lm=lm):  # the format of a reply isn't part of the state
        formats = [[each.thoughts, each.protocol()] for _, each in program.named_sub_modules(ReAct)]
    values = [program.dump_state(), lm.model, lm.kwargs, *depends_on, *formats]
    settings = json.dumps(values, sort_keys=True, default=str)
    return hashlib.sha256(settings.encode()).hexdigest()[:12]
