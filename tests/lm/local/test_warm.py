"""The embedded LM's prompt cache, with the real 0.5B model."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import dspy
import pytest

import oneturn
from oneturn.errors import LocalLMError
from oneturn.lm.local import ServerSettings, fetch_weights, local_lm, warm_up
from oneturn.lm.local.prompt_cache import MAX_PROMPTS, prompts_folder
from oneturn.lm.local.server import running_server, server_variables
from oneturn.testing import ScriptedLM


class Answer(dspy.Signature):
    """Answer from what you know."""

    question: str = dspy.InputField()
    answer: str = dspy.OutputField()


def program(instructions: str = "Answer in one word.") -> oneturn.ReAct:
    agent = oneturn.ReAct(Answer.with_instructions(instructions * 20), tools=[])
    agent.step.demos = [{"question": "Red or blue?", "trajectory": [], "tool_call": {"name": "finish", "args": {}}}]
    return agent


def test_shared_messages_are_the_prompt_up_to_the_question():
    agent = program()
    with ScriptedLM(oneturn.testing.finish(answer="red")) as lm, dspy.context(lm=lm):
        agent(question="Which?")
    shared = [(message["role"], message["content"]) for message in agent.shared_messages()]
    assert shared == [(message["role"], message["content"]) for message in lm.requests[0].messages[:-1]]


def test_warm_up_ignores_another_lm():
    with ScriptedLM() as lm:
        warm_up(program(), lm)


@pytest.mark.local_lm
def test_a_cached_prompt_is_not_processed_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    weights = fetch_weights("0.5B")
    monkeypatch.setenv("ONETURN_CACHE", str(tmp_path))

    def ask(threads: int) -> Any:
        lm = local_lm("0.5B", weights=weights, slots=1, context=2048, threads=threads, max_tokens=30, cache=False)
        warm_up(program(), lm)
        with dspy.context(lm=lm):
            program()(question="Is the sky blue?")
        return lm.history[-1]["usage"]

    first, second = ask(threads=1), ask(threads=2)  # each starts its own server
    (file,) = prompts_folder().glob("*")
    assert file.suffix == ".bin"
    for usage in (first, second):
        assert usage["prompt_tokens_details"]["cached_tokens"] > usage["prompt_tokens"] / 2


@pytest.mark.local_lm
def test_only_the_most_recent_prompts_stay_on_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    weights = fetch_weights("0.5B")
    monkeypatch.setenv("ONETURN_CACHE", str(tmp_path))
    lm = local_lm("0.5B", weights=weights, slots=1, context=1024, max_tokens=30, cache=False)
    for number in range(MAX_PROMPTS + 2):
        warm_up(program(f"Rule {number}. "), lm)
    assert len(list(prompts_folder().glob("*"))) == MAX_PROMPTS


@pytest.mark.local_lm
def test_a_prompt_that_takes_too_long_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    weights = fetch_weights("0.5B")
    monkeypatch.setenv("ONETURN_CACHE", str(tmp_path))
    lm = local_lm("0.5B", weights=weights, slots=1, context=8192, timeout=0.01, cache=False)
    with pytest.raises(LocalLMError, match=r"within 0 s, .*raise lm\.timeout"):
        warm_up(program("A rule of the house. " * 50), lm)


@pytest.mark.local_lm
def test_a_child_process_uses_its_parents_server():
    settings = ServerSettings(slots=1, context=2048)
    parent = running_server(fetch_weights("0.5B"), settings)
    script = (
        "from oneturn.lm.local.server import *; from oneturn.lm.local import fetch_weights, ServerSettings\n"
        "print(running_server(fetch_weights('0.5B'), ServerSettings(slots=1, context=2048)).url)"
    )

    command = [sys.executable, "-c", script]
    url = subprocess.check_output(command, env=os.environ | server_variables(), text=True, timeout=120).strip()
    assert url == parent.url


@pytest.mark.local_lm
def test_a_process_that_asks_its_server_nothing_ends():
    script = (
        "from oneturn.lm.local.server import *; from oneturn.lm.local import fetch_weights, ServerSettings\n"
        "running_server(fetch_weights('0.5B'), ServerSettings(slots=1, context=512))"
    )
    for _ in range(3):  # whether it hung depended on which of llama.cpp's threads was faster
        subprocess.run([sys.executable, "-c", script], check=True, timeout=120)
