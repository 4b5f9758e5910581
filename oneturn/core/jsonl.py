"""Files to which lines are appended by a process that may be killed."""

from __future__ import annotations

from pathlib import Path


def truncate_partial_line(path: Path) -> None:
    """Take away a last line that a killed process has left half written."""
    with path.open("rb+") as file:
        whole = 0
        for line in file:
            if line.endswith(b"\n"):
                whole += len(line)
        file.truncate(whole)
