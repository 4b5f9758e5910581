"""A prompt read once is there for the next process: the real LM, 0.5B."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import dspy
import pytest

import oneturn
from oneturn.lm.local import fetch_weights, local_lm, warm_up
from oneturn.lm.local.prompt_cache import KEPT, prompts_folder
from oneturn.testing import ScriptedLM


class Answer(dspy.Signature):
    """Answer from what you know."""

    question: str = dspy.InputField()
    answer: str = dspy.OutputField()


def program(instructions: str = "Answer in one word.") -> oneturn.ReAct:
    made = oneturn.ReAct(Answer.with_instructions(instructions * 20), tools=[])
    made.step.demos = [{"question": "Red or blue?", "trajectory": [], "tool_call": {"name": "finish", "args": {}}}]
    return made


def test_what_every_run_begins_with_is_the_prompt_up_to_its_question():
    made = program()
    with ScriptedLM(oneturn.testing.finish(answer="red")) as lm, dspy.context(lm=lm):
        made(question="Which?")
    shared = [(message["role"], message["content"]) for message in made.shared_messages()]
    assert shared == [(message["role"], message["content"]) for message in lm.requests[0].messages[:-1]]


def test_another_lm_has_nothing_to_warm():
    with ScriptedLM() as lm:
        warm_up(program(), lm)


@pytest.mark.local_lm
def test_a_prompt_read_once_is_not_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    weights = fetch_weights("0.5B")
    monkeypatch.setenv("ONETURN_CACHE", str(tmp_path))

    def ask(threads: int) -> Any:
        lm = local_lm("0.5B", weights=weights, slots=1, context=2048, threads=threads, max_tokens=30, cache=False)
        warm_up(program(), lm)
        with dspy.context(lm=lm):
            program()(question="Is the sky blue?")
        return lm.history[-1]["usage"]

    first, second = ask(threads=1), ask(threads=2)  # a server of its own for each
    (file,) = prompts_folder().glob("*")
    assert file.suffix == ".bin"
    for usage in (first, second):
        assert usage["prompt_tokens_details"]["cached_tokens"] > usage["prompt_tokens"] / 2


@pytest.mark.local_lm
def test_only_the_last_prompts_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    weights = fetch_weights("0.5B")
    monkeypatch.setenv("ONETURN_CACHE", str(tmp_path))
    lm = local_lm("0.5B", weights=weights, slots=1, context=1024, max_tokens=30, cache=False)
    for number in range(KEPT + 2):
        warm_up(program(f"Rule {number}. "), lm)
    assert len(list(prompts_folder().glob("*"))) == KEPT
