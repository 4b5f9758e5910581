"""A request is parsed once, before its stream starts."""

from __future__ import annotations

from typing import Annotated, Any

import dspy
import httpx
import pytest
from pydantic import AfterValidator

import oneturn
from oneturn.errors import RequestError
from oneturn.testing import ScriptedLM, finish

BUILT: list[str] = []


def _count(tone: str) -> str:
    BUILT.append(tone)
    return tone


class Ask(dspy.Signature):
    """Answer."""

    question: str = dspy.InputField()
    tone: Annotated[str, AfterValidator(_count)] = dspy.InputField()
    answer: str = dspy.OutputField()


REQUEST: dict[str, Any] = {
    "input": [{"role": "user", "content": "How many?"}],
    "custom_inputs": {"tone": "kind"},
    "context": {"user_id": "u1"},
}


@pytest.fixture
def agent() -> oneturn.ResponsesAdapter:
    BUILT.clear()
    program = oneturn.ReAct(Ask, tools=[])
    program.set_lm(ScriptedLM(finish(answer="Twelve.")))
    return oneturn.ResponsesAdapter(program)


@pytest.mark.parametrize("stream", [True, False])
def test_a_served_request_s_inputs_are_built_once(agent: oneturn.ResponsesAdapter, stream: bool):
    with oneturn.running_server(agent) as url:
        answer = httpx.post(f"{url}/responses", json={**REQUEST, "stream": stream})
    assert "Twelve." in answer.text
    assert BUILT == ["kind"]


def test_a_parsed_request_has_all_that_a_run_needs(agent: oneturn.ResponsesAdapter):
    parsed = agent.parse(REQUEST)
    assert parsed.inputs == {"question": "How many?", "tone": "kind"}
    assert (parsed.resumption, parsed.request.context.user_id) == (None, "u1")
    assert parsed.request.custom_inputs == {"tone": "kind"}
    *_, last = agent.stream(parsed)
    assert last["type"] == "response.completed"
    assert BUILT == ["kind"]


def test_a_parsed_request_is_run_without_a_stream(agent: oneturn.ResponsesAdapter):
    response = agent.run(agent.parse(REQUEST))
    assert response.output[-1].content[0]["text"] == "Twelve."
    assert BUILT == ["kind"]


def test_parsing_refuses_and_runs_nothing(agent: oneturn.ResponsesAdapter):
    with pytest.raises(RequestError, match="unknown field 'hue'"):
        agent.parse({**REQUEST, "custom_inputs": {"hue": "red"}})
    with pytest.raises(RequestError, match="input: Field required"):
        agent.parse({})
    response = {"type": "mcp_approval_response", "approval_request_id": "mcpr_1", "approve": True}
    with pytest.raises(RequestError, match="The input has no approval request 'mcpr_1'"):
        agent.parse({**REQUEST, "input": [*REQUEST["input"], response]})


class Louder(oneturn.ResponsesAdapter):
    """A subclass with its own stream."""

    def predict_stream(self, request: Any) -> Any:
        for event in super().predict_stream(request):
            if event.type == "response.completed":
                event.response["louder"] = True
            yield event


def test_a_subclass_s_own_stream_is_served(agent: oneturn.ResponsesAdapter):
    with oneturn.running_server(Louder(agent.program)) as url:
        assert '"louder"' in httpx.post(f"{url}/responses", json={**REQUEST, "stream": True}).text
        refused = httpx.post(f"{url}/responses", json={"input": [], "stream": True})
    assert refused.status_code == 400
