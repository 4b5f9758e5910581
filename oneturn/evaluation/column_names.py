"""The names of a row's columns: what a metric, a label or an input may not be called, because a result is."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any

import dspy

from oneturn.core._dspy import has_inputs
from oneturn.errors import DataError
from oneturn.evaluation.result import MEASURED, REPEAT

PREDICTED = "pred_"
"""The prefix of the outputs' columns."""

_OF_REQUESTS = {"error", "seconds"}


def check_metric_names(names: Iterable[str]) -> None:
    """Raise ``DataError`` if a metric's column, or that of its feedback, has the name of another result column."""
    names = list(names)
    for place, name in enumerate(names):
        is_score = name == "score" and place == 0
        if (name in MEASURED and not is_score) or name.startswith(PREDICTED) or f"{name}_feedback" in names:
            raise DataError(
                f"The metric {name!r} has the name of a result column: give it another, as in "
                f"metrics={{'my_{name}': …}}. Only the first metric may be called 'score'."
            )


def check_column_names(examples: Iterable[Any], metrics: Iterable[str], outputs: Collection[str] = ()) -> None:
    """Raise ``DataError`` if :func:`reserved_column` returns one for an example; what isn't an example is skipped."""
    metrics = list(metrics)
    for example in examples:
        if isinstance(example, dspy.Example) and (reason := reserved_column(example, metrics, outputs)):
            raise DataError(reason)


def reserved_column(example: dspy.Example, metrics: Iterable[str], outputs: Collection[str] = ()) -> str | None:
    """Why an example's field can't be a column of its row, ``None`` if all can.

    An input, and the label of an output, may have the name of a figure, such as ``feedback``: the program and the
    metric get it, and the column of the row is the figure. So are ``error`` and ``seconds``, which rows of an inference
    table have.
    """
    names = set(metrics)
    results = (MEASURED - _OF_REQUESTS) | names | {f"{name}_feedback" for name in names}
    inputs = example.inputs() if has_inputs(example) else {}
    for field in map(str, example.keys()):
        is_field = (field in inputs or field in outputs) and field in MEASURED - {REPEAT}
        if (field in results or field.startswith(PREDICTED)) and not is_field:
            return f"The column {field!r} of the data has the name of a result column: rename or drop it."
    return None
