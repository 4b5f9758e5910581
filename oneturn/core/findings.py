"""Results of checks: findings with a state, a message and a fix."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from enum import Enum
from typing import Any

from oneturn.core.serialization import plain


class State(str, Enum):
    """State of a finding: a problem breaks the agent, a warning may, and unknown means it couldn't be checked."""

    ok = "ok"
    warning = "warning"
    unknown = "unknown"
    problem = "problem"


@dataclass(frozen=True)
class Finding:
    """The result of one check.

    Attributes:
        subject: what was checked, such as ``"lm"`` or ``"function main.shop.status"``.
        state: the result.
        said: the observation.
        fix: what to do; empty if nothing is needed.
    """

    subject: str
    state: State
    said: str
    fix: str = ""

    def line(self) -> str:
        """The finding as one line of text."""
        return " ".join(filter(None, (f"{self.subject}: {self.said}.", self.fix)))


Check = Callable[[], Iterator[Finding]]
"""A check: a function that yields its findings."""


@dataclass(frozen=True)
class Report:
    """All findings, in order of dependency: later checks depend on earlier ones."""

    findings: Sequence[Finding]

    def passed(self) -> bool:
        """Whether there are no problems."""
        return not self.problems()

    def problems(self) -> list[Finding]:
        """The findings with state ``problem``."""
        return [finding for finding in self.findings if finding.state is State.problem]

    def count(self, state: State) -> int:
        """The number of findings with this state."""
        return sum(finding.state is state for finding in self.findings)

    def to_dict(self) -> dict[str, Any]:
        """Return the report as a JSON-serializable dict."""
        findings = [{**asdict(finding), "state": finding.state.value} for finding in self.findings]
        return {"passed": self.passed(), "findings": findings}


def ok(subject: str, said: str) -> Finding:
    """Return a finding without a problem."""
    return Finding(subject, State.ok, said)


def warning(subject: str, said: str, fix: str) -> Finding:
    """Return a finding that may break the agent."""
    return Finding(subject, State.warning, said, fix)


def unknown(subject: str, said: str, fix: str = "") -> Finding:
    """Return a finding for something that couldn't be checked."""
    return Finding(subject, State.unknown, said, fix)


def problem(subject: str, said: str, fix: str) -> Finding:
    """Return a finding that breaks the agent."""
    return Finding(subject, State.problem, said, fix)


class Severity(str, Enum):
    """Severity of a finding: an error fails the check, a warning needs review, a note is informational."""

    error = "error"
    warning = "warning"
    note = "note"


@dataclass(frozen=True)
class DataFinding:
    """A problem found in a dataset.

    Attributes:
        severity: error, warning or note.
        check: the name of the check, such as ``"schema"`` or ``"near-duplicate"``.
        message: the problem.
        fix: what to do about it.
        file: the file's name; empty if the finding isn't about a single file.
        place: the row's position in the file, such as ``"line 3"``.
        field: the field's name; empty if the finding isn't about a single field.
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
        """Return the finding as a JSON-serializable dict."""
        return {**asdict(self), "severity": self.severity.value, "value": plain(self.value)}
