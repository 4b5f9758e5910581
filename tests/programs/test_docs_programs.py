"""Each example of the page about programs makes an agent that answers."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import dspy
import pytest

from oneturn.testing import ScriptedLM, sections

PAGE = (Path(__file__).parents[2] / "docs" / "programs.md").read_text(encoding="utf-8")
EXAMPLES = dict(
    re.findall(r"^## ([^\n]+)\n(?:(?!^## |^```)[^\n]*\n)*```python\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)
)

ANSWER = "tea costs 4 euros"
ASKED = {"tool_calls": [{"name": "look_up", "args": {"item": "tea"}}]}
SUBMITTED = {"tool_calls": [{"name": "submit", "args": {"answer": ANSWER}}]}
SCRIPTS: dict[str, list[Any]] = {
    "dspy.Predict": [sections(answer=ANSWER)],
    "dspy.ChainOfThought": [sections(reasoning="so", sure=True, answer=ANSWER)],
    "dspy.ReAct": [
        sections(next_thought="see", next_tool_name="look_up", next_tool_args={"item": "tea"}),
        sections(next_thought="done", next_tool_name="finish", next_tool_args={}),
        sections(reasoning="so", answer=ANSWER),
    ],
    "dspy.ReActV2": [sections(next_thought="", tool_calls=calls) for calls in (ASKED, SUBMITTED)],
    "Your own dspy.Module": [sections(item="tea"), sections(answer=ANSWER)],
    "An agent that speaks chat completions": [],
}


def test_every_example_is_tried():
    assert list(EXAMPLES) == list(SCRIPTS)


@pytest.mark.parametrize("title", SCRIPTS)
def test_the_example_answers(title: str):
    names: dict[str, Any] = {}
    exec(EXAMPLES[title], names)
    with ScriptedLM(*SCRIPTS[title]) as lm, dspy.context(lm=lm):
        events = list(names["agent"].predict_stream({"input": [{"role": "user", "content": "What does tea cost?"}]}))
    deltas = [event.delta for event in events if event.type == "response.output_text.delta"]
    assert "".join(deltas) == ANSWER
    assert len(deltas) > 1
    assert events[-1].type == "response.completed"
