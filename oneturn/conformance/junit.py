"""Reports as JUnit XML, which CI systems show as tests."""

from __future__ import annotations

import re
from collections.abc import Sequence
from xml.etree import ElementTree

from oneturn.conformance.report import EndpointReport, Probe
from oneturn.core.findings import Finding, Severity

_NOT_XML = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def to_junit(report: EndpointReport, strict: bool = False) -> str:
    """Return a report as JUnit XML.

    Each probe is a test suite: with one failed test for each broken rule, or one passed test. A test of the acceptance
    suite that the endpoint refuses by name is skipped. Other warnings, and notes, are the suite's output.

    Args:
        report: the report.
        strict: whether warnings are failures.
    """
    root = ElementTree.Element("testsuites", name=f"oneturn check {report.contract}")
    for probe in report.probes:
        root.append(_suite(probe, report.contract, strict))
    for count in ("tests", "failures", "errors", "skipped"):
        root.set(count, str(sum(int(suite.get(count, 0)) for suite in root)))
    ElementTree.indent(root)
    return ElementTree.tostring(root, encoding="unicode", xml_declaration=True) + "\n"


def _suite(probe: Probe, contract: str, strict: bool) -> ElementTree.Element:
    failing = (Severity.error, Severity.warning) if strict else (Severity.error,)
    broken: dict[str, list[Finding]] = {}
    for finding in probe.findings:
        if finding.severity in failing:
            broken.setdefault(finding.check, []).append(finding)
    others = [finding for finding in probe.findings if finding.severity not in failing]
    refused = [finding for finding in others if finding.check == "suite-refused"]
    suite = ElementTree.Element(
        "testsuite",
        name=probe.name,
        tests=str(len(broken) or 1),
        failures=str(len(broken)),
        errors="0",
        skipped=str(int(bool(refused and not broken))),
    )
    for rule, findings in broken.items():
        case = ElementTree.SubElement(suite, "testcase", classname=f"{contract}.{probe.name}", name=rule)
        failure = ElementTree.SubElement(case, "failure", type=rule, message=_xml(findings[0].message))
        failure.text = _lines(findings)
    if not broken:
        case = ElementTree.SubElement(suite, "testcase", classname=f"{contract}.{probe.name}", name=probe.name)
        if refused:
            ElementTree.SubElement(case, "skipped", message=_xml(refused[0].message))
    if others:
        ElementTree.SubElement(suite, "system-out").text = _lines(others)
    return suite


def _lines(findings: Sequence[Finding]) -> str:
    return _xml("\n".join(map(str, findings)))


def _xml(text: str) -> str:
    """Replace the characters that XML can't contain."""
    return _NOT_XML.sub("\N{REPLACEMENT CHARACTER}", text)
