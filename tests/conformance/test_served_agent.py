"""Our agent passes check_endpoint over HTTP."""

from __future__ import annotations

import re
from typing import Any

import pytest
from dspy.lm15 import RateLimitError
from mlflow.types.responses import ResponsesAgentRequest

import oneturn
from oneturn.conformance import Severity, check_endpoint, check_stream
from oneturn.testing import ScriptedLM, ScriptedRequest, call, finish

# MLflow drops usage.input_tokens_details.cache_write_tokens without a stream; OpenAI has no code for an agent's errors.
KNOWN_WARNINGS = {"openai-fields", "own-code", "suite-refused"}
QUESTION = "Say it again: {marker}"


def look_up(word: str) -> str:
    """Look a word up."""
    return f"meaning of {word}"


def reply(request: ScriptedRequest) -> dict[str, Any]:
    if "get_weather" in request.text and "64 degrees" not in request.text:  # the client's tool of the acceptance suite
        return call("get_weather", "I look it up", location="San Francisco, CA")
    marker = (re.findall(r"marker-\w+|\bnone\b", request.text) or ["the suite"])[0]
    if f"meaning of {marker}" in request.text:
        return finish(answer=f"It is {marker}, and nothing but {marker}.")
    return call("look_up", "I look it up", word=marker)


def adapter(replies: int = 400) -> oneturn.ResponsesAdapter:
    program = oneturn.ReAct("question -> answer", tools=[look_up])
    program.set_lm(ScriptedLM(*[reply] * replies))
    return oneturn.ResponsesAdapter(program)


@pytest.mark.parametrize(("path", "contract"), [("/responses", "mlflow"), ("/v1/responses", "openresponses")])
def test_served_agent_passes(path: str, contract: str):
    probes: list[str] = []
    with oneturn.running_server(adapter()) as url:
        report = check_endpoint(
            url + path,
            question=QUESTION,
            concurrency=16,
            echo=True,
            deterministic=True,
            answered=contract == "mlflow",
            timeout=60,
            on_probe=probes.append,
        )
    assert report.broken_rules() == set(), report.findings
    assert report.broken_rules(Severity.warning) <= KNOWN_WARNINGS
    assert report.passed()
    assert report.contract == contract
    assert report.probes[-1].facts == {"streams": 16, "lost": 0, "mixed": 0, "refused": 0}
    assert probes[-1] == "16 streams at once"


def broken_tool(word: str) -> str:
    """Look a word up."""
    raise RuntimeError(f"no {word}")


RUNS = {
    "a tool that fails": (call("broken_tool", "I try", word="tide"), finish(answer="I don't know.")),
    "an LM that fails at once": (RateLimitError("slow down"),),
    "an LM that fails after a call": (call("broken_tool", word="tide"), RateLimitError("slow down")),
    "an answer that is retried": (finish(answer="Twelve", count="many"), finish(answer="12", count=12)),
    "an answer that is never valid": (finish(answer="Twelve", count="many"),) * 3,
}


@pytest.mark.parametrize("case", RUNS)
def test_stream_is_valid_for_every_outcome(case: str):
    program = oneturn.ReAct(
        "question -> answer, count: int" if "answer" in case else "question -> answer", [broken_tool]
    )
    program.set_lm(ScriptedLM(*RUNS[case]))
    request = ResponsesAgentRequest(input=[{"role": "user", "content": "?"}])
    violations = check_stream(oneturn.ResponsesAdapter(program).predict_stream(request), answered=True)
    assert {violation.check for violation in violations} <= KNOWN_WARNINGS
