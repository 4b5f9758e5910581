"""Reports as SARIF 2.1.0, which code hosts and editors show as problems."""

from __future__ import annotations

import json
from importlib.metadata import version
from typing import Any

from oneturn.conformance.report import EndpointReport
from oneturn.conformance.rules import RULES
from oneturn.core.findings import Finding, Severity

_SCHEMA = "https://json.schemastore.org/sarif-2.1.0.json"
_LEVELS = {Severity.error: "error", Severity.warning: "warning", Severity.note: "note"}


def to_sarif(report: EndpointReport) -> str:
    """Return a report as SARIF: the broken rules, and a result for each violation, located at the endpoint's URL."""
    found = [(probe.name, finding) for probe in report.probes for finding in probe.findings]
    names = list(dict.fromkeys(finding.check for _, finding in found))
    run = {
        "tool": {
            "driver": {"name": "oneturn check", "version": version("oneturn"), "rules": [_rule(name) for name in names]}
        },
        "automationDetails": {"id": f"{report.contract}/"},
        "results": [_result(report.url, probe, finding, names.index(finding.check)) for probe, finding in found],
    }
    return json.dumps({"$schema": _SCHEMA, "version": "2.1.0", "runs": [run]}, indent=2, ensure_ascii=False) + "\n"


def _rule(name: str) -> dict[str, Any]:
    rule = RULES[name]
    return {
        "id": name,
        "shortDescription": {"text": rule.asks},
        "fullDescription": {"text": f"{rule.asks} {rule.why}"},
        "help": {"text": rule.why},
        "defaultConfiguration": {"level": _LEVELS[rule.severity]},
    }


def _result(url: str, probe: str, finding: Finding, index: int) -> dict[str, Any]:
    event = "" if finding.event is None else f"/event {finding.event}"
    return {
        "ruleId": finding.check,
        "ruleIndex": index,
        "level": _LEVELS[finding.severity],
        "message": {"text": f"{probe}{event.replace('/', ', ')}: {finding.message}"},
        "locations": [
            {
                "physicalLocation": {"artifactLocation": {"uri": url}, "region": {"startLine": 1}},
                "logicalLocations": [{"name": probe, "fullyQualifiedName": f"{probe}{event}"}],
            }
        ],
    }
