"""``python -m benchmarks.spark_rows [--report docs/spark.md]``: measure the overhead of Spark.

Evaluates the same rows with the same total number of threads and an LM of fixed latency: in a local Spark session of
two workers with half the threads each, and with ``oneturn.evaluate`` in one process.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dspy

import oneturn
from benchmarks.evaluating.waiting_lm import waiting_program
from benchmarks.machine import ran_on
from benchmarks.report import between_marks

_HEAD = "| who | rows | threads | rows a second | of the limit |\n| --- | --- | --- | --- | --- |"


def main() -> None:
    """Measure, print the table and, with ``--report``, write it."""
    options = _options()
    rows = [{"id": number, "question": f"Is {number} a number?"} for number in range(options.rows)]
    lines = [_about(options.latency), "", _HEAD]
    for name, run in {"oneturn.evaluate": _in_process, "oneturn.evaluation.spark, two workers": _on_spark}.items():
        seconds = run(rows, options.threads, options.latency)
        each, limit = len(rows) / seconds, options.threads / options.latency
        lines.append(f"| {name} | {len(rows):,} | {options.threads} | {each:.1f} | {each / limit:.1%} |")
    text = "\n".join(lines) + "\n"
    print(text)
    if options.report:
        path = Path(options.report)
        path.write_text(between_marks(path, text), encoding="utf-8")


def right(gold: dspy.Example, pred: Any, trace: Any = None) -> float:
    """Return 1.0 if the answer is "yes"."""
    return float(pred.answer == "yes")


def _in_process(rows: list[dict[str, Any]], threads: int, latency: float) -> float:
    program = waiting_program(latency)

    def run(rows: list[dict[str, Any]]) -> None:
        oneturn.evaluate(program, rows, right, inputs=["question"], threads=threads, progress=False)

    return _timed(run, rows)


def _on_spark(rows: list[dict[str, Any]], threads: int, latency: float) -> float:
    from pyspark.sql import SparkSession

    from oneturn.evaluation import evaluate_table

    os.environ |= {"PYSPARK_PYTHON": sys.executable, "SPARK_LOCAL_IP": "127.0.0.1", "PYTHONPATH": os.getcwd()}
    session = SparkSession.builder.master("local[2]").config("spark.ui.enabled", "false").getOrCreate()
    session.sparkContext.setLogLevel("OFF")

    def run(rows: list[dict[str, Any]]) -> None:
        table = session.createDataFrame(rows, "id bigint, question string").repartition(2)
        results = evaluate_table(lambda: waiting_program(latency), table, right, threads=threads // 2)
        assert len(results.collect()) == len(rows)

    return _timed(run, rows)


def _timed(run: Callable[[list[dict[str, Any]]], None], rows: list[dict[str, Any]]) -> float:
    run(rows[:8])  # excludes startup and imports
    start = time.perf_counter()
    run(rows)
    return time.perf_counter() - start


def _about(latency: float) -> str:
    return (
        f"{ran_on('pyspark', 'dspy', 'pandas')}\n"
        f"- the LM answers after {latency:g} s; the limit: threads / {latency:g} s"
    )


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1000)
    parser.add_argument("--threads", type=int, default=32, help="total number of threads")
    parser.add_argument("--latency", type=float, default=1.0, help="latency of the LM in seconds")
    parser.add_argument("--report", help="Markdown file to write")
    return parser.parse_args()


if __name__ == "__main__":
    main()
