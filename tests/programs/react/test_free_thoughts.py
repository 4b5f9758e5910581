"""Thoughts in free text before the JSON of a step."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import dspy
import pytest

from oneturn import ReAct
from oneturn.core.steps import AnswerDelta, Thought
from oneturn.errors import ProgramError
from oneturn.lm.free_text import split_free_text
from oneturn.programs.react import Thoughts
from oneturn.programs.state import Manifest, compiled_interface, drift_of, load_compiled, save_compiled, thoughts_of
from oneturn.testing import ScriptedLM, call, finish
from tests.programs.react.chat_stub import chat_stub


def calculate(expression: str) -> str:
    """Compute an expression."""
    return "36" if expression == "12 * 3" else "?"


def program(thoughts: Thoughts | None = "free", **options: Any) -> ReAct:
    return ReAct("question -> answer", tools=[calculate], thoughts=thoughts, **options)


def text_then(thought: str, step: dict[str, Any], before_json: str = "\n\nAnswer: ") -> str:
    return f"{thought}{before_json}{json.dumps({'tool_call': step['tool_call']})}"


FIRST = "There are 12 boxes.\nEach holds \\frac{6}{2} = 3: I multiply {12} by 3."
ONLY = "The product is 36, so the answer is {36}."
AT_ONCE = text_then(ONLY, finish(answer="36"))
SCRIPT = (text_then(FIRST, call("calculate", expression="12 * 3")), text_then("", finish(answer="36"), ""))


def scripted(*replies: Any, **options: Any) -> ScriptedLM:
    return ScriptedLM(*replies, free_text=True, **options)


def run(lm: ScriptedLM, agent: ReAct | None = None) -> list[Any]:
    with lm, dspy.context(lm=lm):
        return list((agent or program()).steps(question="How many?"))


@pytest.mark.parametrize("streams", [True, False])
def test_the_text_before_the_json_is_the_thought_and_never_the_answer(streams: bool):
    steps = run(scripted(*SCRIPT, streams=streams))
    assert [step.text for step in steps if isinstance(step, Thought)] == [FIRST]
    assert "".join(step.text for step in steps if isinstance(step, AnswerDelta)) == "36"


def test_the_request_leaves_room_for_the_text():
    lm = scripted(*SCRIPT, max_tokens=160)
    run(lm, program(thought_tokens=90))
    schema, tokens = split_free_text(lm.requests[0].schema or {})
    assert tokens == 90
    assert list(schema["properties"]) == ["tool_call"]
    assert lm.requests[0].settings["max_tokens"] == 250
    second, none = split_free_text(lm.requests[1].schema or {})
    assert none == 0
    assert list(second["properties"]) == ["tool_call"]
    assert lm.requests[1].settings["max_tokens"] == 160


def test_a_request_without_free_text_has_the_limit_of_the_lm():
    lm = scripted(finish(answer="36"), max_tokens=160)
    run(lm, program(True))
    assert split_free_text(lm.requests[0].schema or {})[1] == 0
    assert lm.requests[0].settings["max_tokens"] == 160


def test_the_next_request_and_a_demo_have_the_text_before_the_json():
    agent = program()
    with (lm := scripted(*SCRIPT, AT_ONCE)), dspy.context(lm=lm, trace=[]):
        agent(question="How many?")
        ((_, inputs, outputs),) = dspy.settings.trace
        agent.step.demos = [dspy.Example(**inputs, **outputs, augmented=True)]
        agent(question="And now?")
    for number in (1, 2):
        replies = [each["content"] for each in lm.requests[number].messages if each["role"] == "assistant"]
        assert replies == list(SCRIPT[:number])
    assert '"thought"' not in lm.requests[0].text


@pytest.mark.parametrize(
    "announced", ["\n", "\n\nAnswer:\n", "\n**Answer:** ", "\n### Answer: ", "\n```json\n", "\n\nAnswer:\n```json\n"]
)
def test_what_announces_the_json_is_no_part_of_the_thought(announced: str):
    steps = run(scripted(text_then("Twelve threes.", finish(answer="36"), announced)))
    assert [step.text for step in steps if isinstance(step, Thought)] == ["Twelve threes."]


def test_an_answer_in_the_thought_s_last_sentence_stays_in_it():
    steps = run(scripted(text_then("Twelve threes make the Answer: 36.", finish(answer="36"))))
    assert [step.text for step in steps if isinstance(step, Thought)] == ["Twelve threes make the Answer: 36."]


def test_free_text_is_the_default_with_tools_and_json_without():
    assert program(None).thoughts == "free"
    assert ReAct("question -> answer", tools=[calculate]).thoughts == "free"
    assert ReAct("question -> answer", tools=[]).thoughts is True


@pytest.mark.parametrize("thoughts", [True, False, "free"])
def test_a_program_without_tools_isn_t_asked_for_steps(thoughts: Thoughts):
    system = ReAct("question -> answer", tools=[], thoughts=thoughts).shared_messages()[0]["content"]
    assert "step is" not in system
    assert "result" not in system
    assert '"tool_call": {"name": "finish", "args": {…}}}' in system
    assert ('"thought"' in system) == bool(thoughts)  # no LM is configured that takes free text


@pytest.mark.parametrize("tool_calling", ["schema", "text"])
def test_an_lm_behind_an_api_writes_the_thought_in_the_json(tool_calling: str):
    reply = json.dumps(finish("It is known.", answer="36"))
    requests = []
    for thoughts in ("free", True):
        with chat_stub(reply) as stub, dspy.context(lm=stub.lm()):
            agent = ReAct("question -> answer", tools=[calculate], thoughts=thoughts, tool_calling=tool_calling)
            steps = list(agent.steps(question="How many?"))
        assert [step.text for step in steps if isinstance(step, Thought)] == ["It is known."]
        requests += stub.requests
    assert requests[0] == requests[1]


@pytest.mark.parametrize(("option", "message"), [({"thoughts": "long"}, "'long'"), ({"thought_tokens": 0}, "is 0")])
def test_unknown_options_are_refused(option: dict[str, Any], message: str):
    with pytest.raises(ProgramError, match=message):
        ReAct("question -> answer", tools=[], **option)


def saved(student: ReAct, compiled: ReAct, path: Path) -> Path:
    thoughts = thoughts_of(compiled)
    manifest = Manifest(
        recipe="r",
        lm="scripted/lm",
        seed=0,
        created="2026-01-01T00:00:00+00:00",
        versions={},
        dataset={},
        scores={},
        spend={},
        thoughts=thoughts,
        interface=compiled_interface(student, thoughts),
    )
    save_compiled(compiled, manifest, path)
    return path


@pytest.mark.parametrize("declared", [True, False, "free"])
@pytest.mark.parametrize("chosen", [True, False, "free"])
def test_a_compiled_program_keeps_the_thoughts_that_a_recipe_chose(declared: Any, chosen: Any, tmp_path: Path):
    compiled = program(declared)
    compiled.step.signature = compiled.step.signature.with_instructions("Count well.")
    compiled.set_thoughts(chosen)
    path = saved(program(declared), compiled, tmp_path / "compiled.json")
    assert drift_of(program(declared), path) == []
    loaded = program(declared)
    load_compiled(loaded, path)
    assert loaded.thoughts == chosen
    assert ("thought" in loaded.step.signature.fields) == bool(chosen)
    assert loaded.step.signature.instructions == "Count well."
    lm = scripted(AT_ONCE if chosen == "free" else finish("Clear.", answer="36"))
    steps = run(lm, loaded)
    expected = {"free": [ONLY], True: ["Clear."], False: []}[chosen]
    assert [step.text for step in steps if isinstance(step, Thought)] == expected
