"""The report of a check of an endpoint."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from oneturn.conformance.rules import Violation
from oneturn.core.findings import Severity


@dataclass(frozen=True)
class Probe:
    """The result of one probe.

    Attributes:
        name: its name.
        requests: the number of requests sent.
        violations: the broken rules.
        facts: counts and statuses.
    """

    name: str
    requests: int
    violations: Sequence[Violation] = ()
    facts: dict[str, Any] = field(default_factory=dict)

    def count(self, severity: Severity) -> int:
        """Count the violations of this severity."""
        return sum(violation.severity is severity for violation in self.violations)


@dataclass(frozen=True)
class Report:
    """The result of checking one endpoint.

    Attributes:
        url: the URL that requests were sent to.
        contract: ``"OpenAI"``; ``"MLflow"`` for the weaker one; empty if there was no stream.
        probes: the probes, in order.
    """

    url: str
    contract: str
    probes: Sequence[Probe]

    @property
    def violations(self) -> list[Violation]:
        """The violations of all probes."""
        return [violation for probe in self.probes for violation in probe.violations]

    def broken_rules(self, *severities: Severity) -> set[str]:
        """Return the names of the broken rules of ``severities``; of errors by default."""
        selected = severities or (Severity.error,)
        return {violation.rule for violation in self.violations if violation.severity in selected}

    def passed(self, strict: bool = False) -> bool:
        """Whether there are no errors and, if ``strict``, no warnings."""
        return not self.broken_rules(Severity.error, *([Severity.warning] if strict else []))

    def to_dict(self) -> dict[str, Any]:
        """Return the report as a JSON object."""
        return {"passed": self.passed(), **asdict(self)}
