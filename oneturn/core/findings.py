"""What was looked at, how it is, and what to do about it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from enum import Enum
from typing import Any

from oneturn.core.serialization import plain


class State(str, Enum):
    """How it is: a problem keeps the agent from working, a warning may, and what is unknown couldn't be looked at."""

    ok = "ok"
    warning = "warning"
    unknown = "unknown"
    problem = "problem"


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        subject: what it is, such as ``"lm"`` or ``"function main.shop.status"``.
        state: how it is.
        said: what was seen.
        fix: what to do; empty where nothing is to be done.
    """

    subject: str
    state: State
    said: str
    fix: str = ""

    def line(self) -> str:
        """The finding in a line."""
        return " ".join(filter(None, (f"{self.subject}: {self.said}.", self.fix)))


Check = Callable[[], Iterator[Finding]]
"""Looks at something; what it looks at tells its findings."""


@dataclass(frozen=True)
class Report:
    """All that was looked at, in the order of need: what comes first is what the rest stands on."""

    findings: Sequence[Finding]

    def passed(self) -> bool:
        """Whether there is no problem."""
        return not self.problems()

    def problems(self) -> list[Finding]:
        """What keeps the agent from working."""
        return [finding for finding in self.findings if finding.state is State.problem]

    def count(self, state: State) -> int:
        """How many findings are so."""
        return sum(finding.state is state for finding in self.findings)

    def to_dict(self) -> dict[str, Any]:
        """The report as JSON has it."""
        found = [{**asdict(finding), "state": finding.state.value} for finding in self.findings]
        return {"passed": self.passed(), "findings": found}


def ok(subject: str, said: str) -> Finding:
    """It is as it should be."""
    return Finding(subject, State.ok, said)


def warning(subject: str, said: str, fix: str) -> Finding:
    """It may keep the agent from working."""
    return Finding(subject, State.warning, said, fix)


def unknown(subject: str, said: str, fix: str = "") -> Finding:
    """It couldn't be looked at."""
    return Finding(subject, State.unknown, said, fix)


def problem(subject: str, said: str, fix: str) -> Finding:
    """It keeps the agent from working."""
    return Finding(subject, State.problem, said, fix)


class Severity(str, Enum):
    """How bad it is: an error fails the check, a warning wants a look, a note is for information."""

    error = "error"
    warning = "warning"
    note = "note"


@dataclass(frozen=True)
class DataFinding:
    """One thing that a check found.

    Attributes:
        severity: how bad it is.
        check: which check found it, such as ``"schema"`` or ``"near-duplicate"``.
        message: what is wrong.
        fix: what to do about it.
        file: the file's name; empty where no single file is meant.
        place: the row's place in the file, such as ``"line 3"``.
        field: the field's name; empty where no single field is meant.
        value: the field's value.
    """

    severity: Severity
    check: str
    message: str
    fix: str
    file: str = ""
    place: str = ""
    field: str = ""
    value: Any = None

    def to_dict(self) -> dict[str, Any]:
        """The finding as JSON has it."""
        return {**asdict(self), "severity": self.severity.value, "value": plain(self.value)}
