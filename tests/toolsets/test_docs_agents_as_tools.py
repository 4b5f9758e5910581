"""Each example of the page about agents as tools makes an agent that answers."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import dspy

import oneturn
from oneturn.testing import ScriptedLM, call, finish

PAGE = (Path(__file__).parents[2] / "docs" / "agents-as-tools.md").read_text(encoding="utf-8")
EXAMPLES = dict(
    re.findall(r"^## ([^\n]+)\n(?:(?!^## |^```)[^\n]*\n)*```python\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)
)
IN_PROCESS, ENDPOINT, SOURCES = (
    "An agent in this process",
    "An agent behind an endpoint",
    "A tool of your own with sources",
)
ADDRESS = "http://127.0.0.1:8000"


def test_every_example_is_tried():
    assert list(EXAMPLES) == [IN_PROCESS, ENDPOINT, SOURCES]


def answered(code: str, *script: Any) -> Any:
    """What the example's agent answers over Responses, and what its LM last read."""
    names: dict[str, Any] = {}
    exec(code, names)
    with ScriptedLM(*script) as lm, dspy.context(lm=lm):
        served = oneturn.ResponsesAdapter(names["agent"])
        reply = served.predict({"input": [{"role": "user", "content": "What does a late book cost?"}]})
    return reply, lm.requests[-1].text


def test_an_agent_in_this_process():
    reply, read = answered(
        EXAMPLES[IN_PROCESS],
        call("ask_handbook", question="What does a late book cost?"),
        call("search_handbook", query="late"),
        finish(answer="Four euros."),
        finish(answer="It costs four euros."),
    )
    assert reply.output[-1].content[0]["text"] == "It costs four euros."
    assert "Four euros." in read
    assert "A late book" not in read


def test_an_agent_behind_an_endpoint():
    prices = dspy.Predict("question, guests: int -> answer, euros: float")
    prices.set_lm(ScriptedLM("[[ ## answer ## ]]\nTwelve euros.\n\n[[ ## euros ## ]]\n12.0\n\n[[ ## completed ## ]]"))
    with oneturn.running_server(oneturn.ResponsesAdapter(prices)) as url:
        assert ADDRESS in EXAMPLES[ENDPOINT]
        reply, read = answered(
            EXAMPLES[ENDPOINT].replace(ADDRESS, url),
            call("ask_prices", question="Three books", guests=3),
            finish(answer="Twelve."),
        )
    assert reply.output[-1].content[0]["text"] == "Twelve."
    assert '{"answer": "Twelve euros.", "euros": 12.0}' in read


def test_a_tool_of_your_own_with_sources():
    reply, _ = answered(
        EXAMPLES[SOURCES], call("opening_hours", day="Monday"), finish(answer="Nine.", citations=["hours"])
    )
    assert reply.output[-1].content[0]["annotations"][0]["url"] == "https://library.example/hours"
