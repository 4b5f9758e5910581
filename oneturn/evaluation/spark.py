"""Evaluate on Spark: one result row per row of a table."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from oneturn.core.usage import USAGE_COLUMNS
from oneturn.errors import DataError
from oneturn.evaluation._spark_worker import Job, Made, build_target
from oneturn.evaluation.approval import ApprovalPolicy
from oneturn.evaluation.runner import Metrics, named_metrics

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession
    from pyspark.sql.types import StructType


_MEASURED = {
    "run_tool_calls": "string",
    "run_sources": "string",
    "run_approvals": "string",
    **{name: "double" if name == "cost" else "bigint" for name in USAGE_COLUMNS},
    "seconds": "double",
    "trace_id": "string",
    "tries": "bigint",
    "score": "double",
    "feedback": "string",
}


def evaluate_table(
    target: str | Made,
    table: DataFrame,
    metrics: Metrics,
    *,
    inputs: Sequence[str] = ("question",),
    outputs: Sequence[str] = ("answer",),
    threads: int = 8,
    api_key: str | None = None,
    approve: ApprovalPolicy | None = None,
    types: Mapping[str, Any] | None = None,
) -> DataFrame:
    """Answer and judge each row of a Spark table on the workers (``DataFrame.mapInPandas``).

    The returned table is lazy and is recomputed for each action: write it to storage first, or use
    :func:`evaluate_into`, which can resume. Each worker process builds the program once. A failed row has an
    ``error``. If Spark retries a task, its rows are answered again, but only one attempt counts: the result has exactly
    one row per row of the table.

    Args:
        target: the URL of a served agent; a ``models:/`` URI; the path of an agent file that every worker can read;
            or a function without arguments that returns a ``dspy.Module`` with its LM set, or an
            :class:`oneturn.Agent`.
        table: the rows; Spark's cores for its partitions times ``threads`` of them are answered in parallel.
        metrics: as :func:`oneturn.evaluate` takes them; they are sent to the workers.
        inputs: the program's input columns.
        outputs: the outputs that become columns, as ``pred_…``.
        threads: rows in parallel per partition.
        api_key: the token for a URL; ``None`` for the one in each worker's environment.
        approve: decides on each tool call that needs a person's approval, as in :func:`oneturn.evaluate`; it is sent to
            the workers. Without it no such call is run: its row ends in ``approval_required``. If Spark retries a task,
            the calls that were approved in it are run again.
        types: the types of the outputs of a URL; see :func:`oneturn.evaluate`.

    Returns:
        The table's columns and those of :func:`oneturn.evaluate`, with nested values as JSON text.

    Raises:
        DataError: the table lacks an input column, or has a column with the name of a result column.
    """
    columns = _columns(outputs, named_metrics(metrics))
    if missing := [name for name in inputs if name not in table.columns]:
        raise DataError(f"The table has no column {missing[0]!r}; it has {', '.join(table.columns)}.")
    if taken := [name for name in table.columns if name in columns]:
        raise DataError(f"The table has a column {taken[0]!r}, which is a result column: rename or drop it.")
    job = Job(
        uuid.uuid4().hex, target, named_metrics(metrics), tuple(inputs), threads, columns, api_key, approve, types
    )
    # PySpark inspects the signature, and a callable object doesn't have that of a function.
    return table.mapInPandas(lambda batches: job(batches), schema=_schema(table, columns))


def output_names(target: str | Made) -> tuple[str, ...]:
    """The output names of a target, for ``outputs``; builds the target in this process."""
    program: Any = getattr(build_target(target), "_program", None)
    signature = getattr(program, "signature", None)
    return tuple(signature.output_fields) if signature is not None else ("answer",)


def _schema(table: DataFrame, columns: Mapping[str, str]) -> StructType:
    """Return the table's schema with further columns."""
    from pyspark.sql.types import DoubleType, LongType, StringType, StructField, StructType

    types = {"string": StringType(), "double": DoubleType(), "bigint": LongType()}
    return StructType([*table.schema.fields, *(StructField(name, types[kind]) for name, kind in columns.items())])


def _columns(outputs: Sequence[str], metrics: Any) -> dict[str, str]:
    columns = {f"pred_{name}": "string" for name in outputs} | _MEASURED
    for name in metrics:
        if name != "score":
            columns |= {name: "double", f"{name}_feedback": "string"}
    return {**columns, "error": "string"}


_DEFAULT_PARTITIONS = 32
"""Number of partitions if the number of cores is unknown; idle partitions cost little."""


def evaluate_into(
    path: str,
    target: str | Made,
    table: DataFrame,
    metrics: Metrics,
    *,
    id: str = "id",
    together: int = 10_000,
    partitions: int | None = None,
    format: str = "parquet",
    **options: Any,
) -> DataFrame:
    """Evaluate the rows of a table that aren't at ``path`` yet, and write them there in batches.

    Written rows are never answered again. A restarted job resumes, and answers at most ``together`` rows a second time.
    Each row is written exactly once, even if Spark retries tasks, because Spark commits a write atomically.

    Args:
        path: where the rows are written; a folder, or any path that ``format`` supports.
        target: see :func:`oneturn.evaluation.spark.evaluate_table`.
        table: the rows, each with a unique ``id``.
        metrics: how an answer is judged.
        id: the column that identifies a row.
        together: rows per write.
        partitions: number of partitions per write; ``None`` for the number of Spark's cores.
        format: ``"parquet"``, or ``"delta"`` if Spark supports it.
        options: keyword arguments of :func:`oneturn.evaluation.spark.evaluate_table`.

    Returns:
        All rows, read from ``path``.

    Raises:
        DataError: the table has no such column, or duplicate or missing values in it.
    """
    if id not in table.columns:
        raise DataError(f"The table has no column {id!r}; it has {', '.join(table.columns)}. Name another: id=…")
    if table.count() != table.select(id).distinct().count():
        raise DataError(f"The column {id!r} has duplicate values; it must identify each row.")
    if not table.where(table[id].isNull()).isEmpty():
        raise DataError(f"The column {id!r} has missing values; it must identify each row.")
    session = table.sparkSession
    while not (rows := _unanswered(session, path, format, table, id).limit(together)).isEmpty():
        spread = rows.repartition(partitions or _cores(session))
        evaluate_table(target, spread, metrics, **options).write.mode("append").format(format).save(path)
    return session.read.format(format).load(path)


def _cores(session: SparkSession) -> int:
    try:
        return int(session.sparkContext.defaultParallelism)
    except Exception:  # Spark Connect, as on serverless compute, has no SparkContext
        return _DEFAULT_PARTITIONS


def _unanswered(session: SparkSession, path: str, format: str, table: DataFrame, id: str) -> DataFrame:
    from pyspark.errors import AnalysisException

    try:
        existing = session.read.format(format).load(path)
    except AnalysisException:  # nothing is written yet
        return table
    return table.join(existing.select(id), on=id, how="left_anti")


__all__ = ["evaluate_into", "evaluate_table"]
