"""MLflow datasets of examples, to link to runs, metrics and models."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import dspy
import pandas as pd
from mlflow.data.pandas_dataset import PandasDataset, from_pandas

from oneturn.datasets.rows import dataset_hash

if TYPE_CHECKING:
    from oneturn.agent import Agent


def to_mlflow_dataset(agent: str, split: str, examples: Sequence[dspy.Example]) -> PandasDataset:
    """Convert examples to an MLflow dataset; lists and mappings become JSON text, which every store supports."""
    rows = pd.DataFrame([{name: _plain(value) for name, value in example.items()} for example in examples])
    return from_pandas(rows, name=f"{agent}-{split}")


def find_measured_dataset(agent: Agent, sha256: str) -> PandasDataset | None:
    """Return the dev examples whose hash is in a compiled program's manifest; ``None`` if they have changed."""
    examples = agent.examples("dev")
    for rows in (examples[: agent.config.compile.dev_examples], examples):
        if dataset_hash([row.toDict() for row in rows]) == sha256:
            return to_mlflow_dataset(agent.name, "dev", rows)
    return None


def _plain(value: Any) -> Any:
    return json.dumps(value, ensure_ascii=False, default=str) if isinstance(value, list | dict) else value
