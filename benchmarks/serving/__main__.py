"""``python -m benchmarks.serving [--requests 200] [--report docs/serving-cost.md]``: measure all contenders.

Each row is printed as soon as its three runs are done.
"""

from __future__ import annotations

import argparse
import itertools
from pathlib import Path

import mlflow

from benchmarks.machine import ran_on
from benchmarks.report import between_marks
from benchmarks.serving.delta import cost_of_a_delta
from benchmarks.serving.processes import run_stub_lm, run_tracking_server
from benchmarks.serving.rows import HEAD, RUNS, Measurer
from benchmarks.serving.stub_lm import LATENCY, PACE


def main() -> None:
    """Measure, print each row as it is known and, with ``--report``, write them all."""
    options = _options()
    mlflow.tracing.disable()
    delta = cost_of_a_delta()
    lines = [_about(options.runs), f"- a text delta, in process: {1e6 * delta:.0f} µs of CPU", "", HEAD]
    print("\n".join(lines), flush=True)
    with run_stub_lm() as lm, run_tracking_server() as tracking:
        measurer = Measurer(lm, tracking, options.requests, options.runs)
        for row in itertools.chain(measurer.in_process(), measurer.served()):
            lines.append(row.line())
            print(lines[-1], flush=True)
    if options.report:
        text = "\n".join(lines) + "\n"
        path = Path(options.report)
        path.write_text(between_marks(path, text), encoding="utf-8")


def _about(runs: int) -> str:
    return (
        f"{ran_on('dspy', 'mlflow', 'openai', 'uvicorn')}\n"
        f"- stub LM: {1000 * LATENCY:.0f} ms to the first piece, {1000 * PACE:.0f} ms between pieces where it streams\n"
        f"- {runs} runs a row: the median, and in brackets the smallest and the largest; bare `dspy.ReAct` is measured "
        "again before each run"
    )


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=200, help="number of requests per contender and load")
    parser.add_argument("--runs", type=int, default=RUNS, help="number of runs per row")
    parser.add_argument("--report", help="Markdown file to write")
    return parser.parse_args()


if __name__ == "__main__":
    main()
