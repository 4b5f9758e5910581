"""A text that another attempt replaces isn't part of the answer: neither in the stream nor in the response."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import dspy
import openai
import pydantic
import pytest

import oneturn
from oneturn.conformance import check_stream, compare
from oneturn.core.steps import Answer, AnswerDelta, ToolCall, ToolResult
from oneturn.core.usage import Usage
from oneturn.errors import ProgramError, RunError
from oneturn.responses import checked_text
from oneturn.responses.event_stream import DONE
from oneturn.responses.reply import read_reply
from oneturn.testing import ScriptedLM, call, finish, sections

DRAFT, ANSWER = "First draft.", "Four euros."


def look_up(item: str) -> str:
    """Look up a price."""
    return f"{item} costs 4 euros"


class Priced(dspy.Signature):
    """Say what it costs."""

    question: str = dspy.InputField()
    answer: str = dspy.OutputField()
    euros: int = dspy.OutputField()


class PricedFirst(dspy.Signature):
    """Say what it costs."""

    question: str = dspy.InputField()
    euros: int = dspy.OutputField()
    answer: str = dspy.OutputField()


class Cited(dspy.Signature):
    """Say what it costs."""

    question: str = dspy.InputField()
    answer: str = dspy.OutputField()
    citations: list[oneturn.Citation] = dspy.OutputField()


class Short(dspy.Signature):
    """Say what it costs."""

    question: str = dspy.InputField()
    answer: str = dspy.OutputField(max_length=11)


class Drafting(dspy.Module):
    """Writes a draft of the answer, then the answer."""

    signature = dspy.Signature("question -> answer")

    def __init__(self) -> None:
        super().__init__()
        self.draft = dspy.Predict("question -> answer")
        self.improve = dspy.Predict("question, draft -> answer")

    def forward(self, question: str) -> dspy.Prediction:
        draft = self.draft(question=question).answer
        return self.improve(question=question, draft=draft)


def best_of_two() -> dspy.Module:
    def reward(args: Any, prediction: dspy.Prediction) -> float:
        return float(prediction.answer == ANSWER)

    best = dspy.BestOfN(dspy.Predict("question -> answer"), N=2, reward_fn=reward, threshold=1.0)
    best.signature = dspy.Signature("question -> answer")
    return best


def react(signature: Any = Priced, **options: Any) -> dspy.Module:
    return oneturn.ReAct(signature, tools=[look_up], **options)


Build = Callable[[], dspy.Module]
REPAIRED: dict[str, tuple[Build, list[Any]]] = {
    "the answer is written first": (
        lambda: react(answer_last=False),
        [finish(answer=DRAFT, euros="many"), finish(answer=ANSWER, euros=4)],
    ),
    "the answer is written last": (react, [finish(euros="many", answer=DRAFT), finish(euros=4, answer=ANSWER)]),
    "an output is missing": (react, [finish(answer=DRAFT), finish(euros=4, answer=ANSWER)]),
    "an output comes after the answer": (react, [finish(answer=DRAFT, euros="many"), finish(euros=4, answer=ANSWER)]),
    "an unseen source": (
        lambda: react(Cited),
        [finish(citations=["x"], answer=DRAFT), finish(citations=[], answer=ANSWER)],
    ),
    "the answer has a bound": (lambda: react(Short), [finish(answer=DRAFT), finish(answer=ANSWER)]),
    "a predictor's other output": (
        lambda: dspy.Predict(PricedFirst),
        [sections(euros="many", answer=DRAFT), json.dumps({"euros": 4, "answer": ANSWER})],
    ),
    "a predictor with the answer first": (
        lambda: dspy.Predict(Priced),
        [sections(answer=DRAFT, euros="many"), json.dumps({"answer": ANSWER, "euros": 4})],
    ),
    "a predictor's reply is cut": (
        lambda: dspy.Predict(Priced),
        [sections(answer=DRAFT).removesuffix("[[ ## completed ## ]]\n"), json.dumps({"answer": ANSWER, "euros": 4})],
    ),
    "a draft and an answer": (Drafting, [sections(answer=DRAFT), sections(answer=ANSWER)]),
    "the best of two": (best_of_two, [sections(answer=DRAFT), sections(answer=ANSWER)]),
}


def events(program: Any, *replies: Any, **options: Any) -> list[dict[str, Any]]:
    agent = oneturn.ResponsesAdapter(program, **options)
    request: Any = {"input": [{"role": "user", "content": "What does tea cost?"}]}
    with ScriptedLM(*replies, piece=3) as lm, dspy.context(lm=lm):
        return [event.model_dump() for event in agent.predict_stream(request)]


def deltas(stream: list[dict[str, Any]]) -> list[str]:
    return [event["delta"] for event in stream if event["type"] == "response.output_text.delta"]


def messages(items: Any) -> list[tuple[str, str]]:
    return [(item["status"], item["content"][0]["text"]) for item in items if item["type"] == "message"]


def done(stream: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [event["item"] for event in stream if event["type"] == "response.output_item.done"]


@pytest.mark.parametrize("case", REPAIRED)
def test_a_draft_never_reaches_a_client(case: str):
    build, replies = REPAIRED[case]
    stream = events(build(), *replies)
    assert stream[-1]["type"] == "response.completed"
    assert "".join(deltas(stream)) == ANSWER
    assert "First" not in json.dumps([event for event in stream if "function_call" not in json.dumps(event)])
    assert messages(done(stream)) == messages(stream[-1]["response"]["output"]) == [("completed", ANSWER)]


@pytest.mark.parametrize("case", REPAIRED)
def test_an_eager_stream_closes_a_draft_and_leaves_it_out_of_the_response(case: str):
    build, replies = REPAIRED[case]
    stream = events(build(), *replies, stream="eager")
    (draft_status, draft), answer = messages(done(stream))
    assert (draft_status, answer) == ("incomplete", ("completed", ANSWER))
    assert DRAFT.startswith(draft)
    assert draft
    assert messages(stream[-1]["response"]["output"]) == [answer]
    assert not [finding for finding in check_stream(stream) if finding.severity.name != "note"]
    agent = oneturn.ResponsesAdapter(build())
    with ScriptedLM(*replies) as lm, dspy.context(lm=lm):
        response = agent.predict({"input": [{"role": "user", "content": "What does tea cost?"}]})
    assert compare(stream, response) == []


def test_our_client_leaves_drafts_out():
    build, replies = REPAIRED["the answer is written last"]
    reply = read_reply([*events(build(), *replies, stream="eager"), DONE])
    assert reply.text == ANSWER
    assert messages(reply.output) == [("completed", ANSWER)]


@pytest.mark.parametrize("stream", ["checked", "eager"])
def test_openai_s_client_has_the_answer_alone(stream: str):
    build, replies = REPAIRED["the answer is written last"]
    program = build()
    program.set_lm(ScriptedLM(*replies, *replies))
    with oneturn.running_server(oneturn.ResponsesAdapter(program, stream=stream)) as url:
        client = openai.OpenAI(base_url=url, api_key="none", max_retries=0)
        question: Any = [{"role": "user", "content": "What does tea cost?"}]
        assert client.responses.create(model="agent", input=question).output_text == ANSWER
        with client.responses.stream(model="agent", input=question) as events:
            for _ in events:
                pass
            assert events.get_final_response().output_text == ANSWER


# ---- what is streamed while it is written

WRITTEN: dict[str, tuple[Build, list[Any], dspy.Adapter | None]] = {
    "only the answer": (lambda: react("question -> answer"), [finish(answer=ANSWER)], None),
    "the answer last": (react, [finish(euros=4, answer=ANSWER)], None),
    "another text first": (
        lambda: react("question -> answer, note: str"),
        [finish(note="dear", answer=ANSWER)],
        None,
    ),
    "after a tool": (react, [call("look_up", item="tea"), finish(euros=4, answer=ANSWER)], None),
    "after a repair": (react, [finish(euros="many", answer=DRAFT), finish(euros=4, answer=ANSWER)], None),
    "dspy.Predict": (lambda: dspy.Predict(PricedFirst), [sections(euros=4, answer=ANSWER)], None),
    "dspy.ChainOfThought": (
        lambda: dspy.ChainOfThought("question -> answer"),
        [sections(reasoning="So.", answer=ANSWER)],
        None,
    ),
    "as JSON": (
        lambda: dspy.Predict(PricedFirst),
        [json.dumps({"euros": 4, "answer": ANSWER})],
        dspy.JSONAdapter(),
    ),
    "as XML": (
        lambda: dspy.Predict(PricedFirst),
        [f"<euros>4</euros>\n<answer>{ANSWER}</answer>"],
        dspy.XMLAdapter(),
    ),
    "dspy.ReAct": (
        lambda: dspy.ReAct("question -> answer", tools=[look_up]),
        [
            sections(next_thought="done", next_tool_name="finish", next_tool_args={}),
            sections(reasoning="So.", answer=ANSWER),
        ],
        None,
    ),
}


@pytest.mark.parametrize("case", WRITTEN)
def test_the_answer_streams_once_the_other_outputs_are_checked(case: str):
    build, replies, adapter = WRITTEN[case]
    with dspy.context(adapter=adapter):
        stream = events(build(), *replies)
    assert "".join(deltas(stream)) == ANSWER
    assert len(deltas(stream)) > 2


def test_outputs_with_a_default_may_be_null():
    class Optional(dspy.Signature):
        """Say what it costs."""

        question: str = dspy.InputField()
        answer: str = dspy.OutputField()
        note: str = dspy.OutputField(default="none")

    stream = events(react(Optional), finish(note=None, answer=ANSWER))
    assert len(deltas(stream)) > 2
    assert stream[-1]["response"]["custom_outputs"] == {"note": "none"}


class Scripted:
    """A program that yields the given steps, and raises the last one if it is an error."""

    signature = dspy.Signature("question -> answer")
    answer_field = "answer"
    citing_fields = ()

    def __init__(self, *steps: Any):
        self._steps = steps

    def steps(self, **inputs: Any) -> Iterator[Any]:
        for step in self._steps:
            if isinstance(step, Exception):
                raise step
            yield step


ANSWERED = (Answer(dspy.Prediction(answer=ANSWER)), Usage(1))
UNCHECKED = (AnswerDelta("Four ", checked=False), AnswerDelta("euros.", checked=False))


def test_text_is_held_back_until_it_is_checked():
    stream = events(Scripted(*UNCHECKED, *ANSWERED))
    assert deltas(stream) == [ANSWER]
    stream = events(Scripted(AnswerDelta("Four", checked=False), AnswerDelta(" euros"), AnswerDelta("."), *ANSWERED))
    assert deltas(stream) == ["Four euros", "."]


def test_text_before_a_tool_call_is_held_back_too():
    tool = (ToolCall("c1", "look_up", {}), ToolResult("c1", "look_up", "4"))
    stream = events(Scripted(UNCHECKED[0], *tool, UNCHECKED[1], *ANSWERED))
    assert [item["type"] for item in done(stream)] == ["function_call", "function_call_output", "message"]
    assert deltas(stream) == [ANSWER]


def test_what_a_stopped_run_has_written_is_in_its_response():
    stopped = RunError("The run ended without an answer: cut.", "max_output_tokens", [])
    stream = events(Scripted(AnswerDelta("No", checked=False), AnswerDelta("Four ", 1, checked=False), stopped))
    assert stream[-1]["type"] == "response.incomplete"
    assert messages(stream[-1]["response"]["output"]) == [("incomplete", "Four ")]


def test_a_replaced_draft_isn_t_in_the_response_of_a_stopped_run():
    stopped = RunError("The run ended without an answer: cut.", "max_output_tokens", [])
    stream = events(Scripted(AnswerDelta("No"), AnswerDelta("Four ", 1), stopped))
    assert messages(done(stream)) == [("incomplete", "No"), ("incomplete", "Four ")]
    assert messages(stream[-1]["response"]["output"]) == [("incomplete", "Four ")]


def test_a_failed_run_shows_nothing_of_an_unchecked_answer():
    stream = events(Scripted(*UNCHECKED, RunError("The outputs don't fit.", "invalid_output", [])))
    assert stream[-1]["type"] == "response.failed"
    assert done(stream) == []


def test_the_stream_shows_signs_of_life_while_text_is_held_back(monkeypatch: pytest.MonkeyPatch):
    alive = [each["type"] for each in events(Scripted(*UNCHECKED, *ANSWERED))].count("response.in_progress")
    monkeypatch.setattr(checked_text, "KEEP_ALIVE", 0.0)
    kinds = [event["type"] for event in events(Scripted(*UNCHECKED, *ANSWERED))]
    assert kinds.count("response.in_progress") == alive + len(UNCHECKED)


def test_only_the_two_options_are_taken():
    with pytest.raises(ProgramError, match="stream is 'always'; it must be 'checked' or 'eager'"):
        oneturn.ResponsesAdapter(react(), stream="always")
    with pytest.raises(pydantic.ValidationError):
        oneturn.config.agent.ServeConfig(stream="always")
