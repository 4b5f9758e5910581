"""Rows of an evaluation, journalled as they come: a measurement that was stopped goes on where it was."""

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


def measured(
    name: str,
    program: dspy.Module,
    examples: Sequence[dspy.Example],
    metric: Metric,
    lm: dspy.LM,
    folder: Path,
    depends_on: Sequence[Any] = (),
) -> pd.DataFrame:
    """The program's rows on ``examples``: those that are journalled, and those that are missing, measured now.

    Args:
        name: what the bar and the file are called.
        program: what is measured.
        examples: each with an ``id``.
        metric: how an answer is judged.
        lm: the LM that answers.
        folder: where the journals stand.
        depends_on: what else the rows depend on, beside the program's state and the LM's settings.
    """
    path = folder / f"{_slug(name)}-{_key(program, lm, depends_on)}.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    known = _read(path)
    missing = [example for example in examples if example.id not in set(known["id"])]
    print(f"{name}: {len(examples) - len(missing)} of {len(examples)} rows are there", flush=True)
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
    told = json.dumps([program.dump_state(), lm.model, lm.kwargs, *depends_on], sort_keys=True, default=str)
    return hashlib.sha256(told.encode()).hexdigest()[:12]
