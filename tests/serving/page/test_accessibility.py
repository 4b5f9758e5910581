"""axe-core finds nothing on the page: a form, an answer, an approval, an error, a review; light and dark."""

from __future__ import annotations

from typing import Any, Literal

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, expect

from oneturn.serving.page.review import ReviewApplication
from oneturn.serving.server import running_application
from oneturn.testing import call, finish
from tests.serving.page.agents import handbook_agent
from tests.serving.page.conftest import Open, ask
from tests.serving.page.test_review import Queue, candidate
from tests.serving.page.test_states import everything, fill

pytestmark = pytest.mark.browser

SCHEMES = pytest.mark.parametrize("scheme", ["light", "dark"])
Scheme = Literal["light", "dark"]


def findings(page: Page) -> list[tuple[str, Any]]:
    """What axe-core finds; the page passes if it is empty."""
    violations = Axe().run(page).response["violations"]
    return [(found["id"], [node["html"][:120] for node in found["nodes"]]) for found in violations]


@SCHEMES
def test_a_conversation_is_accessible(opened: Open, traced: None, scheme: Scheme):
    agent = handbook_agent(
        call("search", "I look it up.", query="fees"),
        finish("Now I know.", answer="It costs 4 euros [fees].", citations=["fees"], answerable=True),
        call("refund", order="M-1045", amount=12.5),
        RuntimeError("broken"),
        thoughts=True,
    )
    page = opened(agent, color_scheme=scheme)
    expect(page.get_by_role("heading", name="Ask agent")).to_be_visible()
    assert findings(page) == []
    ask(page, "What are the fees?")
    expect(page.locator(".figures")).to_be_visible()
    for summary in page.locator("summary").all():
        summary.click()
    page.get_by_role("button", name="Wrong").click()
    expect(page.get_by_text("Thank you, recorded.")).to_be_visible()
    ask(page, "Pay it back.")
    expect(page.get_by_role("heading", name="May the agent run refund?")).to_be_visible()
    assert findings(page) == []
    page.get_by_role("button", name="Approve").click()
    expect(page.get_by_text("The agent couldn't answer")).to_be_visible()
    assert findings(page) == []


@SCHEMES
def test_a_form_is_accessible(opened: Open, scheme: Scheme):
    page = opened(everything(), color_scheme=scheme, viewport={"width": 390, "height": 800})
    ask(page, "Hello?")
    expect(page.locator("#form-error")).to_be_visible()
    fill(page)
    assert findings(page) == []


@SCHEMES
def test_a_review_is_accessible(browser: Browser, scheme: Scheme):
    review = ReviewApplication(Queue(candidate(1, question="Fees?", answer="4 euros")))
    with running_application(review) as url:
        page = browser.new_page(color_scheme=scheme)
        page.goto(f"{url}/#{review.token}")
        expect(page.get_by_role("heading", name="trace-1")).to_be_visible()
        assert findings(page) == []
