"""Asking the agent on its page, in Chromium."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from typing import Any

import dspy
import pytest
from mlflow.pyfunc import ResponsesAgent
from mlflow.types.responses import ResponsesAgentRequest, ResponsesAgentResponse, ResponsesAgentStreamEvent
from playwright.sync_api import Page, expect

from oneturn.testing import ScriptedRequest, call, finish
from tests.serving.page.agents import handbook_agent
from tests.serving.page.conftest import Open, ask

pytestmark = pytest.mark.browser


def test_an_answer_with_its_tool_calls_sources_and_outputs(opened: Open):
    page = opened(
        handbook_agent(
            call("search", "I look it up.", query="fees"),
            finish(answer="It costs 4 euros [fees].", citations=["fees"], answerable=True),
            thoughts=True,
        )
    )
    ask(page, "What are the fees?")
    turn = page.get_by_role("article")
    expect(turn.locator(".answer")).to_have_text("It costs 4 euros 1.")
    expect(turn.get_by_role("heading", name="What are the fees?")).to_be_visible()

    tool = turn.get_by_role("group").filter(has_text="search")
    expect(tool.get_by_text('"query": "fees"')).to_be_hidden()
    tool.locator("summary").click()
    expect(tool.get_by_text('"query": "fees"')).to_be_visible()
    expect(tool.get_by_text("A plan has at most five machines.")).to_be_visible()

    turn.get_by_role("link", name="Source 1: Fees").click()
    sources = turn.get_by_role("region", name="Sources")
    expect(sources.locator("blockquote")).to_have_text(
        "The basic plan costs 4 euros a month. It can be cancelled at any time."
    )
    expect(sources.get_by_role("link")).to_have_attribute("href", "https://handbook.example/fees")

    expect(turn.get_by_role("region", name="Outputs").get_by_role("row", name="answerable yes")).to_be_visible()
    expect(turn.get_by_text("I look it up.")).to_be_hidden()
    turn.locator("summary", has_text="Reasoning").click()
    expect(turn.get_by_text("I look it up.")).to_be_visible()


class Reasoned(dspy.Signature):
    """Answer with a reason before it."""

    question: str = dspy.InputField()
    reason: str = dspy.OutputField()
    answer: str = dspy.OutputField()
    note: str | None = dspy.OutputField()


def test_only_corrected_outputs_are_expected_ones(opened: Open, traced: None):
    bodies: list[Any] = []
    page = opened(handbook_agent(finish(reason="It is old.", answer="4 euros", note=None), signature=Reasoned))
    page.on("request", lambda sent: sent.url.endswith("/agent/feedback") and bodies.append(sent.post_data_json))
    ask(page, "What are the fees?")
    feedback = page.get_by_role("region", name="Feedback")
    answer = feedback.get_by_role("textbox", name="answer")

    def send(text: str, comment: str) -> Any:
        feedback.get_by_role("button", name="Wrong").click()
        answer.fill(text)
        feedback.get_by_label("Comment").fill(comment)
        feedback.get_by_role("button", name="Send").click()
        expect(answer).to_be_hidden()
        body = bodies[-1]
        assert (body["correct"], body["comment"]) == (False, comment)
        return body.get("expected")

    assert send("4 euros", "Since May, this is wrong.") is None
    assert send("5 euros", "It is 5.") == {"answer": "5 euros"}
    assert send("4 euros", "It was 4 after all.") == {"answer": "4 euros"}


def test_an_output_that_ought_to_be_empty_is_not_lost_in_silence(opened: Open, traced: None):
    page = opened(handbook_agent(finish(reason="Old.", answer="4 euros", note="x"), signature=Reasoned))
    ask(page, "What are the fees?")
    feedback = page.get_by_role("region", name="Feedback")
    feedback.get_by_role("button", name="Wrong").click()
    feedback.get_by_role("textbox", name="note").fill("")
    feedback.get_by_role("button", name="Send").click()
    expect(feedback.get_by_role("alert")).to_contain_text("note is empty now, which a correction can't say")


class LongAnswer(ResponsesAgent):
    """An agent of somebody else that streams very many words, and waits in the middle."""

    words = 10_000

    def __init__(self) -> None:
        self.go_on = threading.Event()

    def predict(self, request: ResponsesAgentRequest) -> ResponsesAgentResponse:
        raise NotImplementedError

    def predict_stream(self, request: ResponsesAgentRequest) -> Iterator[ResponsesAgentStreamEvent]:
        for number in range(self.words):
            if number == self.words // 2:
                self.go_on.wait(30)
            yield ResponsesAgentStreamEvent(**self.create_text_delta("word ", "msg_1"))
        item = self.create_text_output_item("word " * self.words, "msg_1")
        yield ResponsesAgentStreamEvent(type="response.output_item.done", item=item)


def _wait(page: Page, condition: str) -> None:
    """Wait as ``page.wait_for_function`` does, which the page's Content-Security-Policy forbids."""
    for _ in range(200):
        if page.evaluate(condition):
            return
        page.wait_for_timeout(50)
    pytest.fail(condition)


def test_a_long_answer_is_shown_as_fast_as_it_comes(opened: Open):
    agent = LongAnswer()
    agent.go_on.set()
    page = opened(agent)
    ask(page, "Tell me all.")
    figures = page.locator(".figures")  # of the finished turn; each word once laid all of them out: 40 s
    expect(figures).to_be_visible(timeout=20_000)
    assert len(page.locator(".answer").inner_text().split()) == LongAnswer.words
    _wait(page, "scrollY > 1000 && scrollY + innerHeight > document.scrollingElement.scrollHeight - 80")


def test_the_page_stays_where_the_reader_scrolls_while_the_answer_grows(opened: Open):
    agent = LongAnswer()
    page = opened(agent)
    ask(page, "Tell me all.")
    _wait(page, "scrollY > 1000")
    page.mouse.move(400, 300)
    page.mouse.wheel(0, -700)
    _wait(page, "scrollY + innerHeight < document.scrollingElement.scrollHeight - 500")
    before = page.evaluate("scrollY")
    agent.go_on.set()
    expect(page.locator(".figures")).to_be_visible(timeout=20_000)
    assert page.evaluate("scrollY") == pytest.approx(before, abs=100)


def test_a_turn_that_failed_after_an_approval_is_no_part_of_the_conversation(opened: Open):
    questions: list[str] = []

    def reply(request: ScriptedRequest) -> Any:
        questions.append(request.text)
        return finish(answer="Done.", citations=[], answerable=True)

    agent = handbook_agent(call("refund", "It is due.", order="M-1", amount=12.5), reply)
    approvals, now = agent.approvals, time.time()
    assert approvals is not None
    page = opened(agent)
    ask(page, "Pay it back.")
    expect(page.get_by_role("button", name="Approve")).to_be_visible()
    approvals._clock = lambda: now + 10_000_000
    page.get_by_role("button", name="Approve").click()
    expect(page.get_by_role("alert")).to_contain_text("The approval request has expired. Send the question again.")
    approvals._clock = time.time
    ask(page, "What are the fees?")
    expect(page.locator(".answer").last).to_have_text("Done.")
    assert "Pay it back." not in questions[0]
