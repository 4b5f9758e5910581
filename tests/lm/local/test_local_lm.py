"""The embedded LM, 0.5B. Downloads 0.5 GB once; run it with ``pytest -m local_lm``."""

from __future__ import annotations

import asyncio
import copy
import pickle
import subprocess
import sys
import textwrap
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Annotated, Literal

import dspy
import pydantic
import pytest
from dspy.lm15 import Config, Message, Request

import oneturn
from oneturn.core.steps import Answer, AnswerDelta, Thought, ToolCall, Working
from oneturn.errors import LocalLMError, WeightsError
from oneturn.lm.local import LocalEngine, ServerSettings, local_lm


class Search(pydantic.BaseModel):
    """Look something up."""

    tool: Literal["search"]
    query: str


class Finish(pydantic.BaseModel):
    """Give the answer."""

    tool: Literal["finish"]
    answer: str


class Choose(dspy.Signature):
    """Choose the next step: search the handbook, or finish with an answer."""

    question: str = dspy.InputField()
    step: Annotated[Search | Finish, pydantic.Field(discriminator="tool")] = dspy.OutputField()


class Judge(dspy.Signature):
    """Judge the mood of a sentence."""

    sentence: str = dspy.InputField()
    mood: Literal["glad", "sad", "neither"] = dspy.OutputField()


# ---------------------------------------------------------------------------------- without a model: nothing is started


def test_building_copying_and_saving_starts_nothing() -> None:
    lm = local_lm("0.5B", weights="/nowhere/model.gguf", slots=3)
    for same in (
        pickle.loads(pickle.dumps(lm)),
        copy.deepcopy(lm),
        lm.copy(temperature=0.5),
        dspy.BaseLM.load_state(lm.dump_state(), allow_custom_lm_class=True),
    ):
        assert same.engine == lm.engine == LocalEngine("0.5B", "/nowhere/model.gguf", ServerSettings(slots=3))
        assert same.supports_response_schema


def test_missing_weights_are_reported_at_the_first_call() -> None:
    lm = local_lm(weights="/nowhere/model.gguf", cache=False)
    with pytest.raises(Exception, match=r"There is no file .*model\.gguf") as caught:
        lm("hello")
    assert isinstance(caught.value.__cause__, WeightsError)


def test_invalid_settings_are_rejected() -> None:
    with pytest.raises(LocalLMError, match="slots must be 1 or more, not 0"):
        local_lm(slots=0)
    with pytest.raises(WeightsError, match="'3B'"):
        local_lm("3B")


def test_a_missing_package_names_the_command_that_installs_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from oneturn.lm.local.server import running_server

    monkeypatch.setitem(sys.modules, "xllamacpp", None)
    with pytest.raises(LocalLMError, match=r'pip install "oneturn\[local\]"'):
        running_server(tmp_path / "any.gguf", ServerSettings())


# --------------------------------------------------------------------------------------------------------- with a model


@pytest.fixture(scope="module")
def lm() -> dspy.LM:
    return local_lm("0.5B", cache=False, context=2048)


@pytest.mark.local_lm
def test_an_answer_matches_its_enum_and_counts_tokens(lm: dspy.LM) -> None:
    with dspy.context(lm=lm, adapter=dspy.JSONAdapter(), track_usage=True):
        judged = dspy.Predict(Judge)(sentence="What a lovely day!")
    assert judged.mood in ("glad", "sad", "neither")
    (usage,) = judged.get_lm_usage().values()
    assert usage["prompt_tokens"] > 50
    assert usage["completion_tokens"] > 3


@pytest.mark.local_lm
def test_an_answer_is_one_member_of_a_union(lm: dspy.LM) -> None:
    with dspy.context(lm=lm, adapter=dspy.JSONAdapter()):
        step = dspy.Predict(Choose)(question="What does the handbook say about refunds?").step
    assert isinstance(step, Search | Finish)


@pytest.mark.local_lm
def test_the_same_prompt_gets_the_same_answer(lm: dspy.LM) -> None:
    lm("Name three colours.")  # so that both answers start from the same prompt cache
    assert lm("Name three colours.") == lm("Name three colours.")


@pytest.mark.local_lm
def test_streamed_deltas_join_to_the_answer(lm: dspy.LM) -> None:
    request = Request(
        model=lm.model, messages=(Message.user("Count from 1 to 5."),), config=Config(temperature=0, max_tokens=40)
    )
    events = list(lm.engine.stream(request))
    pieces = [event.delta.text for event in events if event.type == "delta"]
    assert len(pieces) > 3
    assert "".join(pieces) == lm.engine.complete(request).text
    assert events[-1].type == "end"
    assert events[-1].usage.output_tokens > 3


def product(first: int, second: int) -> str:
    """Multiply two numbers."""
    return str(first * second)


@pytest.mark.local_lm
@pytest.mark.parametrize("tokens", [12, 300])
def test_the_first_step_begins_with_free_text_and_ends_in_a_call(lm: dspy.LM, tokens: int) -> None:
    program = oneturn.ReAct("question -> answer", tools=[product], thoughts="free", thought_tokens=tokens)
    with dspy.context(lm=lm):
        steps = list(program.steps(question="A box has 12 cups. How many cups are in 3 boxes?"))
    first = next(step for step in steps if not isinstance(step, Working))
    assert isinstance(first, Thought)
    assert first.text[0].isalpha()
    assert "tool_call" not in first.text
    assert not first.text.endswith("Answer:")
    assert any(isinstance(step, ToolCall | Answer) for step in steps)


@pytest.mark.local_lm
@pytest.mark.parametrize("tokens", [4, 300])
def test_a_reply_without_tools_is_text_and_then_the_outputs(lm: dspy.LM, tokens: int) -> None:
    program = oneturn.ReAct("question -> reason, total: int", tools=[], thought_tokens=tokens)
    with dspy.context(lm=lm):
        steps = list(program.steps(question="A box has 12 cups. How many cups are in 3 boxes?"))
    thought = next(step for step in steps if isinstance(step, Thought))
    (answer,) = (step for step in steps if isinstance(step, Answer))
    assert thought.text[0].isalpha()
    assert '"total"' not in thought.text
    assert "".join(step.text for step in steps if isinstance(step, AnswerDelta)) == answer.prediction.reason
    assert isinstance(answer.prediction.total, int)


@pytest.mark.local_lm
def test_dspy_streamify_works(lm: dspy.LM) -> None:
    async def pieces() -> list[object]:
        streaming = dspy.streamify(dspy.Predict("question -> answer"), is_async_program=False)
        with dspy.context(lm=lm):
            return [piece async for piece in streaming(question="Name a colour.")]

    chunks = asyncio.run(pieces())
    assert len(chunks) > 3
    assert isinstance(chunks[-1], dspy.Prediction)


@pytest.mark.local_lm
def test_concurrent_requests(lm: dspy.LM) -> None:
    with ThreadPoolExecutor(3) as pool:
        answers = list(pool.map(lambda number: lm(f"Say the number {number}.")[0], range(3)))
    assert all(str(number) in answer for number, answer in enumerate(answers))


@pytest.mark.local_lm
def test_acall_works_in_successive_event_loops(lm: dspy.LM) -> None:
    assert asyncio.run(lm.acall("Say hi.")) == asyncio.run(lm.acall("Say hi.")) != [""]


@pytest.mark.local_lm
def test_a_prompt_that_is_too_long_raises_dspys_error(lm: dspy.LM) -> None:
    with pytest.raises(
        dspy.ContextWindowExceededError, match=r"has \d+ tokens and the embedded LM's context holds 2048"
    ):
        lm("word " * 3000)


@pytest.mark.local_lm
@pytest.mark.parametrize("ending", ["", "next(iter(stream))", "thread.start(); time.sleep(1)"])
def test_the_process_exits_cleanly_and_never_imports_litellm(ending: str) -> None:
    program = f"""
        import os, sys, threading, time
        os.environ["http_proxy"] = "http://127.0.0.1:9"  # nothing listens there: loopback requests must bypass it
        import dspy
        from oneturn.lm.local import local_lm
        from dspy.lm15 import Message, Request
        lm = local_lm("0.5B", cache=False, context=2048)
        with dspy.context(lm=lm, adapter=dspy.JSONAdapter()):
            dspy.Predict("question -> answer")(question="Say hi.")
        request = Request(model=lm.model, messages=(Message.user("Tell a very long story."),))
        stream = lm.engine.stream(request)
        thread = threading.Thread(target=lambda: list(stream), daemon=True)
        {ending}
        print("litellm" in sys.modules)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)],
        capture_output=True,
        text=True,
        timeout=120,
        cwd=Path(__file__).parents[3],
    )
    assert (done.returncode, done.stdout) == (0, "False\n")
    if "thread" not in ending:  # a thread that reads while the server stops gets an error on stderr
        assert done.stderr == ""
