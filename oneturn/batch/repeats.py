"""Each example several times, and nothing remembered from one time to the next."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import dspy
from dspy.clients.cache import Cache

from oneturn.batch.sources import Source
from oneturn.errors import DataError


def repeated(source: Source, repeats: int) -> Source:
    """The rows of a source, each so many times in a row.

    Raises:
        DataError: it isn't a positive number.
    """
    if repeats < 1:
        raise DataError(f"repeats is {repeats}; an example is tried at least once.")
    if repeats == 1:
        return source
    return replace(
        source,
        rows=lambda: (row for row in source.rows() for _ in range(repeats)),
        count=None if source.count is None else source.count * repeats,
        key=f"{source.key} x {repeats}",
    )


@contextmanager
def uncached() -> Iterator[None]:
    """DSPy without its cache, which would answer each time as the first time."""
    before = dspy.cache
    dspy.cache = Cache(enable_disk_cache=False, enable_memory_cache=False, disk_cache_dir=None)
    try:
        yield
    finally:
        dspy.cache = before
