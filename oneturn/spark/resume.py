"""``evaluate_into``: an evaluation that is written as it goes, and goes on where it was."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from oneturn.batch.run import Metrics
from oneturn.errors import DataError
from oneturn.spark.table import evaluate_table
from oneturn.spark.worker import Made

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession


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
        target: see :func:`oneturn.spark.evaluate_table`.
        table: the rows; each must have another ``id``.
        metrics: how an answer is judged.
        id: the column that tells rows apart.
        together: rows of one write.
        partitions: how many parts they are answered in at the same time; ``None`` for as many as Spark has cores.
        format: ``"parquet"``, or ``"delta"`` where Spark has it.
        options: of :func:`oneturn.spark.evaluate_table`.

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
