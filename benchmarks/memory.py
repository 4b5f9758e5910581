"""``python -m benchmarks.memory [--requests 10000]``: what a serving process keeps of the requests it has answered.

Half of them are streamed. The last column is what the process has grown by since the first line, a request.
"""

from __future__ import annotations

import argparse
import gc
from pathlib import Path

import mlflow

import oneturn
from benchmarks.endless import EndlessLM
from benchmarks.report import between_marks

LINES = 10
_HEAD = "| requests | resident memory | objects | bytes a request since the first line |\n| --- | --- | --- | --- |"


def main() -> None:
    """Measure, print and, if asked to, write the report."""
    options = _options()
    mlflow.tracing.disable()
    agent = answering_agent()
    each = options.requests // LINES
    lines = [
        "| requests | resident memory | objects | bytes a request since the first line |",
        "| --- | --- | --- | --- |",
    ]
    first: tuple[int, int] | None = None
    for line in range(1, LINES + 1):
        ask(agent, each)
        gc.collect()
        count, resident = line * each, _resident()
        first = first or (count, resident)
        grown = f"{(resident - first[1]) / (count - first[0]):.0f}" if count > first[0] else "–"
        lines.append(f"| {count:,} | {resident / 2**20:.1f} MiB | {len(gc.get_objects()):,} | {grown} |")
        print(lines[-1], flush=True)
    if options.report:
        path = Path(options.report)
        path.write_text(between_marks(path, "\n".join(lines) + "\n"), encoding="utf-8")


def answering_agent() -> oneturn.ResponsesAdapter:
    """An agent that makes one tool call and answers."""

    def look_up(word: str) -> str:
        """Look a word up."""
        return f"the meaning of {word}" * 10

    program = oneturn.ReAct("question -> answer", tools=[look_up])
    program.set_lm(EndlessLM())
    return oneturn.ResponsesAdapter(program)


def ask(agent: oneturn.ResponsesAdapter, requests: int) -> None:
    """Ask so many different questions, every other one streamed."""
    for number in range(requests):
        request = {"input": [{"role": "user", "content": f"Question {number}? " + "And a long story. " * 50}]}
        if number % 2:
            agent.predict(request)  # type: ignore[arg-type]
        else:
            list(agent.predict_stream(request))  # type: ignore[arg-type]


def _resident() -> int:
    """Bytes that this process has in memory (Linux)."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=10_000, help="how many in all")
    parser.add_argument("--report", help="a Markdown file to write")
    return parser.parse_args()


if __name__ == "__main__":
    main()
