"""Thoughts in free text before the JSON of a step."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import dspy
import pytest
from dspy.lm15 import Config, Message, Request

from oneturn import ReAct
from oneturn.core.run_context import LMSettings, RunContext
from oneturn.core.steps import Answer, AnswerDelta, Thought, ToolCall
from oneturn.errors import ProgramError
from oneturn.lm.free_text import FreeText, split_free_text
from oneturn.lm.local.grammar import with_grammar
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
    schema, text = split_free_text(lm.requests[0].schema or {})
    assert text == FreeText(90)
    assert list(schema["properties"]) == ["tool_call"]
    assert lm.requests[0].settings["max_tokens"] == 250
    second, none = split_free_text(lm.requests[1].schema or {})
    assert none is None
    assert list(second["properties"]) == ["tool_call"]
    assert lm.requests[1].settings["max_tokens"] == 160


def test_a_request_without_free_text_has_the_limit_of_the_lm():
    lm = scripted(finish(answer="36"), max_tokens=160)
    run(lm, program(True))
    assert split_free_text(lm.requests[0].schema or {})[1] is None
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
    "announced",
    [
        "\n",
        "\n\nAnswer:\n",
        "\n**Answer:** ",
        "\n**Answer**: ",
        "\n### Answer: ",
        "\n> Final Answer: ",
        "\r\nAnswer:\r\n",
        "\n```json\n",
        "\n\nAnswer:\n```json\n",
        "\nAnswer:\n\nAnswer: ",
    ],
)
def test_what_announces_the_json_is_no_part_of_the_thought(announced: str):
    steps = run(scripted(text_then("Twelve threes.", finish(answer="36"), announced)))
    assert [step.text for step in steps if isinstance(step, Thought)] == ["Twelve threes."]


def test_an_answer_in_the_thought_s_last_sentence_stays_in_it():
    steps = run(scripted(text_then("Twelve threes make the Answer: 36.", finish(answer="36"))))
    assert [step.text for step in steps if isinstance(step, Thought)] == ["Twelve threes make the Answer: 36."]


MENTIONED = (
    "I calculate it:\n```python\ncalculate(expression='2 * 2')\n```\nSo it is 36.",
    "Action: calculate\nAction Input: 2 * 2\nThis gives 36.",
    "<tool_call>calculate</tool_call> would tell; it is 36.",
    "\\text{cups} " * 101 + "make 36.",
)


@pytest.mark.parametrize("streams", [True, False])
@pytest.mark.parametrize("thought", MENTIONED)
def test_a_call_in_the_reasoning_is_no_step(thought: str, streams: bool):
    steps = run(scripted(text_then(thought, finish(answer="36")), streams=streams))
    assert [step.text for step in steps if isinstance(step, Thought)] == [thought]
    assert [step.prediction.answer for step in steps if isinstance(step, Answer)] == ["36"]
    assert not [step for step in steps if isinstance(step, ToolCall)]


def test_a_limit_of_the_request_leaves_half_of_it_to_the_json():
    lm = scripted(AT_ONCE)
    context = RunContext()
    context.lm_settings = LMSettings(max_output_tokens=100)
    with context.active():
        run(lm)
    assert lm.requests[0].settings["max_tokens"] == 100
    assert split_free_text(lm.requests[0].schema or {})[1] == FreeText(50)


def test_a_demo_shows_the_free_thought_of_its_first_step_only():
    turns = [
        {
            "thought": f"Step {number}.",
            "tool_call": call("calculate", expression=f"{number}")["tool_call"],
            "observation": "1",
        }
        for number in (1, 2)
    ]
    agent = program()
    agent.step.demos = [
        dspy.Example(question="?", trajectory=turns, thought="Done.", tool_call=finish(answer="1")["tool_call"])
    ]
    run(lm := scripted(AT_ONCE), agent)
    replies = [each["content"] for each in lm.requests[0].messages if each["role"] == "assistant"]
    assert [reply.partition("{")[0] for reply in replies] == ["Step 1.\n\nAnswer: ", "", ""]


def test_the_grammar_has_the_limit_and_the_marker():
    lm = scripted(AT_ONCE)
    run(lm, program(thought_tokens=70))
    schema = lm.requests[0].schema
    request = Request(
        model="m",
        messages=(Message.user("?"),),
        config=Config(response_format={"type": "json_schema", "schema": schema}),
    )
    grammar = with_grammar(request).config.extensions["grammar"]
    assert "max_tokens=70" in grammar
    assert "Answer:" in grammar
    assert with_grammar(request).config.response_format is None


def test_free_text_is_the_default():
    assert program(None).thoughts == "free"
    assert ReAct("question -> answer", tools=[calculate]).thoughts == "free"
    assert ReAct("question -> answer", tools=[]).thoughts == "free"


def test_thoughts_can_be_set_back_to_the_default():
    agent = program(True)
    agent.set_thoughts(None)
    assert agent.thoughts == "free"


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


@pytest.mark.parametrize(("declared", "kept"), [(None, True), ("free", True), (True, True), (False, False)])
def test_a_file_that_is_older_than_free_thoughts_was_compiled_without_them(declared: Any, kept: Any, tmp_path: Path):
    path = saved(program(kept), program(kept), tmp_path / "compiled.json")
    document = json.loads(path.read_text())
    del document["manifest"]["thoughts"]
    path.write_text(json.dumps(document))
    loaded = program(declared)
    assert drift_of(program(declared), path) == []
    load_compiled(loaded, path)
    assert loaded.thoughts == kept


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
