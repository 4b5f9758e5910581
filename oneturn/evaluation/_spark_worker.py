"""The work of a Spark worker: build the program once and answer the rows of its partitions."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dspy
import pandas as pd

from oneturn.agent import load_agent
from oneturn.evaluation.approval import ApprovalPolicy
from oneturn.evaluation.data_sources import Source, Unreadable, iter_examples, without_nan
from oneturn.evaluation.result import Metric
from oneturn.evaluation.runner import iter_rows
from oneturn.evaluation.targets import Target, resolve_target

_BATCH = 500
"""Rows per returned batch."""

Made = Callable[[], Any]
_targets: dict[str, Target] = {}


@dataclass(frozen=True)
class Job:
    """The job that is sent to each worker.

    Attributes:
        name: the job's name, equal on all workers; a process builds the target once per name.
        target: a URL, a ``models:/`` URI, the path of an agent file, or a function that returns a program or an agent.
        metrics: the metrics by column name.
        inputs: the program's input columns.
        threads: rows in parallel per worker.
        columns: the result columns with their Spark types, without the table's own columns.
        api_key: the token for a URL.
        approve: decides on calls that need approval; ``None`` ends the run there.
        types: the types of the outputs of a URL.
    """

    name: str
    target: str | Made
    metrics: Mapping[str, Metric]
    inputs: Sequence[str]
    threads: int
    columns: Mapping[str, str]
    api_key: str | None = None
    approve: ApprovalPolicy | None = None
    types: Mapping[str, Any] | None = None

    def __call__(self, batches: Iterable[pd.DataFrame]) -> Iterator[pd.DataFrame]:
        """Evaluate a partition (PySpark's ``mapInPandas``); few rows are in memory at a time."""
        pending: dict[int, dict[str, Any]] = {}
        source = Source(lambda: self._examples(batches, pending), None, self.name)
        rows: list[dict[str, Any]] = []
        for number, row in iter_rows(_target(self), source, self.metrics, self.threads):
            rows.append(
                {**pending.pop(number), **{name: _cell(row.get(name), kind) for name, kind in self.columns.items()}}
            )
            if len(rows) == _BATCH:
                yield pd.DataFrame(rows)
                rows = []
        if rows:
            yield pd.DataFrame(rows)

    def _examples(
        self, batches: Iterable[pd.DataFrame], pending: dict[int, dict[str, Any]]
    ) -> Iterator[dspy.Example | Unreadable]:
        rows = (row for batch in batches for row in batch.to_dict("records"))
        numbered = enumerate(rows)

        def record_rows() -> Iterator[dict[str, Any]]:
            for number, row in numbered:
                pending[number] = row
                yield {name: value for name, value in without_nan(row).items() if value is not None}

        return iter_examples(record_rows(), self.inputs, _target(self).optional)


def build_target(
    target: str | Made,
    api_key: str | None = None,
    approve: ApprovalPolicy | None = None,
    types: Mapping[str, Any] | None = None,
) -> Target:
    """Build the target on a worker from its serializable form."""
    if isinstance(target, str) and Path(target).suffix == ".py":
        return resolve_target(load_agent(target), None, None, False, approve)
    return resolve_target(target() if callable(target) else target, None, api_key, False, approve, types)


def _target(job: Job) -> Target:
    if job.name not in _targets:
        _targets[job.name] = build_target(job.target, job.api_key, job.approve, job.types)
    return _targets[job.name]


def _cell(value: Any, kind: str) -> Any:
    if value is None or kind != "string":
        return value
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
