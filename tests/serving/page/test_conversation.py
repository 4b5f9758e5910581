"""Asking the agent on its page, in Chromium."""

from __future__ import annotations

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
