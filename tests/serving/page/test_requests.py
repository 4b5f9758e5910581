"""A request on the page, with an image too, and as code that sends the same request."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import dspy
import pytest
from playwright.sync_api import expect

import oneturn
from oneturn.config import ServeConfig
from oneturn.testing import finish
from tests.serving.page.agents import handbook_agent
from tests.serving.page.conftest import Open, ask

pytestmark = pytest.mark.browser

TRICKY = 'it\'s "q" $HOME `ls` \\n ! %s \u2028 \u00fc \U0001f44d <b>\nsecond line'


class Echo(dspy.Module):
    """An agent that answers with its question, and remembers its inputs."""

    signature = dspy.Signature("question, options: dict, image: dspy.Image | None -> answer")

    def __init__(self) -> None:
        super().__init__()
        self.inputs: list[dict[str, Any]] = []

    def forward(self, **inputs: Any) -> dspy.Prediction:
        self.inputs.append(inputs)
        return dspy.Prediction(answer=inputs["question"])


def test_a_request_is_copied_as_code_that_runs(opened: Open, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("AGENT_API_KEY", "key-1")
    echo = Echo()
    settings = ServeConfig(api_key_env="AGENT_API_KEY")
    permissions = ["clipboard-read", "clipboard-write"]
    page = opened(oneturn.ResponsesAdapter(echo), settings=settings, permissions=permissions)
    page.locator("#key").fill("key-1")
    page.keyboard.press("Enter")
    page.get_by_label("options").fill('{"a": null, "b": [true, 1.5, "x\\n\'"]}')
    (tmp_path / "large.png").write_bytes(bytes(150_000))  # more than Linux allows in an argument
    page.get_by_label("image").set_input_files(tmp_path / "large.png")
    ask(page, TRICKY)
    expect(page.locator(".answer")).to_have_text(TRICKY)
    commands = {"curl": ["bash"], "Python": [sys.executable], "JavaScript": ["node", "--input-type=module", "-"]}
    for language, command in commands.items():
        button = page.get_by_role("button", name=f"Copy as {language}")
        button.click()
        expect(button).to_have_text("Copied")
        if shutil.which(command[0]) is None:
            continue
        copied = page.evaluate("navigator.clipboard.readText()")
        ran = subprocess.run(command, input=copied, capture_output=True, text=True, timeout=120)
        assert (ran.returncode, ran.stderr if language != "curl" else "") == (0, ""), language
        assert "second line" in ran.stdout
        assert len(echo.inputs) > 1
        assert echo.inputs.pop() == echo.inputs[0]


def test_a_page_without_a_clipboard_copies_too(opened: Open):
    page = opened(
        handbook_agent(finish(answer="Done.", citations=[], answerable=True)),
        permissions=["clipboard-read", "clipboard-write"],
    )
    page.evaluate("navigator.constructor.prototype.__defineGetter__('clipboard', () => undefined)")  # as at http://host
    ask(page, "What's it?")
    button = page.get_by_role("button", name="Copy as curl")
    button.click()
    expect(button).to_have_text("Copied")
    expect(button).to_be_focused()
    page.get_by_label("Question").focus()
    page.keyboard.press("Control+V")
    expect(page.get_by_label("Question")).to_have_value(re.compile(r"^curl -N 'http://127\.0\.0\.1:"))


def test_a_missing_image_is_asked_for_before_the_question_is_sent(opened: Open):
    class Look(Echo):
        signature = dspy.Signature("question, image: dspy.Image -> answer")

    page = opened(oneturn.ResponsesAdapter(Look()))
    ask(page, "What is it?")
    expect(page.locator("#form-error")).to_contain_text("image: Please select a file.")
    expect(page.get_by_label("Question")).to_have_value("What is it?")
