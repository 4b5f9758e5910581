"""What the page shows besides an answer: approvals, errors, a stopped run, other inputs, an API key, hostile texts."""

from __future__ import annotations

import datetime
import threading
from collections.abc import Iterator
from enum import Enum
from pathlib import Path
from typing import Any, Literal

import dspy
import pydantic
import pytest
from mlflow.entities import Document
from mlflow.pyfunc import ResponsesAgent
from mlflow.types.responses import ResponsesAgentRequest, ResponsesAgentResponse, ResponsesAgentStreamEvent
from playwright.sync_api import Page, expect

import oneturn
from oneturn.config import ServeConfig
from oneturn.testing import ScriptedLM, ScriptedRequest, call, finish
from tests.serving.page.agents import handbook_agent
from tests.serving.page.conftest import Open, ask

pytestmark = pytest.mark.browser

DONE = finish(answer="Done.", citations=[], answerable=True)
REFUND = call("refund", "The customer wants it.", order="M-1045", amount=12.5)


def test_an_approval_is_given_with_all_arguments_in_sight(opened: Open):
    page = opened(handbook_agent(REFUND, DONE))
    ask(page, "Pay it back.")
    approval = page.get_by_role("region", name="May the agent run refund?")
    expect(approval.get_by_role("row", name='order "M-1045"')).to_be_visible()
    expect(approval.get_by_role("row", name="amount 12.5")).to_be_visible()
    approval.get_by_role("button", name="Approve").click()
    expect(page.locator(".answer")).to_have_text("Done.")
    expect(approval.get_by_text("Approved.")).to_be_visible()
    expect(page.locator(".tool")).to_contain_text("12.5 euros of M-1045 are paid back")


def test_an_approval_is_refused_with_a_reason(opened: Open):
    seen: list[str] = []

    def refused(request: ScriptedRequest) -> Any:
        seen.append(request.text)
        return finish(answer="I didn't.", citations=[], answerable=True)

    page = opened(handbook_agent(REFUND, refused))
    ask(page, "Pay it back.")
    page.get_by_label("Reason").fill("too much")
    page.get_by_role("button", name="Refuse").click()
    expect(page.locator(".answer")).to_have_text("I didn't.")
    expect(page.get_by_text("Refused: too much")).to_be_visible()
    assert "too much" in seen[0]


def test_a_question_waits_until_the_waiting_call_is_decided(opened: Open):
    requests: list[str] = []

    def reply(request: ScriptedRequest) -> Any:
        requests.append(request.text)
        return finish(answer=f"Answer {len(requests)}.", citations=[], answerable=True)

    page = opened(handbook_agent(REFUND, reply, reply))
    ask(page, "Pay it back.")
    heading = page.get_by_role("heading", name="May the agent run refund?")
    expect(heading).to_be_visible()
    ask(page, "What are the fees?")
    expect(page.locator("#form-error")).to_have_text("Approve or refuse the waiting call first.")
    expect(heading).to_be_focused()
    expect(page.get_by_label("Question")).to_have_value("What are the fees?")
    page.get_by_role("button", name="Approve").click()
    expect(page.locator(".answer")).to_have_text("Answer 1.")
    expect(page.locator("#form-error")).to_be_hidden()
    page.get_by_role("button", name="Ask", exact=True).click()
    expect(page.locator(".answer").last).to_have_text("Answer 2.")
    assert "Pay it back." in requests[1]
    assert "Answer 1." in requests[1]


class AsksTwice(ResponsesAgent):
    """An agent of somebody else that asks for two approvals at once."""

    def __init__(self) -> None:
        self.approved: list[str] = []
        self.runs, self.release = threading.Semaphore(0), threading.Event()

    def predict(self, request: ResponsesAgentRequest) -> ResponsesAgentResponse:
        raise NotImplementedError

    def predict_stream(self, request: ResponsesAgentRequest) -> Iterator[ResponsesAgentStreamEvent]:
        last: Any = request.input[-1].model_dump()
        if last.get("type") == "mcp_approval_response":
            self.approved.append(last["approval_request_id"])
            self.runs.release()
            self.release.wait(30)
            items = [self.create_text_output_item(f"{len(self.approved)} approved.", "msg_1")]
        else:
            request_type = {"type": "mcp_approval_request", "server_label": "x", "arguments": "{}"}
            items = [{**request_type, "id": name, "name": name} for name in ("first", "second")]
        for item in items:
            yield ResponsesAgentStreamEvent(type="response.output_item.done", item=item)


def test_no_second_call_is_decided_during_a_run(opened: Open):
    agent = AsksTwice()
    page = opened(agent)
    ask(page, "Do both.")
    second = page.get_by_role("region", name="May the agent run second?")
    expect(second).to_be_visible()
    page.get_by_role("region", name="May the agent run first?").get_by_role("button", name="Approve").click()
    assert agent.runs.acquire(timeout=30)
    second.get_by_role("button", name="Approve").click()
    expect(page.locator("#form-error")).to_have_text("Wait until the run has ended, or stop it.")
    agent.release.set()
    expect(page.locator(".answer")).to_have_text("1 approved.")
    assert agent.approved == ["first"]

    ask(page, "Something else.")
    expect(page.get_by_role("region", name="May the agent run first?")).to_have_count(2)
    second.first.get_by_role("button", name="Approve").click()
    expect(page.locator("#form-error")).to_contain_text("The conversation has gone on")
    assert agent.approved == ["first"]


def test_the_agent_knows_the_earlier_turns_of_the_conversation(opened: Open):
    requests: list[str] = []

    def reply(request: ScriptedRequest) -> Any:
        requests.append(request.text)
        return finish(answer=f"Answer {len(requests)}.", citations=[], answerable=True)

    page = opened(handbook_agent(reply, reply, reply))
    for number, question in enumerate(["First?", "Second?"], 1):
        ask(page, question)
        expect(page.locator(".answer").last).to_have_text(f"Answer {number}.")
    assert "First?" in requests[1]
    assert "Answer 1." in requests[1]
    page.get_by_role("button", name="New conversation").click()
    ask(page, "Third?")
    expect(page.locator(".answer")).to_have_text("Answer 3.")
    assert "First?" not in requests[2]


def test_an_error_shows_its_code(opened: Open):
    page = opened(handbook_agent(dspy.utils.exceptions.ContextWindowExceededError(model="m", message="too long")))
    ask(page, "Hello?")
    alert = page.get_by_role("alert").filter(has_text="couldn't answer")
    expect(alert.locator(".code")).not_to_be_empty()
    expect(page.get_by_role("button", name="Ask", exact=True)).to_be_visible()


def test_a_run_is_stopped(opened: Open):
    started, release = threading.Event(), threading.Event()

    def wait(query: str) -> str:
        """Wait."""
        started.set()
        oneturn.progress("half of it", 0.5)
        release.wait(30)
        return "late"

    program = oneturn.ReAct("question -> answer", tools=[wait])
    program.set_lm(ScriptedLM(call("wait", query="x"), finish(answer="never shown")))
    page = opened(oneturn.ResponsesAdapter(program))
    ask(page, "Wait!")
    assert started.wait(30)
    tool = page.locator(".tool")
    expect(tool.locator(".state")).to_have_text("50 %")
    tool.locator("summary").click()
    expect(tool.get_by_text("half of it")).to_be_visible()
    page.get_by_role("button", name="Stop").click()
    expect(page.get_by_text("Stopped.", exact=False).first).to_be_visible()
    release.set()
    expect(page.get_by_role("button", name="Ask", exact=True)).to_be_visible()
    expect(page.get_by_text("never shown")).to_have_count(0)


class Kind(Enum):
    """A kind of customer."""

    private = "private"
    business = "business"


class Address(pydantic.BaseModel):
    """Where somebody lives."""

    town: str
    number: int = 1


class Everything(dspy.Signature):
    """Take inputs of many types."""

    question: str = dspy.InputField()
    kind: Kind = dspy.InputField(desc="who asks")
    tone: Literal["short", "long"] = dspy.InputField(default="short")
    tags: list[str] = dspy.InputField(default=[])
    count: int = dspy.InputField()
    ratio: float | None = dspy.InputField(default=None)
    urgent: bool = dspy.InputField()
    day: datetime.date = dspy.InputField()
    address: Address = dspy.InputField()
    picture: dspy.Image = dspy.InputField(default=None)
    answer: str = dspy.OutputField()


PIXEL = bytes.fromhex(
    "89504e470d0a1a0a0000000d4948445200000001000000010806000000"
    "1f15c4890000000d49444154789c6360f8cfc0f01f00050001ffa0a3e0b30000000049454e44ae426082"
)


def everything(*replies: Any) -> oneturn.ResponsesAdapter:
    program = dspy.Predict(Everything)
    program.set_lm(ScriptedLM(*replies))
    return oneturn.ResponsesAdapter(program)


def fill(page: Page) -> None:
    page.get_by_label("kind").select_option("business")
    page.get_by_label("count").fill("3")
    page.get_by_label("urgent").check()
    page.get_by_label("day").fill("2026-02-03")
    page.get_by_label("town").fill("Thun")
    page.get_by_role("button", name="Add tags").click()
    page.get_by_role("textbox", name="tags 1").fill("new")


def test_the_form_has_a_field_for_each_input(opened: Open):
    bodies: list[Any] = []
    page = opened(everything("[[ ## answer ## ]]\nFine.\n\n[[ ## completed ## ]]"))
    page.on("request", lambda request: request.url.endswith("/v1/responses") and bodies.append(request.post_data_json))
    ask(page, "Hello?")  # nothing is filled in yet
    expect(page.locator("#form-error")).to_contain_text("kind")
    assert bodies == []
    fill(page)
    page.get_by_label("picture").set_input_files({"name": "a.png", "mimeType": "image/png", "buffer": PIXEL})
    page.get_by_role("button", name="Ask", exact=True).click()
    expect(page.locator(".answer")).to_have_text("Fine.")
    expect(page.get_by_label("town")).to_be_hidden()  # folded, so that the answer is in sight
    [body] = bodies
    assert body["custom_inputs"] == {
        "kind": "business",
        "tags": ["new"],
        "count": 3,
        "urgent": True,
        "day": "2026-02-03",
        "address": {"town": "Thun"},
    }
    text, image = body["input"][0]["content"]
    assert (text["text"], image["type"], image["image_url"][:22]) == (
        "Hello?", "input_image", "data:image/png;base64,",
    )  # fmt: skip

    page.reload()
    expect(page.get_by_label("town")).to_have_value("Thun")
    expect(page.get_by_role("textbox", name="tags 1")).to_have_value("new")
    page.get_by_role("button", name="Edit as JSON").click()
    page.get_by_label("custom_inputs as JSON").fill('{"kind": ')
    ask(page, "Again?")
    expect(page.locator("#form-error")).to_contain_text("isn't JSON")


class Forms(dspy.Module):
    """An agent that answers with its other input."""

    signature = dspy.Signature("question, form -> answer")

    def forward(self, question: str, form: str) -> dspy.Prediction:
        return dspy.Prediction(answer=form)


def test_the_api_key_is_asked_for_and_kept_in_the_tab_only(opened: Open, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PAGE_KEY", "right-key")
    page = opened(handbook_agent(DONE), settings=ServeConfig(api_key_env="PAGE_KEY"))
    page.get_by_role("textbox", name="API key").fill("wrong")
    page.get_by_role("button", name="Continue").click()
    expect(page.get_by_role("dialog").get_by_role("alert")).to_contain_text("API key")
    page.get_by_role("textbox", name="API key").fill("right-key")
    page.get_by_role("button", name="Continue").click()
    ask(page, "Hello?")
    expect(page.locator(".answer")).to_have_text("Done.")
    assert "right-key" not in page.evaluate("JSON.stringify(localStorage) + document.cookie + location.href")
    assert "right-key" in page.evaluate("JSON.stringify(sessionStorage)")


def test_a_key_that_no_header_can_hold_is_asked_for_again(opened: Open, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PAGE_KEY", "k-1")
    page = opened(handbook_agent(DONE), settings=ServeConfig(api_key_env="PAGE_KEY"))
    page.locator("#key").fill("k\u20111")  # with a hyphen of a word processor
    page.keyboard.press("Enter")
    expect(page.locator("#key-error")).to_have_text(
        "The API key has characters that no header can hold. Check what you entered."
    )
    page.locator("#key").fill("k-1")
    page.keyboard.press("Enter")
    ask(page, "What are the fees?")
    expect(page.locator(".answer")).to_have_text("Done.")


def test_a_browser_that_keeps_nothing_shows_the_page_too(opened: Open, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PAGE_KEY", "k-1")
    page = opened(oneturn.ResponsesAdapter(Forms()), settings=ServeConfig(api_key_env="PAGE_KEY"))
    page.add_init_script(
        "for (const area of ['localStorage', 'sessionStorage'])"
        " Object.defineProperty(window, area, { get() { throw new DOMException('Denied', 'SecurityError'); } });"
    )
    page.reload()
    page.locator("#key").fill("k-1")
    page.keyboard.press("Enter")
    page.get_by_label("form").fill("a")
    ask(page, "What?")
    expect(page.locator(".answer")).to_have_text("a")


def test_a_remembered_input_of_another_type_is_shown_as_json(opened: Open):
    page = opened(oneturn.ResponsesAdapter(Forms()))
    saved = "JSON.stringify({ values: { form: { a: [1] } }, json: false })"
    page.evaluate(f"localStorage.setItem('oneturn.inputs.agent', {saved})")
    page.reload()
    expect(page.get_by_label("form")).to_have_value('{"a":[1]}')


def test_escape_does_not_close_the_dialog_of_the_key(opened: Open, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PAGE_KEY", "right-key")
    page = opened(handbook_agent(DONE), settings=ServeConfig(api_key_env="PAGE_KEY"))
    key = page.get_by_role("textbox", name="API key")
    expect(key).to_be_focused()
    expect(page.locator("#ask")).to_be_disabled()
    for _ in range(3):  # Chromium lets a page prevent the first one only
        page.keyboard.press("Escape")
        expect(key).to_be_focused()
    key.fill("right-key")
    page.keyboard.press("Enter")
    expect(page.get_by_role("dialog")).to_have_count(0)
    ask(page, "Hello?")
    expect(page.locator(".answer")).to_have_text("Done.")


def test_approvals_and_further_turns_on_a_server_with_a_key_and_a_store(
    opened: Open, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("PAGE_KEY", "right-key")
    monkeypatch.setenv("STORE", f"sqlite:///{tmp_path}/store.db")
    requests: list[str] = []

    def last(request: ScriptedRequest) -> Any:
        requests.append(request.text)
        return finish(answer="Nothing else.", citations=[], answerable=True)

    settings = ServeConfig(api_key_env="PAGE_KEY", store_env="STORE")
    page = opened(handbook_agent(REFUND, DONE, last), settings=settings)
    page.get_by_role("textbox", name="API key").fill("right-key")
    page.keyboard.press("Enter")
    ask(page, "Pay it back.")
    page.get_by_role("button", name="Approve").click()
    expect(page.locator(".answer").last).to_have_text("Done.")
    ask(page, "And now?")
    expect(page.locator(".answer").last).to_have_text("Nothing else.")
    assert "Pay it back." in requests[0]
    assert "Done." in requests[0]


HOSTILE = '<img src=x onerror="window.pwned=1"><script>window.pwned=1</script>[bad](javascript:window.pwned=1)'


def hostile_search(query: str) -> list[Document]:
    """Search."""
    metadata = {"title": HOSTILE, "doc_uri": "javascript:window.pwned=1"}
    return [Document(HOSTILE, metadata=metadata, id="evil")]


hostile_search.__doc__ = f"Search. {HOSTILE}"


def test_texts_of_lms_and_tools_are_never_html(opened: Open):
    class Cite(dspy.Signature):
        question: str = dspy.InputField()
        answer: str = dspy.OutputField()
        citations: list[oneturn.Citation] = dspy.OutputField()
        note: dict[str, str] = dspy.OutputField()

    program = oneturn.ReAct(Cite, tools=[hostile_search], thoughts=True)
    program.set_lm(
        ScriptedLM(
            call("hostile_search", HOSTILE, query=HOSTILE),
            finish(HOSTILE, answer=f"{HOSTILE} [evil]", citations=["evil"], note={HOSTILE: HOSTILE}),
        )
    )
    page = opened(oneturn.ResponsesAdapter(program))
    ask(page, HOSTILE)
    expect(page.locator(".answer")).to_contain_text("onerror")
    for summary in page.locator("summary").all():
        if summary.is_visible():
            summary.click()
    expect(page.locator("blockquote")).to_have_text(HOSTILE)
    assert page.locator("main img, main script, [onerror]").count() == 0
    hrefs = page.evaluate("[...document.querySelectorAll('a')].map((a) => a.href)")
    assert [href for href in hrefs if href.startswith("javascript")] == []
    assert page.evaluate("window.pwned") is None


def test_the_page_is_used_with_the_keyboard_alone(opened: Open):
    page = opened(handbook_agent(call("search", query="fees"), REFUND, DONE))
    expect(page.get_by_label("Question")).to_be_focused()
    page.keyboard.type("Pay it back.")
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name="May the agent run refund?")).to_be_focused()
    for _ in range(2):  # the reason, then the button
        page.keyboard.press("Tab")
    expect(page.get_by_role("button", name="Approve")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.locator(".answer")).to_have_text("Done.")
    expect(page.get_by_label("Question")).to_be_focused()
    page.get_by_role("group").locator("summary").first.focus()
    page.keyboard.press("Enter")
    expect(page.locator(".tool").first.get_by_text('"query": "fees"')).to_be_visible()


def test_approvals_show_arguments_as_they_are_written(opened: Open):
    tricky = call("refund", "", order="yes\u202eno", amount=9007199254740993)
    page = opened(handbook_agent(tricky, DONE))
    ask(page, "Pay it back.")
    approval = page.get_by_role("region", name="May the agent run refund?")
    expect(approval.get_by_role("group", name="Arguments")).to_contain_text("9007199254740993")
    expect(approval.get_by_role("group", name="Arguments")).to_contain_text("yes\\u202eno")


def test_a_mark_after_an_emoji_leads_to_its_source(opened: Open):
    cited = finish(answer="\U0001f44d Four euros [fees].", citations=["fees"], answerable=True)
    page = opened(handbook_agent(call("search", query="fees"), cited))
    ask(page, "What are the fees?")
    expect(page.locator(".answer a.mark")).to_have_count(1)
    expect(page.locator(".answer")).not_to_contain_text("[fees]")
