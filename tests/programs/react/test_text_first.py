"""Replies of a program without tools to an LM that takes free text: text, then a JSON object of the outputs."""

from __future__ import annotations

import json
import re
from enum import Enum
from typing import Any, Literal

import dspy
import pydantic
import pytest
from dspy.lm15 import Config, Message, Request

from oneturn import ReAct
from oneturn.core.client_tools import ClientTool
from oneturn.core.steps import Answer, AnswerDelta, Thought
from oneturn.lm.free_text import FreeText, split_free_text
from oneturn.lm.local.grammar import with_grammar
from oneturn.programs.react.prompt import StepAdapter
from oneturn.programs.react.text_first import TextFirstAdapter
from oneturn.testing import ScriptedLM, finish

CALL = {"name": "count", "arguments": '{"what": "cups"}'}


class Triage(dspy.Signature):
    """Sort a message."""

    message: str = dspy.InputField()
    reply: str = dspy.OutputField(desc="one sentence")
    kind: Literal["bug", "wish"] = dspy.OutputField()
    hours: int = dspy.OutputField()


def program(signature: Any = "question -> answer", **options: Any) -> ReAct:
    return ReAct(signature, tools=[], **options)


def scripted(*replies: Any, **options: Any) -> ScriptedLM:
    return ScriptedLM(*replies, free_text=True, **options)


def run(lm: ScriptedLM, agent: ReAct | None = None, **inputs: Any) -> list[Any]:
    with lm, dspy.context(lm=lm):
        return list((agent or program()).steps(**(inputs or {"question": "How many?"})))


def answers(steps: list[Any]) -> list[dict[str, Any]]:
    predictions = [step.prediction.toDict() for step in steps if isinstance(step, Answer)]
    return [{name: value for name, value in each.items() if name != "trajectory"} for each in predictions]


def thoughts(steps: list[Any]) -> list[str]:
    return [step.text for step in steps if isinstance(step, Thought)]


TEXTS = (
    "Answer: 36",
    "Twelve \\frac{6}{2} times {3}.\n\nAnswer: 36",
    'The call is {"name": "finish"}; it says Answer: 36',
    "I call finish(answer='35').\nAnswer: 36",
    'First {"kind": "sum"}\n{"kind": "sum"}\nAnswer: 36',
)


@pytest.mark.parametrize("streams", [True, False])
@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("before", ["\n", "\n\n", "\n\n```json\n", "\nAnswer:\n", " "])
def test_the_text_is_the_thought_and_the_object_has_the_outputs(text: str, before: str, streams: bool):
    steps = run(scripted(f'{text}{before}{{"answer": "36"}}', streams=streams))
    assert thoughts(steps) == [text]
    assert "".join(step.text for step in steps if isinstance(step, AnswerDelta)) == "36"
    assert answers(steps) == [{"answer": "36"}]


def test_the_format_follows_the_question():
    run(lm := scripted('Answer: 36\n\n{"answer": "36"}'), program(thought_tokens=90))
    system, question = lm.requests[0].messages
    assert "tool_call" not in lm.requests[0].text
    assert "answer" not in system["content"].replace("`answer`", "")
    assert question["content"].startswith("question: How many?\n\n")
    assert question["content"].endswith('after "Answer:", and the JSON object {"answer": "<answer>"}.')
    schema, text = split_free_text(lm.requests[0].schema or {})
    assert text == FreeText(90, with_answer=True)
    assert list(schema["properties"]) == ["answer"]
    assert schema["required"] == ["answer"]


def test_the_text_ends_in_the_first_output_and_the_prompt_tells_their_types():
    steps = run(
        lm := scripted('A crash.\nAnswer: bug\n\n{"kind": "bug", "hours": 2, "reply": "We look."}'),
        program(Triage),
        message="It crashes.",
    )
    assert answers(steps) == [{"reply": "We look.", "kind": "bug", "hours": 2}]
    system, question = (each["content"] for each in lm.requests[0].messages)
    assert '- kind ("bug" | "wish")\n- hours (integer)\n- reply (string): one sentence' in system
    assert "the kind on a line of its own" in question
    assert '{"kind": <kind>, "hours": <hours>, "reply": "<reply>"}' in question


def test_without_answer_last_the_outputs_are_in_the_declared_order():
    steps = run(
        lm := scripted('Answer: We look.\n\n{"reply": "We look.", "kind": "bug", "hours": 2}'),
        program(Triage, answer_last=False),
        message="It crashes.",
    )
    assert answers(steps)[0]["hours"] == 2
    assert "the reply on a line of its own" in lm.requests[0].messages[-1]["content"]


def replies(lm: ScriptedLM, number: int = 0) -> list[str]:
    return [each["content"] for each in lm.requests[number].messages if each["role"] == "assistant"]


def test_demos_have_the_format_of_a_reply():
    agent = program()
    lm = scripted('Thirty-six.\nAnswer: 36\n\n{"answer": "36"}', *['Answer: 1\n\n{"answer": "1"}'] * 2)
    with lm, dspy.context(lm=lm, trace=[]):
        agent(question="How many?")
        ((_, inputs, outputs),) = dspy.settings.trace
        labelled = dspy.Example(question="?", answer="7")
        agent.step.demos = [dspy.Example(**inputs, **outputs, augmented=True), labelled]
        agent(question="And now?")
        call = finish(answer="7")["tool_call"]
        agent.step.demos = [dspy.Example(question="?", trajectory=[], thought="Seven days.", tool_call=call)]
        agent(question="And now?")
    assert replies(lm, 1) == ['Thirty-six.\nAnswer: 36\n\n{"answer": "36"}', 'Answer: 7\n\n{"answer": "7"}']
    assert replies(lm, 2) == ['Seven days.\n\nAnswer: 7\n\n{"answer": "7"}']


def test_lists_and_objects_are_not_stated_in_the_text():
    agent = program("question -> numbers: list[int], total: int, answer")
    agent.step.demos = [dspy.Example(question="?", numbers=[1, 2], total=3, answer="3")]
    steps = run(lm := scripted('Answer: 3\n\n{"numbers": [3], "total": 3, "answer": "3"}'), agent)
    assert answers(steps) == [{"numbers": [3], "total": 3, "answer": "3"}]
    assert replies(lm) == ['Answer: 3\n\n{"numbers": [1, 2], "total": 3, "answer": "3"}']
    agent = program("question -> numbers: list[int]")
    agent.step.demos = [dspy.Example(question="?", numbers=[1, 2])]
    steps = run(lm := scripted('So:\n{"numbers": [3]}'), agent)
    assert answers(steps) == [{"numbers": [3]}]
    assert replies(lm) == ['{"numbers": [1, 2]}']
    assert "Answer:" not in lm.requests[0].text


def test_a_stated_answer_has_one_line():
    agent = program()
    agent.step.demos = [dspy.Example(question="?", answer="One.\n\nTwo.")]
    run(lm := scripted('Answer: 3\n\n{"answer": "3"}'), agent)
    assert replies(lm) == ['Answer: One. Two.\n\n{"answer": "One.\\n\\nTwo."}']


@pytest.mark.parametrize(
    ("thought", "shown"),
    [
        ('They say "Answer: yes", so: no.', 'They say "Answer: yes", so: no.\n\nAnswer: no\n\n{"answer": "no"}'),
        ("So.\n**Answer:** no", 'So.\n**Answer:** no\n\n{"answer": "no"}'),
    ],
)
def test_a_thought_states_its_answer_in_a_line_of_its_own(thought: str, shown: str):
    agent = program()
    agent.step.demos = [
        dspy.Example(question="?", trajectory=[], thought=thought, tool_call=finish(answer="no")["tool_call"])
    ]
    run(lm := scripted('Answer: 3\n\n{"answer": "3"}'), agent)
    assert replies(lm) == [shown]


def test_the_history_has_the_format_of_a_reply():
    history = dspy.History(messages=[{"question": "How many?", "answer": "36"}])
    run(
        lm := scripted('Answer: 72\n\n{"answer": "72"}'),
        program("history: dspy.History, question -> answer"),
        question="Twice?",
        history=history,
    )
    assert replies(lm) == ['Answer: 36\n\n{"answer": "36"}']


def test_calls_in_the_history_are_shown_as_calls():
    message = {"role": "assistant", "tool_calls": [{"id": "1", "type": "function", "function": CALL}]}
    result = {"role": "tool", "tool_call_id": "1", "content": "36"}
    history = dspy.History(messages=[{"role": "user", "content": "How many?"}, message, result])
    run(
        lm := scripted('Answer: 36\n\n{"answer": "36"}'),
        program("history: dspy.History, question -> answer"),
        question="So?",
        history=history,
    )
    assert replies(lm) == ['{"tool_call": {"name": "count", "args": {"what": "cups"}}}']


@pytest.mark.parametrize("streams", [True, False])
def test_outputs_that_don_t_validate_are_asked_for_again(streams: bool):
    wrong, right = 'Answer: many\n\n{"total": "many"}', 'Answer: 36\n\n{"total": 36}'
    steps = run(lm := scripted(wrong, right, streams=streams), program("question -> total: int"))
    assert answers(steps) == [{"total": 36}]
    assert replies(lm, 1) == [wrong]
    assert "Write the text and the JSON object again" in lm.requests[1].text
    assert "finish" not in lm.requests[1].text
    assert split_free_text(lm.requests[1].schema or {})[1] is not None


@pytest.mark.parametrize("streams", [True, False])
@pytest.mark.parametrize(
    "reply",
    [
        finish(answer="36"),
        json.dumps({"answer": "36"}),
        'Answer: 36\n\n{"tool_call": {"name": "finish", "args": {"answer": "36"}}}',
        '{"answer": "36", "thought": "Three dozen."}',
    ],
)
def test_other_forms_of_the_outputs_are_read(reply: Any, streams: bool):
    assert answers(run(scripted(reply, streams=streams))) == [{"answer": "36"}]


def test_every_step_keeps_its_text():
    agent = program("question -> total: int")
    first, second = 'One.\nAnswer: many\n\n{"total": "many"}', 'Two.\nAnswer: 3\n\n{"total": 3}'
    with scripted(first, second, 'Answer: 1\n\n{"total": 1}') as lm, dspy.context(lm=lm, trace=[]):
        agent(question="How many?")
        ((_, inputs, outputs),) = dspy.settings.trace
        agent.step.demos = [dspy.Example(**inputs, **outputs, augmented=True)]
        agent(question="And now?")
    assert replies(lm, 2) == [first, second]


@pytest.mark.parametrize("streams", [True, False])
def test_an_omitted_or_unknown_output_is_as_in_a_call(streams: bool):
    reply = 'Answer: 36\n\n{"answer": "36", "confidence": 1}'
    steps = run(scripted(reply, streams=streams, piece=1) if streams else scripted(reply, streams=False))
    assert answers(steps) == [{"answer": "36"}]
    assert "".join(step.text for step in steps if isinstance(step, AnswerDelta)) == "36"
    optional = run(scripted('Answer: 36\n\n{"answer": "36"}'), program("question -> answer, note: int | None"))
    assert answers(optional) == [{"answer": "36", "note": None}]


@pytest.mark.parametrize("streams", [True, False])
def test_the_text_of_a_call_is_its_thought(streams: bool):
    assert thoughts(run(scripted(finish("Three dozen.", answer="36"), streams=streams))) == ["Three dozen."]


@pytest.mark.parametrize("streams", [True, False])
def test_reasoning_between_tags_isn_t_read(streams: bool):
    reply = '<think>maybe {"answer": "35"}</think>\nThree dozen.\nAnswer: 36\n\n{"answer": "36"}'
    steps = run(scripted(reply, streams=streams))
    assert answers(steps) == [{"answer": "36"}]
    assert thoughts(steps) == ["Three dozen.\nAnswer: 36"]


class Move(pydantic.BaseModel):
    action: str
    input: dict[str, str]


CUT = 'So.\nAnswer: two\n\n{"moves": [{"action": "open", "input": {"door": "left"}}'


@pytest.mark.parametrize("rest", ["", ', {"action": "go", "inp', '], "answer": "Open the left do'])
def test_a_cut_reply_with_what_looks_like_a_call_is_not_complete(rest: str):
    signature = dspy.Signature("question -> answer").append("moves", dspy.OutputField(), list[Move])
    cut = TextFirstAdapter(program(signature).steps_schema)
    assert not cut.is_complete(CUT + rest)
    assert cut.is_complete(CUT + '], "answer": "Open it."}')
    assert cut.is_complete('```json\n{"answer": "Open\nit.", "moves": []}\n```')


def test_with_the_tools_of_a_client_a_demo_states_no_answer_before_its_call():
    agent = program()
    demo = dspy.Example(question="?", trajectory=[], thought="Three dozen.\nAnswer: 36")
    demo.tool_call = finish(answer="36")["tool_call"]
    agent.step.demos = [demo]
    steps = StepAdapter(
        agent.steps_schema.with_client_tools(
            {"look": ClientTool("look", "Look.", {"type": "object", "properties": {}})}
        ),
        {"finish", "look"},
        free_thought=True,
    )
    messages = steps.format(agent.step.signature, agent.step.demos, {"question": "?"})
    (shown,) = (each["content"] for each in messages if each["role"] == "assistant")
    assert shown.startswith('Three dozen.\n\nAnswer: {"tool_call"')
    demo.thought = "Answer: 36"
    messages = steps.format(agent.step.signature, agent.step.demos, {"question": "?"})
    (shown,) = (each["content"] for each in messages if each["role"] == "assistant")
    assert shown.startswith('{"tool_call"')


class Colour(Enum):
    RED = "red"
    BLUE = "blue"


def test_the_prompt_lists_the_values_of_an_enum():
    signature = dspy.Signature("question -> answer").append("colour", dspy.OutputField(), Colour)
    steps = run(lm := scripted('Answer: blue\n\n{"colour": "blue", "answer": "It is."}'), program(signature))
    assert answers(steps) == [{"answer": "It is.", "colour": Colour.BLUE}]
    assert '- Colour: "red" | "blue"' in lm.requests[0].messages[0]["content"]
    assert "the colour on a line of its own" in lm.requests[0].messages[-1]["content"]


def test_a_reply_without_outputs_is_asked_for_again():
    steps = run(lm := scripted("It is 36.", 'Answer: 36\n\n{"answer": "36"}'))
    assert answers(steps) == [{"answer": "36"}]
    assert replies(lm, 1) == ["It is 36."]


def test_the_grammar_ends_the_text_after_its_answer():
    run(lm := scripted('Answer: 36\n\n{"answer": "36"}'))
    config = Config(response_format={"type": "json_schema", "schema": lm.requests[0].schema})
    grammar = (with_grammar(Request("m", (Message.user("?"),), config=config)).config.extensions or {})["grammar"]
    (excluded,) = re.findall(r"& ~/(.*)/", grammar)
    for text in ("Answer: 36", "**Answer:** 36\n\n", "So:\nAnswer:\n\n36\n", "No answer.\nNone."):
        assert not re.fullmatch(excluded, text)
    (inside,) = re.findall(r"TEXT: /(.*?)/ &", grammar)
    assert re.fullmatch(inside, "So {12} and {{x}}.\nAnswer: 36")
    assert not re.fullmatch(inside, 'So {{"answer": "35"}}.')
    for text in ("Answer: 36\nReason", "So:\n**Answer:**\n36\n\nThat is"):
        assert re.fullmatch(excluded, text)
    assert "tool_call" not in grammar


def test_with_thoughts_in_the_json_or_without_thoughts_the_reply_is_a_call():
    for thoughts_ in (True, False):
        run(lm := scripted(finish(answer="36")), program(thoughts=thoughts_))
        schema, text = split_free_text(lm.requests[0].schema or {})
        assert text is None
        assert list(schema["properties"]) == [*["thought"] * thoughts_, "tool_call"]
