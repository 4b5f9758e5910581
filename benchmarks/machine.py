"""The machine and the package versions of a measurement."""

from __future__ import annotations

import os
import platform
from importlib.metadata import version


def machine() -> str:
    """Return the processor, the number of cores that this process may use, and Python's version."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return f"{platform.machine()}, {cores} cores, Python {platform.python_version()}"


def versions(*packages: str) -> str:
    """Return the packages with their installed versions."""
    return ", ".join(f"{name} {version(name)}" for name in packages)


def ran_on(*packages: str) -> str:
    """Return the machine and the versions as the first lines of a report."""
    return f"- machine: {machine()}\n- versions: {versions(*packages)}"
