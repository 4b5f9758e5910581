"""Run one evaluation: ``python -m benchmarks.evaluating.contenders NAME ROWS THREADS LATENCY``.

Prints its time, CPU, memory and LM calls as JSON.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import dspy
import mlflow

from benchmarks.evaluating.waiting_lm import WaitingLM

Rows = list[dict[str, str]]


def same(example: Any, prediction: Any, trace: Any = None) -> float:
    """The metric of all contenders."""
    return float(prediction.answer == example.answer)


def ours(rows: Path, threads: int, lm: dspy.LM) -> int:
    """``oneturn.evaluate``, with each row written to a file when it is finished."""
    return _ours(rows, threads, lm, output=rows.with_name("results.jsonl"))


def ours_in_memory(rows: Path, threads: int, lm: dspy.LM) -> int:
    """``oneturn.evaluate``, with rows in memory, as in ``dspy.Evaluate``."""
    return _ours(rows, threads, lm)


def ours_traced(rows: Path, threads: int, lm: dspy.LM) -> int:
    """``oneturn.evaluate`` with a trace per row, as in ``mlflow.genai.evaluate``."""
    mlflow.dspy.autolog()
    return _ours(rows, threads, lm, output=rows.with_name("results.jsonl"), trace=True)


def _ours(rows: Path, threads: int, lm: dspy.LM, **options: Any) -> int:
    import oneturn

    program = dspy.Predict("question -> answer")
    return len(oneturn.evaluate(program, rows, same, lm=lm, threads=threads, progress=False, **options).figures)


def with_dspy(rows: Path, threads: int, lm: dspy.LM) -> int:
    """``dspy.Evaluate``."""
    examples = [dspy.Example(**row).with_inputs("question") for row in _read(rows)]
    with dspy.context(lm=lm):
        evaluate = dspy.Evaluate(devset=examples, metric=same, num_threads=threads, display_progress=False)
        return len(evaluate(dspy.Predict("question -> answer")).results)


def with_mlflow(rows: Path, threads: int, lm: dspy.LM) -> int:
    """``mlflow.genai.evaluate``, which traces every row."""
    os.environ["MLFLOW_GENAI_EVAL_MAX_WORKERS"] = str(threads)
    os.environ["MLFLOW_GENAI_EVAL_PREDICT_RATE_LIMIT"] = "0"
    program = dspy.Predict("question -> answer")

    def predict(question: str) -> str:
        with dspy.context(lm=lm):
            return str(program(question=question).answer)

    @mlflow.genai.scorer
    def right(outputs: str, expectations: dict[str, Any]) -> float:
        return float(outputs == expectations["answer"])

    mlflow.dspy.autolog()
    data = [{"inputs": {"question": row["question"]}, "expectations": {"answer": row["answer"]}} for row in _read(rows)]
    result = mlflow.genai.evaluate(data=data, predict_fn=predict, scorers=[right])
    return 0 if result.result_df is None else len(result.result_df)


CONTENDERS: dict[str, Callable[[Path, int, dspy.LM], int]] = {
    "oneturn.evaluate": ours,
    "oneturn.evaluate, in memory": ours_in_memory,
    "dspy.Evaluate": with_dspy,
    "oneturn.evaluate, traced": ours_traced,
    "mlflow.genai.evaluate": with_mlflow,
}


def main() -> None:
    """Evaluate, and print the measurement as JSON."""
    name, count, threads, latency = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4])
    with tempfile.TemporaryDirectory() as folder:
        mlflow.set_tracking_uri(f"sqlite:///{folder}/mlflow.db")
        rows = Path(folder, "rows.jsonl")
        rows.write_text("".join(_lines(count)), encoding="utf-8")
        CONTENDERS[name](_few(rows), 2, WaitingLM(0.0))  # warm-up: excludes imports and startup
        mlflow.flush_trace_async_logging()
        lm = WaitingLM(latency)
        start, cpu_start = time.perf_counter(), time.process_time()
        count = CONTENDERS[name](rows, threads, lm)
        mlflow.flush_trace_async_logging()
        usage = {"seconds": time.perf_counter() - start, "cpu": time.process_time() - cpu_start}
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        print(json.dumps({"rows": count, "lm_calls": lm.answered, "peak": peak, **usage}))


def _few(rows: Path) -> Path:
    few = rows.parent / "few" / rows.name
    few.parent.mkdir()
    few.write_text("".join(_lines(4)), encoding="utf-8")
    return few


def _lines(count: int) -> Iterator[str]:
    for number in range(count):
        yield json.dumps({"question": f"Is {number} a number?", "answer": "yes"}) + "\n"


def _read(rows: Path) -> Rows:
    return [json.loads(line) for line in rows.read_text(encoding="utf-8").splitlines()]


if __name__ == "__main__":
    main()
