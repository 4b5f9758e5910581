"""A refused response format is weakened, for any LM and program, and remembered for that schema."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import dspy
import pytest

import oneturn
from oneturn.config import LMConfig
from oneturn.core.steps import Answer
from oneturn.lm import build_lm, format_fallback
from oneturn.programs import as_program
from tests.programs.react.chat_stub import ChatStub, chat_stub

REPLY = json.dumps({"reasoning": "so", "answer": "4 euros", "sure": True})
COUNT = json.dumps({"count": 2})


@pytest.fixture(autouse=True)
def nothing_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(format_fallback, "_refused", set())


def refuses_sure(body: dict[str, Any]) -> str | None:
    """Refuse each schema with an output ``sure``."""
    return "Invalid schema for response_format" if "sure" in json.dumps(body.get("response_format", {})) else None


def formats(stub: ChatStub) -> list[str]:
    return [body.get("response_format", {}).get("type", "text") for body in stub.requests]


@pytest.fixture
def databricks(monkeypatch: pytest.MonkeyPatch) -> Any:
    def lm(stub: ChatStub) -> dspy.BaseLM:
        monkeypatch.setenv("DATABRICKS_HOST", f"http://127.0.0.1:{stub.port}")
        monkeypatch.setenv("DATABRICKS_TOKEN", "t")
        return build_lm(LMConfig(model="databricks/databricks-gpt-5", cache=False))

    return lm


@pytest.mark.parametrize("program", [dspy.Predict, dspy.ChainOfThought])
@pytest.mark.parametrize("way", ["call", "acall", "steps"])
def test_a_module_of_dspy_gets_json_mode_from_databricks(program: Any, way: str, databricks: Any):
    with chat_stub(REPLY, REPLY, COUNT, check=refuses_sure) as stub:
        lm = databricks(stub)
        with dspy.context(lm=lm, adapter=dspy.JSONAdapter()):
            for _ in range(2):
                assert ask(program("question -> answer, sure: bool"), way).answer == "4 euros"
            assert formats(stub) == ["json_schema", "json_object", "json_object"], "remembered"
            assert ask(dspy.Predict("question -> count: int"), way).count == 2
            assert formats(stub)[-1] == "json_schema", "another schema isn't affected"


def ask(program: dspy.Module, way: str) -> Any:
    if way == "call":
        return program(question="?")
    if way == "acall":
        return asyncio.run(program.acall(question="?"))
    steps = as_program(program).steps(question="?")
    return next(step.prediction for step in steps if isinstance(step, Answer))


@pytest.mark.parametrize("streaming", [False, True])
def test_a_plain_lm_falls_back_in_a_program(streaming: bool):
    with chat_stub(REPLY, REPLY, check=refuses_sure) as stub:
        with dspy.context(lm=stub.lm(), adapter=dspy.JSONAdapter()):
            agent = oneturn.ResponsesAdapter(as_program(dspy.Predict("question -> answer, sure: bool")))
            request: Any = {"input": [{"role": "user", "content": "?"}]}
            for _ in range(2):
                if streaming:
                    list(agent.predict_stream(request))
                else:
                    agent.predict(request)
        assert formats(stub) == ["json_schema", "json_object", "json_object"]


def test_an_lm_without_json_mode_is_asked_without_a_format(databricks: Any):
    with chat_stub(
        REPLY, check=lambda body: "response_format isn't supported" if "response_format" in body else None
    ) as stub:
        with dspy.context(lm=databricks(stub), adapter=dspy.JSONAdapter()):
            assert dspy.Predict("question -> answer, sure: bool")(question="?").sure is True
        assert formats(stub) == ["json_schema", "json_object", "text"]


def test_another_refusal_is_an_error(databricks: Any):
    with chat_stub(check=lambda body: "temperature isn't supported") as stub:
        with (
            dspy.context(lm=databricks(stub), adapter=dspy.JSONAdapter()),
            pytest.raises(Exception, match="temperature"),
        ):
            dspy.Predict("question -> answer, sure: bool")(question="?")
        assert len(stub.requests) == 1


def test_react_sees_the_refusal_itself(databricks: Any):
    step = json.dumps({"tool_call": {"name": "finish", "args": {"answer": "4 euros", "sure": True}}})
    with chat_stub(step, check=refuses_sure) as stub:
        program = oneturn.ReAct("question -> answer, sure: bool", tools=[], tool_calling="schema")
        program.set_lm(databricks(stub))
        assert program(question="?").sure is True
        assert formats(stub) == ["json_schema", "json_object"]
        assert program.tool_calling_with(program.step.lm) == "text"
