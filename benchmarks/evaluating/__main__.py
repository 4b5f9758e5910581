"""``python -m benchmarks.evaluating [--report docs/evaluation-cost.md]``: measure the overhead of evaluation.

Each evaluation runs in a separate process, with an LM of fixed latency. Latency and threads set the maximum number of
rows per second; the share of it that is reached shows the overhead.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from tqdm.auto import tqdm

from benchmarks.evaluating.contenders import CONTENDERS
from benchmarks.machine import ran_on
from benchmarks.report import between_marks

_SPEED = (
    "| who | threads | rows | rows a second | of the limit | CPU a row | LM calls a row |\n"
    "| --- | --- | --- | --- | --- | --- | --- |"
)
_MEMORY = "| who | rows | peak memory | CPU a row |\n| --- | --- | --- | --- |"
_THREADS = (32, 128)
_SLOW = "mlflow.genai.evaluate"
"""Takes minutes for what takes the others seconds, so it gets fewer rows."""


def main() -> None:
    """Measure, print the tables and, with ``--report``, write them."""
    options = _options()
    parts = {"speed": (_SPEED, _speed), "memory": (_MEMORY, _memory)}
    for part, (head, rows) in parts.items():
        if options.part not in (None, part):
            continue
        text = "\n".join([_about(options.latency), "", head, *rows(options)]) + "\n"
        print(text)
        if options.report:
            path = Path(options.report)
            path.write_text(between_marks(path, text, part), encoding="utf-8")


def _speed(options: argparse.Namespace) -> Iterator[str]:
    evaluations = [(threads, name) for threads in _THREADS for name in CONTENDERS]
    for threads, name in tqdm(evaluations, desc="speed", unit="evaluation"):
        rows = threads * (2 if name == _SLOW else options.rounds)
        usage = _measure(name, rows, threads, options.latency, options.patience)
        if usage is None:
            yield f"| {name} | {threads} | {rows:,} | not done after {options.patience:g} s | – | – | – |"
            continue
        limit = threads / options.latency
        each = usage["rows"] / usage["seconds"]
        yield (
            f"| {name} | {threads} | {rows:,} | {each:.1f} | {each / limit:.1%} | {1000 * usage['cpu'] / rows:.1f} ms "
            f"| {usage['lm_calls'] / rows:.2f} |"
        )


def _memory(options: argparse.Namespace) -> Iterator[str]:
    evaluations = [(name, rows) for name in ("oneturn.evaluate", "dspy.Evaluate") for rows in (100, options.many)]
    for name, rows in tqdm(evaluations, desc="memory", unit="evaluation"):
        usage = _measure(name, rows, 16, 0.0)
        assert usage is not None  # there is no timeout
        yield f"| {name} | {rows:,} | {usage['peak'] / 2**20:.0f} MiB | {1000 * usage['cpu'] / rows:.1f} ms |"


def _measure(
    name: str, rows: int, threads: int, latency: float, timeout: float | None = None
) -> dict[str, float] | None:
    """Return the time, CPU, memory and LM calls of an evaluation; ``None`` if it exceeds ``timeout`` seconds."""
    command = [sys.executable, "-m", "benchmarks.evaluating.contenders", name, str(rows), str(threads), str(latency)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=timeout)
    except subprocess.TimeoutExpired:
        return None
    if done.returncode:
        raise SystemExit(f"{name} failed:\n{done.stderr[-2000:]}")
    usage: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return usage


def _about(latency: float) -> str:
    return (
        f"{ran_on('dspy', 'mlflow', 'pandas')}\n"
        f"- program: `dspy.Predict`, one LM call a row, which the LM answers after {latency:g} s\n"
        f"- the limit: threads / {latency:g} s"
    )


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--latency", type=float, default=1.0, help="latency of the LM in seconds")
    parser.add_argument("--rounds", type=int, default=20, help="rows per evaluation, as a multiple of its threads")
    parser.add_argument("--many", type=int, default=100_000, help="rows of the larger evaluation in the memory table")
    parser.add_argument("--patience", type=float, default=600.0, help="timeout of a speed evaluation in seconds")
    parser.add_argument("--part", choices=("speed", "memory"), help="measure one of the two tables")
    parser.add_argument("--report", help="Markdown file to write")
    return parser.parse_args()


if __name__ == "__main__":
    main()
