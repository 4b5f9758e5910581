"""Asking the agent on its page, in Chromium."""

from __future__ import annotations

from typing import Any

import dspy
import pytest
from playwright.sync_api import expect

from oneturn.testing import call, finish
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
