"""``python -m benchmarks.spark_rows [--report docs/spark.md]``: what Spark costs, beside one process.

The same rows, the same threads in all, an LM whose answers take a known time: a local session of two workers with half
the threads each, and ``oneturn.evaluate`` in one process.
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
    """Measure, print the table and, if asked to, write it."""
    options = _options()
    rows = [{"id": number, "question": f"Is {number} a number?"} for number in range(options.rows)]
    lines = [_about(options.latency), "", _HEAD]
    for name, run in {"oneturn.evaluate": _alone, "oneturn.evaluation.spark, two workers": _on_spark}.items():
        seconds = run(rows, options.threads, options.latency)
        each, limit = len(rows) / seconds, options.threads / options.latency
        lines.append(f"| {name} | {len(rows):,} | {options.threads} | {each:.1f} | {each / limit:.1%} |")
    text = "\n".join(lines) + "\n"
    print(text)
    if options.report:
        path = Path(options.report)
        path.write_text(between_marks(path, text), encoding="utf-8")


def right(gold: dspy.Example, pred: Any, trace: Any = None) -> float:
    """The metric."""
    return float(pred.answer == "yes")


def _alone(rows: list[dict[str, Any]], threads: int, latency: float) -> float:
    program = waiting_program(latency)

    def run(some: list[dict[str, Any]]) -> None:
        oneturn.evaluate(program, some, right, inputs=["question"], threads=threads, progress=False)

    return _timed(run, rows)


def _on_spark(rows: list[dict[str, Any]], threads: int, latency: float) -> float:
    from pyspark.sql import SparkSession

    from oneturn.evaluation import evaluate_table

    os.environ |= {"PYSPARK_PYTHON": sys.executable, "SPARK_LOCAL_IP": "127.0.0.1", "PYTHONPATH": os.getcwd()}
    session = SparkSession.builder.master("local[2]").config("spark.ui.enabled", "false").getOrCreate()
    session.sparkContext.setLogLevel("OFF")

    def run(some: list[dict[str, Any]]) -> None:
        table = session.createDataFrame(some, "id bigint, question string").repartition(2)
        found = evaluate_table(lambda: waiting_program(latency), table, right, threads=threads // 2)
        assert len(found.collect()) == len(some)

    return _timed(run, rows)


def _timed(run: Callable[[list[dict[str, Any]]], None], rows: list[dict[str, Any]]) -> float:
    run(rows[:8])  # what is started and imported once isn't a row's cost
    began = time.perf_counter()
    run(rows)
    return time.perf_counter() - began


def _about(latency: float) -> str:
    return (
        f"{ran_on('pyspark', 'dspy', 'pandas')}\n"
        f"- the LM answers after {latency:g} s; the limit: threads / {latency:g} s"
    )


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1000)
    parser.add_argument("--threads", type=int, default=32, help="in all")
    parser.add_argument("--latency", type=float, default=1.0, help="seconds that an answer of the LM takes")
    parser.add_argument("--report", help="a Markdown file to write")
    return parser.parse_args()


if __name__ == "__main__":
    main()
