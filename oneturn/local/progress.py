"""Bytes and speed of a long transfer, on stderr: a bar for a person, a line every few seconds for a log."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

Update = Callable[[int], None]
"""Called with the bytes done so far."""

_SECONDS_BETWEEN_LINES = 5.0


@contextmanager
def shown(label: str, total: int, *, enabled: bool = True) -> Iterator[Update]:
    """Show a transfer of about ``total`` bytes while the block runs; yields the function to report bytes to."""
    if not enabled:
        yield lambda done: None
    elif sys.stderr.isatty():
        with _bar(label, total) as update:
            yield update
    else:
        with _lines(label, total) as update:
            yield update


@contextmanager
def _bar(label: str, total: int) -> Iterator[Update]:
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True)) as progress:
        task = progress.add_task(label, total=total)
        yield lambda done: progress.update(task, completed=done)


@contextmanager
def _lines(label: str, total: int) -> Iterator[Update]:
    started = printed = time.monotonic()
    first = latest = said = -1

    def line() -> None:
        nonlocal said
        said = latest
        speed = (latest - first) / max(time.monotonic() - started, 1e-3)
        _say(f"{label}: {latest / 1e6:.0f} of {total / 1e6:.0f} MB, {speed / 1e6:.1f} MB/s")

    def update(done: int) -> None:
        nonlocal first, latest, printed
        first = done if first < 0 else first  # bytes that an earlier, interrupted run left don't count as speed
        latest = done
        if time.monotonic() - printed >= _SECONDS_BETWEEN_LINES:
            printed = time.monotonic()
            line()

    _say(f"{label}: {total / 1e6:.0f} MB to fetch")
    yield update
    if latest != said:
        line()


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
