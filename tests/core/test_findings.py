"""Findings and reports."""

from __future__ import annotations

from dataclasses import replace

import pytest

from oneturn.core.findings import Finding, Report, Severity

ERROR = Finding(Severity.error, "schema", "'answer' is missing.", "Add it.", "dev.jsonl", "line 3", "answer")
WARNING, NOTE = replace(ERROR, severity=Severity.warning), replace(ERROR, severity=Severity.note)
UNKNOWN, OK = Finding(Severity.unknown, "lm", "no answer"), Finding(Severity.ok, "lm", "it answers")


@pytest.mark.parametrize(
    ("findings", "passed", "strictly"),
    [
        ([], True, True),
        ([OK, NOTE, UNKNOWN], True, True),
        ([OK, WARNING], True, False),
        ([ERROR, OK], False, False),
    ],
)
def test_errors_fail_a_check_and_warnings_a_strict_one(findings: list[Finding], passed: bool, strictly: bool):
    report = Report(findings)
    assert (report.passed(), report.passed(strict=True)) == (passed, strictly)
    assert report.errors() == [finding for finding in findings if finding is ERROR]


def test_findings_are_counted_by_severity():
    report = Report([ERROR, WARNING, WARNING, OK])
    assert [report.count(severity) for severity in Severity] == [1, 2, 0, 0, 1]


@pytest.mark.parametrize(
    ("finding", "text"),
    [
        (ERROR, "error schema (dev.jsonl, line 3): 'answer' is missing. Add it."),
        (OK, "ok lm: it answers"),
        (Finding(Severity.warning, "error-leaks", "A path.", event=0), "warning error-leaks (event 0): A path."),
    ],
)
def test_a_finding_as_text_has_its_place_and_fix(finding: Finding, text: str):
    assert str(finding) == text
