"""The examples in docs/tools.md, requests-and-streams.md and evaluation.md work as described."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import dspy
import pytest

import oneturn
from oneturn.testing import ScriptedLM, call, finish, sections
from oneturn.tools.decorator import options_of

DOCS = Path(__file__).parents[1] / "docs"
QUESTION = {"role": "user", "content": "Refund 300 euros."}


def examples(page: str) -> list[dict[str, Any]]:
    """Return the namespace of each Python example of a page."""
    text = (DOCS / page).read_text(encoding="utf-8")
    namespaces: list[dict[str, Any]] = []
    for code in re.findall(r"^```python\n(.*?)^```", text, re.DOTALL | re.MULTILINE):
        namespaces.append({})
        exec(compile(code, page, "exec", dont_inherit=True), namespaces[-1])
    return namespaces


def test_report_example_has_a_timeout():
    report, *_ = examples("tools.md")
    program = oneturn.ReAct("question -> answer", tools=[report["run_report"]])
    assert options_of(program.tools["run_report"]).timeout == 300
    assert program.tools["run_report"](month="May") == "42 pages"


def test_refund_example_requests_an_approval():
    _, approved, *_ = examples("tools.md")
    approved["program"].set_lm(ScriptedLM(call("refund", euros=300)))
    *_, last = approved["agent"].predict_stream({"input": [QUESTION]})
    assert [item["type"] for item in last.response["output"]][-1] == "mcp_approval_request"


def test_approval_examples_work_with_both_clients(monkeypatch: pytest.MonkeyPatch):
    _, served, ours, openais, _ = examples("tools.md")
    monkeypatch.setattr("builtins.input", lambda prompt: "y")
    for ask in (ours["refund_order_7"], openais["refund_order_8"]):
        served["program"].set_lm(ScriptedLM(call("refund", euros=300), finish(answer="Refunded.")))
        with oneturn.running_server(served["agent"]) as url:
            assert ask(url) == "Refunded."


def test_a_run_that_asks_before_it_pays_is_scored():
    _, served, *_, scored = examples("tools.md")
    served["program"].set_lm(ScriptedLM(call("refund", euros=300)))
    rows = oneturn.evaluate(served["program"], [{"question": "Refund?"}], scored["asks_before_it_pays"], progress=False)
    assert rows.score == 1.0


def test_pricing_example_needs_no_question():
    (price,) = examples("requests-and-streams.md")
    with ScriptedLM(sections(total=7.5)) as lm, dspy.context(lm=lm):
        *_, last = price["agent"].predict_stream(price["request"])
    assert last.response["custom_outputs"] == {"total": 7.5}
    assert last.response["output"][-1]["content"][0]["text"] == '{"total": 7.5}'


def test_evaluation_example_returns_its_figures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    (page,) = examples("evaluation.md")
    program = dspy.Predict("question -> answer")
    program.set_lm(ScriptedLM(*[sections(answer="yes")] * 2))
    score, interval, latency, rows = page["measured"](program, [{"question": "a"}, {"question": "b"}], lambda *_: 1.0)
    assert (score, interval, list(latency), len(rows)) == (1.0, (pytest.approx(0.342, abs=0.001), 1.0), [50, 90, 99], 2)
