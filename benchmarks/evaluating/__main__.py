"""``python -m benchmarks.evaluating [--report docs/evaluation-cost.md]``: all contenders, side by side.

Each evaluation runs in a process of its own, with an LM whose answers take a known time: latency and threads set the
limit of what is possible, and the share of it that is reached is what the rest costs.
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
"""Takes minutes for rows that the others do in seconds: it is given fewer."""


def main() -> None:
    """Measure, print the tables and, if asked to, write them."""
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
    wanted = [(threads, name) for threads in _THREADS for name in CONTENDERS]
    for threads, name in tqdm(wanted, desc="speed", unit="evaluation"):
        rows = threads * (2 if name == _SLOW else options.rounds)
        found = _measured(name, rows, threads, options.latency, options.patience)
        if found is None:
            yield f"| {name} | {threads} | {rows:,} | not done after {options.patience:g} s | – | – | – |"
            continue
        limit = threads / options.latency
        each = found["rows"] / found["seconds"]
        yield (
            f"| {name} | {threads} | {rows:,} | {each:.1f} | {each / limit:.1%} | {1000 * found['cpu'] / rows:.1f} ms "
            f"| {found['lm_calls'] / rows:.2f} |"
        )


def _memory(options: argparse.Namespace) -> Iterator[str]:
    wanted = [(name, rows) for name in ("oneturn.evaluate", "dspy.Evaluate") for rows in (100, options.many)]
    for name, rows in tqdm(wanted, desc="memory", unit="evaluation"):
        found = _measured(name, rows, 16, 0.0)
        assert found is not None  # it waits as long as it takes
        yield f"| {name} | {rows:,} | {found['peak'] / 2**20:.0f} MiB | {1000 * found['cpu'] / rows:.1f} ms |"


def _measured(
    name: str, rows: int, threads: int, latency: float, patience: float | None = None
) -> dict[str, float] | None:
    """What an evaluation took; ``None`` if it isn't done after ``patience`` seconds."""
    command = [sys.executable, "-m", "benchmarks.evaluating.contenders", name, str(rows), str(threads), str(latency)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=patience)
    except subprocess.TimeoutExpired:
        return None
    if done.returncode:
        raise SystemExit(f"{name} failed:\n{done.stderr[-2000:]}")
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def _about(latency: float) -> str:
    return (
        f"{ran_on('dspy', 'mlflow', 'pandas')}\n"
        f"- program: `dspy.Predict`, one LM call a row, which the LM answers after {latency:g} s\n"
        f"- the limit: threads / {latency:g} s"
    )


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--latency", type=float, default=1.0, help="seconds that an answer of the LM takes")
    parser.add_argument("--rounds", type=int, default=20, help="rows of an evaluation, times its threads")
    parser.add_argument("--many", type=int, default=100_000, help="rows of the larger evaluation, for its memory")
    parser.add_argument("--patience", type=float, default=600.0, help="seconds to wait for one evaluation of the speed")
    parser.add_argument("--part", choices=("speed", "memory"), help="one of the two tables only")
    parser.add_argument("--report", help="a Markdown file to write")
    return parser.parse_args()


if __name__ == "__main__":
    main()
