"""Write docs/page.png, docs/page-approval.png and docs/page-review.png: the page with scripted replies.

Run ``python -m scripts.page_screenshots``; it needs Chromium.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import mlflow
from playwright.sync_api import Browser, Page, sync_playwright

import oneturn
from agent import CONFIG, HANDBOOK
from modules.support_desk import support_desk
from oneturn.serving.app import application
from oneturn.serving.page.review import ReviewApplication
from oneturn.serving.server import open_approvals, running_application
from oneturn.testing import ScriptedLM, call, finish

DOCS = Path(__file__).resolve().parent.parent / "docs"
ARGUMENTS = [
    *("--no-sandbox", "--disable-gpu", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync", "--no-first-run"),
]
QUESTION = "Outside the warranty, what would a call-out plus three quarters of an hour of labour cost?"
SCRIPT = (
    call("search_handbook", query="call-out labour repair costs"),
    call("calculate", expression="68.00 + 3 * 23.00"),
    finish(answer="€137.00 [repair-costs]", citations=["repair-costs"], answerable=True),
    call("lookup_order", order_id="M-1045"),
    call("refund", order_id="M-1045", euros=35.0, reason="The machine was faulty: the collection is free."),
)


def refund(order_id: str, euros: float, reason: str) -> str:
    """Pay money back for an order."""
    return f"€{euros:.2f} for {order_id} are on their way: {reason}"


class Candidates:
    """One candidate to review."""

    def describe(self) -> dict[str, Any]:
        """What the form needs."""
        properties = {
            "question": {"type": "string"},
            "answer": {"type": "string"},
            "citations": {"type": "array", "items": {"type": "string"}},
            "answerable": {"type": "boolean"},
            "category": {"enum": ["lookup", "record", "sum", "unanswerable"]},
        }
        schema = {"type": "object", "properties": properties, "required": ["question", "category"]}
        outputs = ["answer", "citations", "answerable"]
        return {"name": "support_desk", "split": "train", "schema": schema, "inputs": ["question"], "outputs": outputs}

    def candidates(self) -> list[dict[str, Any]]:
        """The candidate, twice, so that there is a next one."""
        values = {"question": QUESTION, "answer": "€137.00", "citations": ["repair-costs"], "answerable": True}
        judgement = {"said": "corrected", "by": "ada@example.com", "at": "2026-05-04T09:12:00+00:00"}
        provenance = {"trace_id": "tr-4f1c2a9b3d5e", **judgement}
        return [{"id": "trace-4f1c2a9b3d5e", "values": values, "provenance": provenance, "labelled": True}] * 2

    def answer(self, ident: str) -> Mapping[str, Any] | None:
        """What the agent had answered."""
        return {"answer": "€91.00", "citations": ["repair-costs"], "answerable": True}

    def accept(self, ident: str, values: Mapping[str, Any]) -> None:
        """Do nothing."""

    def reject(self, ident: str) -> None:
        """Do nothing."""


def main() -> None:
    """Write the screenshots."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", nargs="?", type=Path, default=DOCS)
    folder = parser.parse_args().folder
    browser_path = shutil.which("chromium") or shutil.which("google-chrome")
    if browser_path is None:
        raise SystemExit("The screenshots need a browser. Install Chromium, for example with apt-get install chromium.")
    with tempfile.TemporaryDirectory() as store, sync_playwright() as playwright:
        mlflow.set_tracking_uri(f"sqlite:///{store}/mlflow.db")
        mlflow.set_experiment("page")
        browser = playwright.chromium.launch(executable_path=browser_path, args=ARGUMENTS)
        _conversation(browser, folder)
        _review(browser, folder)
        browser.close()
        mlflow.flush_trace_async_logging()  # before the store is deleted


def _conversation(browser: Browser, folder: Path) -> None:
    program = support_desk(HANDBOOK, CONFIG.max_iters, more_tools=[oneturn.tool(refund, approval=True)])
    program.set_lm(ScriptedLM(*SCRIPT))
    adapter = oneturn.ResponsesAdapter(program)
    open_approvals(adapter, "127.0.0.1")
    questions = ("Which port does our firewall have to open?", "What is the status of order M-1045?")
    app = application(adapter, name="support_desk", example_questions=questions, loopback=True)
    with running_application(app) as url:
        page = browser.new_page(viewport={"width": 1000, "height": 1060}, color_scheme="light")
        page.goto(url)
        _ask(page, QUESTION)
        page.locator(".feedback").wait_for()
        page.locator(".tool summary").nth(1).click()
        page.locator(".source summary").click()
        _screenshot(page, folder / "page.png")
        page.set_viewport_size({"width": 390, "height": 844})
        page.emulate_media(color_scheme="dark")
        page.evaluate("scrollTo(0, document.body.scrollHeight)")
        _ask(page, "The machine of order M-1045 was faulty. Please pay the collection back.")
        page.locator(".approval").wait_for()
        _screenshot(page, folder / "page-approval.png")


def _review(browser: Browser, folder: Path) -> None:
    review = ReviewApplication(Candidates())
    with running_application(review) as url:
        page = browser.new_page(viewport={"width": 1000, "height": 900}, color_scheme="light")
        page.goto(f"{url}/#{review.token}")
        page.get_by_text("The agent's answer").click()
        _screenshot(page, folder / "page-review.png")


def _ask(page: Page, question: str) -> None:
    page.get_by_label("Question").fill(question)
    page.keyboard.press("Enter")


def _screenshot(page: Page, path: Path) -> None:
    page.mouse.move(0, 0)
    page.evaluate("document.activeElement.blur()")
    page.screenshot(path=path)


if __name__ == "__main__":
    main()
