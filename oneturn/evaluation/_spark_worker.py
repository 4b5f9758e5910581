"""What a Spark worker does: it makes its program once, and answers the rows of its partitions."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dspy
import pandas as pd

from oneturn.agent import load_agent
from oneturn.evaluation.data_sources import Source, Unreadable, examples_of, without_nan
from oneturn.evaluation.result import Metric
from oneturn.evaluation.runner import rows_of
from oneturn.evaluation.targets import Target, resolve_target

_TOGETHER = 500
"""Rows that are handed back at a time."""

Made = Callable[[], Any]
_targets: dict[str, Target] = {}


@dataclass(frozen=True)
class Job:
    """What each worker is sent.

    Attributes:
        name: the same for all workers; a process makes the program of a name once.
        target: a URL, a ``models:/`` URI, the path of an agent's file, or a function that makes a program or an agent.
        metrics: by the names of their columns.
        inputs: the columns that the program is given.
        threads: rows at the same time, of each worker.
        api_key: the token for a URL.
        columns: those of the result, with the types that pandas should give them; the data's own aren't among them.
    """

    name: str
    target: str | Made
    metrics: Mapping[str, Metric]
    inputs: Sequence[str]
    threads: int
    api_key: str | None
    columns: Mapping[str, str]

    def __call__(self, batches: Iterable[pd.DataFrame]) -> Iterator[pd.DataFrame]:
        """Evaluate a partition (PySpark's ``mapInPandas``); it holds few rows at a time."""
        given: dict[int, dict[str, Any]] = {}
        source = Source(lambda: self._examples(batches, given), None, self.name)
        rows: list[dict[str, Any]] = []
        for number, row in rows_of(_target(self), source, self.metrics, self.threads):
            rows.append(
                {**given.pop(number), **{name: _cell(row.get(name), kind) for name, kind in self.columns.items()}}
            )
            if len(rows) == _TOGETHER:
                yield pd.DataFrame(rows)
                rows = []
        if rows:
            yield pd.DataFrame(rows)

    def _examples(
        self, batches: Iterable[pd.DataFrame], given: dict[int, dict[str, Any]]
    ) -> Iterator[dspy.Example | Unreadable]:
        rows = (row for batch in batches for row in batch.to_dict("records"))
        numbered = enumerate(rows)

        def noted() -> Iterator[dict[str, Any]]:
            for number, row in numbered:
                given[number] = row
                yield {name: value for name, value in without_nan(row).items() if value is not None}

        return examples_of(noted(), self.inputs)


def made(target: str | Made, api_key: str | None) -> Target:
    """What answers a row, from what can be sent to a worker."""
    if isinstance(target, str) and Path(target).suffix == ".py":
        return resolve_target(load_agent(target), None, None, False)
    return resolve_target(target() if callable(target) else target, None, api_key, False)


def _target(job: Job) -> Target:
    if job.name not in _targets:
        _targets[job.name] = made(job.target, job.api_key)
    return _targets[job.name]


def _cell(value: Any, kind: str) -> Any:
    if value is None or kind != "string":
        return value
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
