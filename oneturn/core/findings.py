"""Findings of checks and their reports: what was checked, how severe the finding is, and what to do."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any

from oneturn.core.secrets import redact
from oneturn.errors import OneTurnError


class Severity(str, Enum):
    """Severity of a finding.

    An error fails the check, a warning needs review, a note is informational. What couldn't be checked is unknown.
    """

    error = "error"
    warning = "warning"
    note = "note"
    unknown = "unknown"
    ok = "ok"


@dataclass(frozen=True)
class Finding:
    """What a check found. Its place is empty where it has none.

    Attributes:
        severity: its severity.
        check: the check's or the rule's name, such as ``"near-duplicate"``, or what was checked, such as ``"lm"``.
        message: the observation.
        fix: what to do; empty if nothing is needed.
        file: the name of the file.
        place: the row's position in the file, such as ``"line 3"``.
        field: the name of the field.
        value: the field's value.
        event: the position of the event in the stream, from 0.
    """

    severity: Severity
    check: str
    message: str
    fix: str = ""
    file: str = ""
    place: str = ""
    field: str = ""
    value: Any = None
    event: int | None = None

    def __str__(self) -> str:
        event = "" if self.event is None else f"event {self.event}"
        place = ", ".join(filter(None, (self.file, self.place, event)))
        text = f"{self.severity.value} {self.check}{f' ({place})' if place else ''}: {self.message}"
        return f"{text.rstrip('.')}. {self.fix}" if self.fix else text


@dataclass(frozen=True)
class Report:
    """The result of a check.

    Attributes:
        findings: the findings.
    """

    findings: Sequence[Finding]

    def count(self, severity: Severity) -> int:
        """Return the number of findings of this severity."""
        return sum(finding.severity is severity for finding in self.findings)

    def errors(self) -> list[Finding]:
        """Return the findings that fail the check."""
        return [finding for finding in self.findings if finding.severity is Severity.error]

    def passed(self, strict: bool = False) -> bool:
        """Return whether there is no error and, if ``strict``, no warning."""
        return not self.count(Severity.error) and not (strict and self.count(Severity.warning))


def ok(check: str, message: str) -> Finding:
    """Return a finding that needs nothing."""
    return Finding(Severity.ok, check, message)


def warning(check: str, message: str, fix: str) -> Finding:
    """Return a finding that needs review."""
    return Finding(Severity.warning, check, message, fix)


def unknown(check: str, message: str, fix: str = "") -> Finding:
    """Return a finding about what couldn't be checked."""
    return Finding(Severity.unknown, check, message, fix)


def problem(check: str, message: str, fix: str) -> Finding:
    """Return a finding that fails the check."""
    return Finding(Severity.error, check, message, fix)


def failure_line(error: Exception) -> str:
    """Return the first line of an exception's message, without secrets; its type too, unless it is oneturn's own."""
    first = redact(next(iter(str(error).strip().splitlines()), ""))[:300]
    return first if isinstance(error, OneTurnError) else f"{type(error).__name__}: {first}"
