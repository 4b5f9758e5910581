"""``python -m benchmarks.memory [--requests 10000] [--clients 64]``: memory of a serving process over many requests.

The clients send requests concurrently; every other request is streamed. Each request makes one or two tool calls. The
last column is the growth of the process per request since the first line.
"""

from __future__ import annotations

import argparse
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from benchmarks.report import between_marks
from benchmarks.serving.clients import server_client, server_memory
from benchmarks.serving.processes import run_server, run_stub_lm

LINES = 10
CLIENTS = 64
_HEAD = (
    "| requests | lost | resident memory | objects | bytes a request since the first line |\n"
    "| --- | --- | --- | --- | --- |"
)


def main() -> None:
    """Measure, print the table and, with ``--report``, write it."""
    options = _options()
    lines = [_HEAD]
    print(_HEAD)
    with run_stub_lm() as lm, run_server("ours", lm, tracking="") as url, ThreadPoolExecutor(options.clients) as pool:
        clients = [server_client(url, streamed) for streamed in (True, False)]
        each, lost = options.requests // LINES, 0
        first: tuple[int, int] | None = None
        for line in range(1, LINES + 1):
            answers = pool.map(lambda number: clients[number % 2](number), range(each))
            lost += sum(not answer.complete for answer in answers)
            count, (resident, objects) = line * each, server_memory(url)
            first = first or (count, resident)
            growth = f"{(resident - first[1]) / (count - first[0]):.0f}" if count > first[0] else "–"
            lines.append(f"| {count:,} | {lost} | {resident / 2**20:.1f} MiB | {objects:,} | {growth} |")
            print(lines[-1], flush=True)
    if options.report:
        path = Path(options.report)
        path.write_text(between_marks(path, "\n".join(lines) + "\n", "memory"), encoding="utf-8")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=10_000, help="total number of requests")
    parser.add_argument("--clients", type=int, default=CLIENTS, help="number of concurrent clients")
    parser.add_argument("--report", help="Markdown file to write")
    return parser.parse_args()


if __name__ == "__main__":
    main()
