"""Check any endpoint of the Responses protocol: ``oneturn check URL``, and these functions for tests.

from oneturn.conformance import check_stream

assert check_stream(agent.predict_stream(request)) == []
"""

from oneturn.conformance.grading import check_endpoint
from oneturn.conformance.junit import to_junit
from oneturn.conformance.report import EndpointReport, Probe
from oneturn.conformance.response import check_response, compare
from oneturn.conformance.rule import Rule
from oneturn.conformance.rules import RULES, Contract
from oneturn.conformance.sarif import to_sarif
from oneturn.conformance.stream import check_stream
from oneturn.core.findings import Finding, Severity

__all__ = [
    "RULES",
    "Contract",
    "EndpointReport",
    "Finding",
    "Probe",
    "Rule",
    "Severity",
    "check_endpoint",
    "check_response",
    "check_stream",
    "compare",
    "to_junit",
    "to_sarif",
]
