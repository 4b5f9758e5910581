"""Repair JSON Lines files after an interrupted append."""

from __future__ import annotations

from pathlib import Path


def truncate_partial_line(path: Path) -> None:
    """Remove an incomplete last line, left by a process that was killed while writing."""
    with path.open("rb+") as file:
        complete_bytes = 0
        for line in file:
            if line.endswith(b"\n"):
                complete_bytes += len(line)
        file.truncate(complete_bytes)
