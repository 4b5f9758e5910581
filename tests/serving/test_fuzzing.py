"""Requests drawn from the OpenAPI document, valid and not: every answer is one that the document describes."""

from __future__ import annotations

from functools import cache
from typing import Any

import dspy
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import oneturn
from oneturn.serving import application
from oneturn.testing import ScriptedLM, finish

schemathesis = pytest.importorskip("schemathesis")  # needs Python 3.11
conformance = pytest.importorskip("schemathesis.specs.openapi.checks")
schema_conformance = conformance.response_schema_conformance
type_conformance = conformance.content_type_conformance

ERROR = {"type", "code", "message", "param"}
RUNS = ("/v1/responses", "/responses", "/invocations")
FEW = settings(
    max_examples=25,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large],
)


class Ask(dspy.Signature):
    """Answer."""

    system_message: str = dspy.InputField(default="")
    question: str = dspy.InputField()
    tone: str = dspy.InputField(default="plain")
    limit: int | None = dspy.InputField(default=None)
    history: dspy.History = dspy.InputField(default=dspy.History(messages=[]))
    image: dspy.Image | None = dspy.InputField(default=None)
    answer: str = dspy.OutputField()
    sure: bool = dspy.OutputField()


@cache
def operations() -> dict[str, Any]:
    """The operations of the document by method and path."""
    program = oneturn.ReAct(Ask, tools=[])
    program.set_lm(ScriptedLM(*[finish(answer="Yes.", sure=True)] * 100_000))
    schema = schemathesis.openapi.from_asgi("/openapi.json", application(oneturn.ResponsesAdapter(program)))
    return {result.ok().label: result.ok() for result in schema.get_all_operations()}


def check(case: Any) -> None:
    """No 5xx, an error object for every error, and nothing that the document doesn't describe."""
    response = case.call()
    assert response.status_code < 500, response.text
    if response.status_code >= 400:
        assert set(response.json()["error"]) == ERROR
    case.validate_response(response, checks=[schema_conformance, type_conformance])


@pytest.mark.parametrize("path", RUNS)
@pytest.mark.parametrize("mode", list(schemathesis.GenerationMode), ids=lambda mode: mode.name.lower())
def test_requests_of_the_document(path: str, mode: Any):
    @FEW
    @given(case=operations()[f"POST {path}"].as_strategy(generation_mode=mode))
    def run(case: Any) -> None:
        check(case)

    run()


VALID: dict[str, Any] = {
    "model": "agent",
    "instructions": "Be brief.",
    "input": [
        {"role": "system", "content": "Be kind."},
        {"role": "user", "content": [{"type": "input_text", "text": "Look it up."}]},
        {"type": "reasoning", "id": "r", "summary": [{"type": "summary_text", "text": "I look."}]},
        {"type": "function_call", "id": "f", "call_id": "c", "name": "look_up", "arguments": '{"word": "w"}'},
        {"type": "function_call_output", "call_id": "c", "output": "found"},
        {"type": "mcp_call", "id": "m", "name": "n", "server_label": "s", "arguments": "{}", "output": "o"},
        {"type": "mcp_approval_request", "id": "a", "name": "n", "server_label": "s", "arguments": "{}"},
        {"type": "mcp_approval_response", "approval_request_id": "a", "approve": False},
        {"role": "assistant", "content": [{"type": "output_text", "text": "Found.", "annotations": []}]},
        {
            "role": "user",
            "content": [
                {"type": "input_text", "text": "And this?"},
                {"type": "input_image", "image_url": "data:image/png;base64,iVBORw0KGgo=", "detail": "auto"},
            ],
        },
    ],
    "custom_inputs": {"tone": "kind", "limit": 3},
    "context": {"conversation_id": "c", "user_id": "u"},
    "metadata": {"a": "b"},
    "text": {"format": {"type": "text"}},
    "temperature": 0.5,
    "max_output_tokens": 100,
    "max_tool_calls": 3,
    "store": False,
    "stream": False,
}

json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=9)
    | st.sampled_from(["\ud800", "é", "", "data:image/png;base64,", "file:///etc/passwd", "http://[", 10**30, -1]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


def paths(value: Any, at: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The places of all values in a JSON value."""
    parts = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [at, *(path for key, inner in parts for path in paths(inner, (*at, key)))]


def replaced(value: Any, path: tuple[Any, ...], new: Any) -> Any:
    """A copy of a JSON value with another value at a place."""
    if not path:
        return new
    copied = value.copy()
    copied[path[0]] = replaced(value[path[0]], path[1:], new)
    return copied


@pytest.mark.parametrize("path", RUNS)
def test_a_request_with_one_value_replaced(path: str):
    @settings(FEW, max_examples=150)
    @given(at=st.sampled_from(paths(VALID)), new=json_values)
    def run(at: tuple[Any, ...], new: Any) -> None:
        operation = operations()[f"POST {path}"]
        check(operation.Case(body=replaced(VALID, at, new), media_type="application/json"))

    run()
