"""The agents of these tests, and how they are asked."""

from __future__ import annotations

import re
from typing import Any, cast

import dspy
from mlflow.entities import Document
from starlette.testclient import TestClient

import oneturn
from oneturn.testing import ScriptedLM, ScriptedRequest, call, finish
from oneturn.tools.approvals import Approvals
from tests.open_responses import check_events, check_response, read_events

KEY = "0123456789abcdef" * 2


def look_up(order: int) -> list[Document]:
    """Look an order up."""
    return [Document(f"Order {order} cost 150 euros.", {"title": "Order", "doc_uri": f"orders/{order}"}, id="o7")]


@oneturn.tool(approval=True)
def refund(euros: float) -> str:
    """Give money back."""
    return f"{euros:g} euros are on their way"


class Talk(dspy.Signature):
    """Talk about orders."""

    question: str = dspy.InputField()
    system_message: str = dspy.InputField(default="")
    history: dspy.History = dspy.InputField(default=dspy.History(messages=[]))
    answer: str = dspy.OutputField()


def respond(request: ScriptedRequest) -> dict[str, Any]:
    """Look up and refund if the question says so; otherwise repeat the prompt's ``code-…`` words."""
    steps = [message["content"] for message in request.messages if message["role"] == "assistant"]
    prompt = "\n".join(str(message["content"]) for message in request.messages)
    if "refund, please" not in prompt:
        words = sorted(set(re.findall(r"code-[a-z]+", prompt)))
        return finish("I know", answer=f"I heard {' '.join(words)}.")
    script = [call("look_up", "look", order=7), call("refund", "pay", euros=150.0)]
    return script[len(steps)] if len(steps) < len(script) else finish(answer=str(request.messages[-1]["content"]))


def desk() -> oneturn.ResponsesAdapter:
    """An agent that remembers what it heard, and refunds with a person's approval."""
    program = oneturn.ReAct(Talk, tools=[look_up, refund])
    program.set_lm(ScriptedLM(*[respond] * 500))
    return oneturn.ResponsesAdapter(program, approvals=Approvals(KEY))


def scripted_lm(agent: oneturn.ResponsesAdapter) -> Any:
    """The agent's LM, which has the requests that it got."""
    return cast(Any, agent.program).get_lm()


def ask(client: TestClient, given: Any, stream: bool = False, **fields: Any) -> dict[str, Any]:
    """Send a request to ``/v1/responses``; check what comes by the specification's schemas; return the response."""
    sent = client.post("/v1/responses", json={"input": given, "stream": stream, **fields})
    assert sent.status_code == 200, sent.text
    if not stream:
        check_response(sent.json())
        return sent.json()
    events = read_events(sent.text)
    check_events(events)
    return events[-1]["response"]


def text(response: dict[str, Any]) -> str:
    """The answer."""
    return str(response["output"][-1]["content"][0]["text"])
