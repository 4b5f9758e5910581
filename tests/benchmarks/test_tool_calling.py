"""The comparison of ReAct modules: each of them answers, and ours makes no more LM calls than any other."""

from __future__ import annotations

import re
import sys

import pytest

from benchmarks import tool_calling


def test_all_modules_are_measured(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    monkeypatch.setattr(sys, "argv", ["tool_calling", "--runs", "1"])
    tool_calling.main()
    rows = re.findall(r"^\| `(.*)` \| (\w+) \| ([\d.]+) \| (\d+) \|", capsys.readouterr().out, re.MULTILINE)
    calls = {(name, way): float(count) for name, way, count, _ in rows}
    assert calls == {
        ("oneturn.ReAct", "functions"): 2,
        ("oneturn.ReAct", "schema"): 2,
        ("oneturn.ReAct", "text"): 2,
        ("dspy.ReActV2", "functions"): 2,
        ("dspy.ReActV2", "text"): 2,
        ("dspy.ReAct", "text"): 3,
    }
    tokens = {(name, way): int(count) for name, way, _, count in rows}
    ours = max(count for (name, _), count in tokens.items() if name == "oneturn.ReAct")
    assert ours < min(count for (name, _), count in tokens.items() if name != "oneturn.ReAct")
