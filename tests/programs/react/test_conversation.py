"""Earlier exchanges and images in a run's chat."""

from __future__ import annotations

import dspy

from oneturn import ReAct
from oneturn.testing import ScriptedLM, call, finish


class Talk(dspy.Signature):
    """Answer."""

    question: str = dspy.InputField()
    history: dspy.History = dspy.InputField(default=dspy.History(messages=[]))
    answer: str = dspy.OutputField()


class Look(dspy.Signature):
    """Look."""

    question: str = dspy.InputField()
    photo: dspy.Image = dspy.InputField()
    answer: str = dspy.OutputField()


def find(query: str) -> str:
    """Find."""
    return "a dozen"


def test_earlier_exchanges_stand_before_the_question_in_the_form_of_steps():
    before = dspy.History(messages=[{"question": "How many?", "answer": "Four."}, {"question": "Only?"}])
    with ScriptedLM(call("find", query="x"), finish(answer="12")) as lm, dspy.context(lm=lm):
        ReAct(Talk, tools=[find], thoughts=False)(question="And in all?", history=before)
    sent = [(message["role"], message["content"]) for message in lm.requests[-1].messages[1:]]
    assert sent == [
        ("user", "question: How many?"),
        ("assistant", '{"tool_call": {"name": "finish", "args": {"answer": "Four."}}}'),
        ("user", "question: Only?"),
        ("user", "question: And in all?"),
        ("assistant", '{"tool_call": {"name": "find", "args": {"query": "x"}}}'),
        ("user", "a dozen"),
    ]


def test_a_first_question_has_nothing_before_it():
    with ScriptedLM(finish(answer="12")) as lm, dspy.context(lm=lm):
        ReAct(Talk, tools=[])(question="How many?")
    assert [message["content"] for message in lm.requests[0].messages[1:]] == ["question: How many?"]


def test_an_image_is_a_part_of_the_message_not_text():
    with ScriptedLM(finish(answer="A cat.")) as lm, dspy.context(lm=lm):
        ReAct(Look, tools=[])(question="What is it?", photo=dspy.Image("https://example.test/cat.png"))
    (message,) = lm.requests[0].messages[1:]
    assert message["content"].startswith("question: What is it?")
    assert "cat.png" not in message["content"]
    assert "CUSTOM-TYPE" not in message["content"]
