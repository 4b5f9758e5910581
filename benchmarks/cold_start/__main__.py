"""``python -m benchmarks.cold_start [--runs 5] [--report docs/serving-cost.md]``: from a logged model to an answer.

Each run is a new Python process that loads the model with ``mlflow.pyfunc.load_model`` and asks one question. The LM is
a stub that needs 50 ms a reply; both agents call it three times. The runs of the two agents alternate.
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import mlflow

from benchmarks.machine import ran_on
from benchmarks.report import between_marks
from benchmarks.serving.processes import run_stub_lm

_AGENTS = {"documented_agent.py": "`dspy.ReAct` by MLflow's documentation", "oneturn_agent.py": "oneturn"}
_ASK = """
import sys, mlflow
mlflow.tracing.disable()
answer = mlflow.pyfunc.load_model(sys.argv[1]).predict({"input": [{"role": "user", "content": "What is it?"}]})
assert "answer" in answer["output"][-1]["content"][0]["text"], answer
"""
_HEAD = "| agent | seconds to the first answer | CPU seconds | of the documented one |\n| --- | --- | --- | --- |"


def main() -> None:
    """Save both models, run them in turn, print the table and, with ``--report``, write it."""
    options = _options()
    seconds: dict[str, list[tuple[float, float]]] = {name: [] for name in _AGENTS}
    with tempfile.TemporaryDirectory() as folder, run_stub_lm() as lm:
        os.environ["STUB_LM"] = f"{lm}/v1"
        for name in _AGENTS:
            file = Path(__file__).with_name(name)
            mlflow.pyfunc.save_model(path=f"{folder}/{name}", python_model=str(file), pip_requirements=[])
        for run in range(options.runs):
            for name, wall_and_cpu in seconds.items():
                wall, cpu = _first_answer(f"{folder}/{name}")
                wall_and_cpu.append((wall, cpu))
                print(f"run {run + 1}, {_AGENTS[name]}: {wall:.2f} s, {cpu:.2f} s of CPU", flush=True)
    about = [ran_on("dspy", "mlflow"), f"- {options.runs} runs: the median, the smallest, the largest", ""]
    text = "\n".join([*about, _HEAD, *(_line(name, seconds) for name in _AGENTS)]) + "\n"
    print(text)
    if options.report:
        path = Path(options.report)
        path.write_text(between_marks(path, text, "cold start"), encoding="utf-8")


def _first_answer(model: str) -> tuple[float, float]:
    """Return the seconds and the CPU seconds of a new process that loads the model and asks it."""
    start, before = time.perf_counter(), _children_cpu()
    subprocess.run([sys.executable, "-c", _ASK, model], check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - start, _children_cpu() - before


def _children_cpu() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def _line(name: str, seconds: dict[str, list[tuple[float, float]]]) -> str:
    first = next(iter(_AGENTS))
    ratios = [cpu / other for (_, cpu), (_, other) in zip(seconds[name], seconds[first], strict=True)]
    walls, cpus = zip(*seconds[name], strict=True)
    return f"| {_AGENTS[name]} | {_spread(walls)} | {_spread(cpus)} | × {_spread(ratios)} |"


def _spread(values: list[float] | tuple[float, ...]) -> str:
    return f"{statistics.median(values):.2f} ({min(values):.2f} to {max(values):.2f})"


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=5, help="number of runs per agent")
    parser.add_argument("--report", help="Markdown file to write")
    return parser.parse_args()


if __name__ == "__main__":
    main()
