"""The page of a server in Chromium; it may ask only that server for anything, and complain of nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest
from mlflow.pyfunc import ResponsesAgent
from playwright.sync_api import Browser, ConsoleMessage, Page

from oneturn.config import ServeConfig
from oneturn.serving.server import running_server
from tests.browser import chromium

browser = pytest.fixture(chromium, scope="module", name="browser")

Open = Callable[..., Page]


def ask(page: Page, question: str) -> None:
    """Ask a question on the page."""
    page.get_by_label("Question").fill(question)
    page.get_by_role("button", name="Ask", exact=True).click()


@pytest.fixture
def opened(browser: Browser) -> Iterator[Open]:
    """Serve an agent and open its page; in the end, the page must have asked for nothing else."""
    requests: list[str] = []
    complaints: list[str] = []
    urls: list[str] = []

    def note(message: ConsoleMessage) -> None:
        refused = message.text.startswith("Failed to load resource")  # an error status, which the page shows
        if message.type in ("error", "warning") and not refused:
            complaints.append(message.text)

    with ExitStack() as cleanup:

        def open_page(agent: ResponsesAgent, *, settings: ServeConfig | None = None, **options: Any) -> Page:
            url = cleanup.enter_context(running_server(agent, settings=settings))
            context = browser.new_context(**{"viewport": {"width": 1200, "height": 900}, **options})
            cleanup.callback(context.close)
            page = context.new_page()
            page.set_default_timeout(10_000)
            page.on("request", lambda request: requests.append(request.url))
            page.on("pageerror", lambda error: complaints.append(str(error)))
            page.on("console", note)
            urls.append(url)
            page.goto(url)
            return page

        yield open_page
    assert complaints == []
    own = (*urls, "data:", "blob:")
    assert [url for url in requests if not url.startswith(own)] == []
