"""``python -m benchmarks.memory [--requests 10000]``: what a serving process keeps of the requests it has answered.

64 clients ask at the same time, every other request is streamed, each makes a tool call or two. The last column is what
the process has grown by since the first line, a request.
"""

from __future__ import annotations

import argparse
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from benchmarks.report import between_marks
from benchmarks.serving.asking import asking_server, memory_of
from benchmarks.serving.processes import served, stub

LINES = 10
CLIENTS = 64
_HEAD = (
    "| requests | lost | resident memory | objects | bytes a request since the first line |\n"
    "| --- | --- | --- | --- | --- |"
)


def main() -> None:
    """Measure, print and, if asked to, write the report."""
    options = _options()
    lines = [_HEAD]
    print(_HEAD)
    with stub() as lm, served("ours", lm, tracking="") as url, ThreadPoolExecutor(CLIENTS) as pool:
        ways = [asking_server(url, streamed) for streamed in (True, False)]
        each, lost = options.requests // LINES, 0
        first: tuple[int, int] | None = None
        for line in range(1, LINES + 1):
            lost += sum(not answer.whole for answer in pool.map(lambda number: ways[number % 2](number), range(each)))
            count, (resident, objects) = line * each, memory_of(url)
            first = first or (count, resident)
            grown = f"{(resident - first[1]) / (count - first[0]):.0f}" if count > first[0] else "–"
            lines.append(f"| {count:,} | {lost} | {resident / 2**20:.1f} MiB | {objects:,} | {grown} |")
            print(lines[-1], flush=True)
    if options.report:
        path = Path(options.report)
        path.write_text(between_marks(path, "\n".join(lines) + "\n", "memory"), encoding="utf-8")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=10_000, help="how many in all")
    parser.add_argument("--report", help="a Markdown file to write")
    return parser.parse_args()


if __name__ == "__main__":
    main()
