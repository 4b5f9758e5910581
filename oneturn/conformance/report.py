"""What was found at an endpoint."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from oneturn.conformance.rules import Violation
from oneturn.core.findings import Severity


@dataclass(frozen=True)
class Probe:
    """One thing that was tried.

    Attributes:
        name: what it is.
        requests: how many requests it took.
        violations: the rules that don't hold.
        facts: what was counted.
    """

    name: str
    requests: int
    violations: Sequence[Violation] = ()
    facts: dict[str, Any] = field(default_factory=dict)

    def count(self, severity: Severity) -> int:
        """How many violations are of this severity."""
        return sum(violation.severity is severity for violation in self.violations)


@dataclass(frozen=True)
class Report:
    """What was found at one endpoint.

    Attributes:
        url: where it was asked.
        contract: ``"OpenAI"``; ``"MLflow"`` for the weaker one; empty if no stream came.
        probes: what was tried, in order.
    """

    url: str
    contract: str
    probes: Sequence[Probe]

    @property
    def violations(self) -> list[Violation]:
        """All that were found."""
        return [violation for probe in self.probes for violation in probe.violations]

    def broken_rules(self, *severities: Severity) -> set[str]:
        """The names of the rules that don't hold: those of ``severities``, or the errors."""
        wanted = severities or (Severity.error,)
        return {violation.rule for violation in self.violations if violation.severity in wanted}

    def passed(self, strict: bool = False) -> bool:
        """Whether there was no error; when ``strict``, no warning either."""
        return not self.broken_rules(Severity.error, *([Severity.warning] if strict else []))

    def to_dict(self) -> dict[str, Any]:
        """The report as JSON has it."""
        return {"passed": self.passed(), **asdict(self)}
