"""The report of a check of an endpoint. The ``check`` of a finding is the name of the broken rule."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from oneturn.conformance.rules import Contract
from oneturn.core.findings import Report, Severity


@dataclass(frozen=True)
class Probe(Report):
    """The result of one probe.

    Attributes:
        name: its name.
        requests: the number of requests sent.
        facts: counts and statuses.
    """

    name: str
    requests: int
    facts: dict[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Return the probe as a JSON object."""
        violations = [
            {"rule": each.check, "severity": each.severity.value, "message": each.message, "event": each.event}
            for each in self.findings
        ]
        return {"name": self.name, "requests": self.requests, "violations": violations, "facts": self.facts}


@dataclass(frozen=True)
class EndpointReport(Report):
    """The result of checking one endpoint.

    Attributes:
        url: the URL that requests were sent to.
        contract: the contract that was checked, ``"openresponses"`` or ``"mlflow"``.
        probes: the probes, in order.
    """

    url: str
    contract: Contract
    probes: Sequence[Probe]

    def broken_rules(self, *severities: Severity) -> set[str]:
        """Return the names of the broken rules of ``severities``; of errors by default."""
        selected = severities or (Severity.error,)
        return {finding.check for finding in self.findings if finding.severity in selected}

    def to_dict(self) -> dict[str, Any]:
        """Return the report as a JSON object."""
        probes = [probe.to_dict() for probe in self.probes]
        return {"passed": self.passed(), "url": self.url, "contract": self.contract, "probes": probes}
