"""What a measurement ran on: a figure without it says nothing."""

from __future__ import annotations

import os
import platform
from importlib.metadata import version


def machine() -> str:
    """The processor, the cores that this process may use, and Python's version."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return f"{platform.machine()}, {cores} cores, Python {platform.python_version()}"


def versions(*packages: str) -> str:
    """The packages with their versions."""
    return ", ".join(f"{name} {version(name)}" for name in packages)


def ran_on(*packages: str) -> str:
    """Both, as the first lines of a report."""
    return f"- machine: {machine()}\n- versions: {versions(*packages)}"
