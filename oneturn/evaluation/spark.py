"""The same evaluation on a cluster: a Spark table in, a Spark table out, a row a row."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from oneturn.errors import DataError
from oneturn.evaluation._spark_worker import Job, Made, made
from oneturn.evaluation.runner import Metrics, named_metrics

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession


_MEASURED = {
    "pred_tool_calls": "string",
    "pred_sources": "string",
    "pred_approvals": "string",
    "lm_calls": "bigint",
    "prompt_tokens": "bigint",
    "completion_tokens": "bigint",
    "cost": "double",
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
) -> DataFrame:
    """Answer and judge each row of a Spark table, on its workers (``DataFrame.mapInPandas``).

    The table that comes back is lazy, and computed anew for each action on it: write it down before you look at it,
    or take :func:`evaluate_into`, which goes on where it was. Each worker process makes the program once.
    What fails is a row with its ``error``. A task that Spark starts again answers its rows again, and only one of its
    attempts counts: there is one row a row.

    Args:
        target: the URL of a served agent; a ``models:/`` URI; the path of an agent's file that every worker can read;
            or a function without arguments that makes a ``dspy.Module``, whose LM is set, or an :class:`oneturn.Agent`.
        table: any rows; as many are answered at a time as Spark has cores for its partitions, times ``threads``.
        metrics: as :func:`oneturn.evaluate` takes them; they are sent to the workers.
        inputs: the columns that the program is given.
        outputs: the outputs that become columns, as ``pred_…``.
        threads: rows at the same time, of each partition.
        api_key: the token for a URL; ``None`` for the environment's on each worker.

    Returns:
        The table's own columns, and those of :func:`oneturn.evaluate`, with what is nested as JSON text.

    Raises:
        DataError: the table lacks an input, or has a column of a name that the result needs.
    """
    columns = _columns(outputs, named_metrics(metrics))
    if missing := [name for name in inputs if name not in table.columns]:
        raise DataError(f"The table has no column {missing[0]!r}; it has {', '.join(table.columns)}.")
    if twice := [name for name in table.columns if name in columns]:
        raise DataError(f"The table has a column {twice[0]!r}, as the result will: rename it, or drop it.")
    job = Job(uuid.uuid4().hex, target, named_metrics(metrics), tuple(inputs), threads, api_key, columns)
    own = ", ".join(f"`{field.name}` {field.dataType.simpleString()}" for field in table.schema.fields)
    schema = ", ".join([own, *(f"`{name}` {kind}" for name, kind in columns.items())])
    # PySpark looks at the signature of what it is given, and an object that is called hasn't the one of a function.
    return table.mapInPandas(lambda batches: job(batches), schema=schema)


def output_names(target: str | Made) -> tuple[str, ...]:
    """The outputs of a program that can be made here, for ``outputs``."""
    program: Any = getattr(made(target, None), "_program", None)
    signature = getattr(program, "signature", None)
    return tuple(signature.output_fields) if signature is not None else ("answer",)


def _columns(outputs: Sequence[str], metrics: Any) -> dict[str, str]:
    found = {f"pred_{name}": "string" for name in outputs} | _MEASURED
    for name in metrics:
        if name != "score":
            found |= {name: "double", f"{name}_feedback": "string"}
    return {**found, "error": "string"}


_UNKNOWN = 32
"""Parts where nobody says how many cores there are; idle ones cost little."""


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
    """Evaluate the rows of a table that aren't at ``path`` yet, and write them there, some thousands at a time.

    What was written is never answered again: a job that was killed goes on when it is started again, and answers at
    most ``together`` rows a second time. Each row is there once, whatever tasks Spark has repeated: Spark commits a
    write whole.

    Args:
        path: where the rows go; a folder, or whatever ``format`` takes.
        target: see :func:`oneturn.evaluation.spark.evaluate_table`.
        table: the rows; each must have another ``id``.
        metrics: how an answer is judged.
        id: the column that tells rows apart.
        together: rows of one write.
        partitions: how many parts they are answered in at the same time; ``None`` for as many as Spark has cores.
        format: ``"parquet"``, or ``"delta"`` where Spark has it.
        options: of :func:`oneturn.evaluation.spark.evaluate_table`.

    Returns:
        All rows, read from ``path``.

    Raises:
        DataError: the table has no such column, or two rows with the same value in it.
    """
    if id not in table.columns:
        raise DataError(f"The table has no column {id!r}; it has {', '.join(table.columns)}. Name another: id=…")
    if table.count() != table.select(id).distinct().count():
        raise DataError(f"The column {id!r} doesn't tell the rows apart: some have the same value in it.")
    session = table.sparkSession
    while not (missing := _missing(session, path, format, table, id).limit(together)).isEmpty():
        spread = missing.repartition(partitions or _cores(session))
        evaluate_table(target, spread, metrics, **options).write.mode("append").format(format).save(path)
    return session.read.format(format).load(path)


def _cores(session: SparkSession) -> int:
    try:
        return int(session.sparkContext.defaultParallelism)
    except Exception:  # Spark Connect, as serverless has it, has no such thing
        return _UNKNOWN


def _missing(session: SparkSession, path: str, format: str, table: DataFrame, id: str) -> DataFrame:
    from pyspark.errors import AnalysisException

    try:
        done = session.read.format(format).load(path)
    except AnalysisException:  # nothing is there yet
        return table
    return table.join(done.select(id), on=id, how="left_anti")


__all__ = ["evaluate_into", "evaluate_table"]
