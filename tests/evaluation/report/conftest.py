"""Chromium for the tests of the report, without a network."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, ConsoleMessage, Page

from tests.browser import chromium

browser = pytest.fixture(chromium, scope="module", name="browser")


@pytest.fixture
def opened(browser: Browser) -> Iterator[Callable[[Path], Page]]:
    """Opens a page from disk; in the end, it must have asked for nothing else and complained of nothing."""
    context = browser.new_context(offline=True, viewport={"width": 1200, "height": 900})
    pages: set[str] = set()
    requests: list[str] = []
    complaints: list[str] = []

    def note(message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            complaints.append(message.text)

    def open_page(path: Path) -> Page:
        page = context.new_page()
        page.set_default_timeout(10_000)
        page.on("request", lambda request: requests.append(request.url))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("console", note)
        pages.add(path.as_uri())
        page.goto(path.as_uri())
        return page

    yield open_page
    context.close()
    assert complaints == []
    assert {url for url in requests if not url.startswith("data:")} <= pages
