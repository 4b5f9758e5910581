"""``python -m benchmarks.serving [--requests 200] [--report docs/serving-cost.md]``: measure all contenders."""

from __future__ import annotations

import argparse
from pathlib import Path

import mlflow

from benchmarks.machine import ran_on
from benchmarks.report import between_marks
from benchmarks.serving import rows
from benchmarks.serving.delta import cost_of_a_delta
from benchmarks.serving.processes import run_stub_lm, run_tracking_server
from benchmarks.serving.stub_lm import LATENCY, PACE

_HEAD = (
    "| who | traced | answer | clients | LM calls | lost | CPU a request | of bare | first piece after the LM's "
    "| requests a second |\n| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |"
)


def main() -> None:
    """Measure, print the tables and, with ``--report``, write them."""
    options = _options()
    mlflow.tracing.disable()
    delta = cost_of_a_delta()
    with run_stub_lm() as lm, run_tracking_server() as tracking:
        measured = [*rows.in_process(lm, tracking, options.requests), *rows.served(lm, tracking, options.requests)]
    bare = measured[0].cpu
    lines = [_about(), f"- a text delta, in process: {1e6 * delta:.0f} µs of CPU", "", _HEAD]
    text = "\n".join([*lines, *(row.line(bare) for row in measured)]) + "\n"
    print(text)
    if options.report:
        path = Path(options.report)
        path.write_text(between_marks(path, text), encoding="utf-8")


def _about() -> str:
    return (
        f"{ran_on('dspy', 'mlflow', 'openai', 'uvicorn')}\n"
        f"- stub LM: {1000 * LATENCY:.0f} ms to the first piece, {1000 * PACE:.0f} ms between pieces where it streams"
    )


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=200, help="number of requests per contender and load")
    parser.add_argument("--report", help="Markdown file to write")
    return parser.parse_args()


if __name__ == "__main__":
    main()
