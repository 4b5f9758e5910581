"""The page of ``oneturn data review``: its server, and in Chromium."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from playwright.sync_api import Browser, expect
from starlette.testclient import TestClient

from oneturn.errors import DataError
from oneturn.serving.page.review import ReviewApplication
from oneturn.serving.server import running_application

SCHEMA = {
    "type": "object",
    "properties": {
        "id": {"type": "string"},
        "question": {"type": "string"},
        "answer": {"type": "string"},
        "category": {"enum": ["easy", "hard"]},
        "region": {"anyOf": [{"type": "string"}, {"type": "null"}]},
        "paid": {"type": ["string", "null"], "format": "date"},
        "place": {"oneOf": [{"type": "null"}, {"allOf": [{"enum": ["north", "south"]}]}]},
        "price": {"type": ["number", "string"]},
        "due": {"type": "string", "format": "date-time"},
        "code": {"type": "string", "pattern": "[A-Z]{2}[0-9]"},
    },
    "required": ["question", "category", "region"],
}
DUE = "2026-02-03T10:15:30.5Z"
KEPT = {"note": "kept", "region": None, "due": DUE, "code": "order AB1x"}
EDITED = {
    "question": "Fees?",
    "answer": "5 euros",
    "category": "hard",
    "paid": "2026-01-03",
    "place": "south",
    "price": "five",
}
HOSTILE = '<img src=x onerror="window.pwned=1">'


class Queue:
    """Candidates in memory."""

    def __init__(self, *rows: dict[str, Any]):
        self.rows = list(rows)
        self.decisions: list[tuple[str, str, Any]] = []

    def describe(self) -> dict[str, Any]:
        return {"name": "desk", "split": "train", "schema": SCHEMA, "inputs": ["question"], "outputs": ["answer"]}

    def candidates(self) -> list[dict[str, Any]]:
        return self.rows

    def answer(self, ident: str) -> Mapping[str, Any] | None:
        return {"answer": HOSTILE}

    def accept(self, ident: str, values: Mapping[str, Any]) -> None:
        if values["answer"] == "bad":
            raise DataError("The loader rejects it.")
        self.decisions.append(("accept", ident, dict(values)))

    def reject(self, ident: str) -> None:
        self.decisions.append(("reject", ident, None))


def candidate(number: int, **values: Any) -> dict[str, Any]:
    provenance = {
        "trace_id": f"tr-{number}",
        "said": "wrong",
        "by": "ann",
        "at": "2026-05-01T10:00:00",
        "note": HOSTILE,
    }
    return {"id": f"trace-{number}", "values": values, "provenance": provenance, "labelled": "answer" in values}


def test_the_review_needs_its_token_and_this_machine():
    review = ReviewApplication(Queue())
    client = TestClient(review, base_url="http://127.0.0.1")
    assert client.get("/").status_code == 200
    assert client.get("/review/candidates").status_code == 401
    assert client.post("/review/candidates/x/reject", json={}).status_code == 401
    headers = {"Authorization": f"Bearer {review.token}"}
    assert client.get("/review/candidates", headers=headers).json()["candidates"] == []
    assert client.get("/review/candidates", headers={**headers, "Host": "evil.example"}).status_code == 403
    assert client.get("/review/candidates", headers={**headers, "Origin": "https://evil.example"}).status_code == 403
    assert ReviewApplication(Queue()).token != review.token


def test_a_decision_that_can_t_be_made_is_an_error():
    review = ReviewApplication(Queue())
    client = TestClient(review, base_url="http://127.0.0.1", headers={"Authorization": f"Bearer {review.token}"})
    refused = client.post("/review/candidates/trace-1/accept", json={"values": {"answer": "bad"}})
    assert (refused.status_code, refused.json()["error"]["message"]) == (400, "The loader rejects it.")
    assert client.post("/review/candidates/trace-1/accept", json={"values": []}).status_code == 400


def test_an_id_may_have_any_characters():
    queue = Queue()
    review = ReviewApplication(queue)
    client = TestClient(review, base_url="http://127.0.0.1", headers={"Authorization": f"Bearer {review.token}"})
    assert client.get("/review/candidates/a%2Fb%3Fc%20d/answer").status_code == 200
    assert client.post("/review/candidates/a%2Fb%3Fc%20d/reject", json={}).status_code == 200
    assert queue.decisions == [("reject", "a/b?c d", None)]


@pytest.mark.browser
def test_candidates_are_edited_accepted_and_rejected(browser: Browser):
    queue = Queue(
        candidate(1, question="Fees?", answer="4 euros", paid="2026-01-02", price="four", **KEPT),
        candidate(2, question="Limits?"),
    )
    review = ReviewApplication(queue)
    page = browser.new_page()
    page.set_default_timeout(20_000)
    with running_application(review) as url:
        page.goto(f"{url}/#{review.token}")
        expect(page.get_by_text("1 of 2")).to_be_visible()
        page.get_by_role("textbox", name="answer").fill("4.50 euros")
        page.get_by_role("button", name="Decide later").click()
        expect(page.get_by_role("heading", name="trace-2")).to_be_focused()
        page.get_by_role("button", name="Decide later").click()
        expect(page.get_by_role("textbox", name="answer")).to_have_value("4.50 euros")
        expect(page.get_by_role("region", name="Feedback")).to_contain_text(HOSTILE)
        page.get_by_text("The agent's answer").click()
        expect(page.get_by_role("cell", name=HOSTILE)).to_be_visible()
        accept = page.get_by_role("button", name="Accept into train")
        accept.click()
        expect(page.get_by_role("alert")).to_contain_text("Fill in the form")  # the category
        page.get_by_label("category").select_option("hard")
        expect(page.get_by_label("paid")).to_have_attribute("type", "date")
        page.get_by_label("paid").fill("2026-01-03")
        page.get_by_label("place").select_option("south")
        expect(page.get_by_label("price")).to_have_value("four")
        page.get_by_label("price").fill("five")
        page.get_by_role("textbox", name="answer").fill("bad")
        accept.click()
        expect(page.get_by_role("alert")).to_contain_text("The loader rejects it.")
        page.get_by_role("textbox", name="answer").fill("5 euros")
        accept.click()
        expect(page.get_by_role("heading", name="trace-2")).to_be_focused()
        page.get_by_role("button", name="Reject").click()
        expect(page.get_by_text("1 accepted into train, 1 rejected.")).to_be_visible()
    assert queue.decisions == [
        ("accept", "trace-1", {**KEPT, **EDITED}),
        ("reject", "trace-2", None),
    ]
    assert page.evaluate("window.pwned") is None


@pytest.mark.browser
def test_an_address_without_its_token_says_what_to_open(browser: Browser):
    page = browser.new_page()
    page.set_default_timeout(20_000)
    with running_application(ReviewApplication(Queue())) as url:
        page.goto(url)
        expect(page.get_by_text("Open the whole address that oneturn data review has printed")).to_be_visible()
