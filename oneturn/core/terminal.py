"""Show texts in a terminal: control characters made visible, progress only where a line can be redrawn."""

from __future__ import annotations

import sys


def visible(text: str) -> str:
    r"""Escape the characters that a terminal doesn't print, such as ``\u001b``, newlines included."""
    return "".join(char if char.isprintable() else _escaped(char) for char in text)


def visible_lines(text: str) -> str:
    """Escape the characters that a terminal doesn't print, except newlines and tabs."""
    return "".join(char if char.isprintable() or char in "\n\t" else _escaped(char) for char in text)


def can_redraw() -> bool:
    """Whether a line of progress can be drawn twice: in a terminal and in a notebook, not in a pipe or a log."""
    return sys.stderr.isatty() or _in_kernel()


def _in_kernel() -> bool:
    """Whether this process is a notebook's kernel: others may have imported ``ipykernel`` as well."""
    ipython = sys.modules.get("IPython")
    shell = None if ipython is None else ipython.get_ipython()
    return getattr(shell, "kernel", None) is not None


def _escaped(char: str) -> str:
    return f"\\u{ord(char):04x}" if ord(char) <= 0xFFFF else f"\\U{ord(char):08x}"
