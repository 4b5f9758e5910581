"""Score the rows of an earlier evaluation again, without asking the LM."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import dspy
import pandas as pd

from oneturn.core.serialization import canonical, jsonable, plain
from oneturn.errors import DataError
from oneturn.evaluation.column_names import PREDICTED, check_column_names
from oneturn.evaluation.metric_columns import check_columns
from oneturn.evaluation.result import MEASURED, Evaluation, metrics_among
from oneturn.evaluation.results_file import check_rescored
from oneturn.evaluation.results_reader import check_rows, read_records, to_frame
from oneturn.evaluation.results_record import recorded_evaluation, write_recorded
from oneturn.evaluation.row import Row, encodable, judge_row, unjudged_row
from oneturn.evaluation.run_record import RUN_COLUMNS, RunRecord, with_record
from oneturn.evaluation.runner import Metrics, named_metrics
from oneturn.evaluation.typed_fields import with_label_types, with_types


def rescore(
    rows: str | Path,
    metrics: Metrics,
    *,
    examples: Sequence[dspy.Example] | None = None,
    types: Mapping[str, Any] | None = None,
    output: str | Path | None = None,
) -> Evaluation:
    """Apply metrics to the recorded answers of an evaluation.

    A row that wasn't answered keeps its error; an answer may be ``None``.

    Args:
        rows: a file written by :func:`oneturn.evaluate` with ``output``.
        metrics: as :func:`oneturn.evaluate` takes them.
        examples: provide the labels, matched by ``id`` if rows and examples have ids, else by their order and inputs;
            ``None`` for the labels in the rows.
        types: the types of the outputs; see :func:`oneturn.evaluation.output_types`.
        output: a file for the rows: the same file, a new one, or one of an earlier call.

    Raises:
        DataError: the file has no rows of an evaluation, the examples have other ids or inputs, a metric needs a column
            that no row has, a metric or a column has the name of a result column, or ``output`` is any other file.
    """
    named, path = named_metrics(metrics), Path(rows)
    if output is not None:
        check_rescored(Path(output), path)
    records = list(read_records(path))
    check_rows(pd.DataFrame(records[:1]), str(path))
    old = set(metrics_among(list(records[0])))
    measured = {*MEASURED, *old, *(f"{name}_feedback" for name in old)}
    labelled = _matched(records, examples, path)
    golds = [
        dspy.Example(**_labels(record, measured) | ({} if example is None else dict(example.items()))).with_inputs(
            *(() if example is None else example.inputs().keys())
        )
        for record, example in zip(records, labelled, strict=True)
    ]
    check_columns(named, golds)
    check_column_names(golds, named, types or {})
    rows_with_labels = [
        record if example is None else {**_plain_labels(gold, measured), **record, **_plain_labels(gold, measured)}
        for record, example, gold in zip(records, labelled, golds, strict=True)
    ]
    scored = [_row(*each, named, types or {}, old) for each in zip(rows_with_labels, golds, strict=True)]
    if output is None:
        return Evaluation(to_frame(scored))
    output = Path(output)
    write_recorded(output, scored, recorded_evaluation(output))  # it stays the finished file of its evaluation
    return Evaluation.read(output)


def _row(record: Row, gold: dspy.Example, metrics: Mapping[str, Any], types: Mapping[str, Any], old: set[str]) -> Row:
    outputs = {name.removeprefix(PREDICTED): value for name, value in record.items() if name.startswith(PREDICTED)}
    calls, sources, approvals = (tuple(_as_list(record.get(name))) for name in RUN_COLUMNS)
    results = {"score", "feedback", "error", *old, *(f"{name}_feedback" for name in old)}
    row = encodable({name: value for name, value in record.items() if name not in results})
    if not (_was_answered(record) or approvals):
        others = [name for name in metrics if name != "score"]
        failed = {key: value for name in others for key, value in ((name, 0.0), (f"{name}_feedback", None))}
        return {**row, "score": 0.0, "feedback": record["error"], **failed, "error": record["error"]}
    try:
        gold = with_label_types(gold, types)
    except DataError as error:
        return unjudged_row(row, metrics, error)
    run = RunRecord(calls, sources, record.get("trace_id"), approvals)
    return judge_row(row, metrics, gold, with_record(dspy.Prediction(**with_types(outputs, types)), run))


def _plain_labels(gold: dspy.Example, measured: set[str]) -> dict[str, Any]:
    return {name: jsonable(value) for name, value in gold.items() if name not in measured}


def _labels(record: Row, measured: set[str]) -> dict[str, Any]:
    return {name: value for name, value in record.items() if name not in measured and not name.startswith(PREDICTED)}


def _was_answered(record: Row) -> bool:
    """Whether a row has an answer, which may be ``None``; that of a row with an error may be the metric's error."""
    has_output = any(value is not None for name, value in record.items() if name.startswith(PREDICTED))
    return record["error"] is None or has_output


def _matched(
    records: Sequence[Row], examples: Sequence[dspy.Example] | None, path: Path
) -> Iterable[dspy.Example | None]:
    if examples is None:
        return [None] * len(records)
    by_id = {_id_text(example["id"]): example for example in examples if example.get("id") is not None}
    ids = [record.get("id") for record in records]
    if len(by_id) == len(examples) and any(ident is not None for ident in ids):
        return [_with_id(record, by_id, path) for record in records]
    if len(examples) != len(records):
        raise DataError(f"{path} has {len(records)} rows, and there are {len(examples)} examples: give the same ones.")
    for number, (record, example) in enumerate(zip(records, examples, strict=True), start=1):
        for name, value in example.inputs().items():
            is_given = name in record and name not in MEASURED and _was_answered(record)
            if is_given and _comparable(record[name]) != _comparable(value):
                raise DataError(
                    f"Row {number} of {path} has {name} = {record[name]!r:.80}, and its example {value!r:.80}: give "
                    "the examples that were evaluated, in the same order, or give both an id."
                )
    return examples


def _id_text(value: Any) -> str:
    """The text of an id; a table with a missing one has decimals."""
    return str(int(value) if isinstance(value, float) and value.is_integer() else value)


def _with_id(record: Row, by_id: Mapping[str, dspy.Example], path: Path) -> dspy.Example | None:
    example = by_id.get(_id_text(record.get("id")))
    is_unreadable = record.get("id") is None and not _was_answered(record)
    if example is None and not is_unreadable:
        raise DataError(
            f"{path} has a row with the id {record.get('id')!r}, and no example has this id: give the examples that "
            "were evaluated."
        )
    return example


def _comparable(value: Any) -> str:
    """A text that is the same for equal values, in whatever format they were recorded."""
    return str(canonical(plain(value)))


def _as_list(value: Any) -> list[Any]:
    parsed = json.loads(value) if isinstance(value, str) else value
    return list(parsed) if parsed is not None else []
