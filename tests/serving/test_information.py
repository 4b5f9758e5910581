"""What a server says about itself: models, readiness, description, OpenAPI document, ids of requests."""

from __future__ import annotations

import json
from typing import Any, Literal

import dspy
import jsonschema
import mlflow
import pydantic
import pytest
from dspy.lm15 import RateLimitError
from mlflow.pyfunc import ResponsesAgent
from starlette.testclient import TestClient

import oneturn
from oneturn.serving import application
from oneturn.testing import ScriptedLM, call, finish
from tests.open_responses import read_events


class Place(pydantic.BaseModel):
    town: str
    kind: Literal["city", "village"] = "city"


class Weather(dspy.Signature):
    """Say what the weather is."""

    question: str = dspy.InputField()
    place: Place = dspy.InputField(default=Place(town="Bern"))
    answer: str = dspy.OutputField()
    degrees: float | None = dspy.OutputField()


def measure(town: str, unit: str = "C") -> str:
    """Measure the temperature."""
    return "12"


def weather(*replies: Any) -> oneturn.ResponsesAdapter:
    program = oneturn.ReAct(Weather, tools=[measure])
    program.set_lm(ScriptedLM(*replies))
    return oneturn.ResponsesAdapter(program)


@pytest.fixture
def client() -> TestClient:
    done = finish("so", answer="Mild.", degrees=12.0)
    return TestClient(application(weather(call("measure", town="Bern"), *[done] * 2), name="weather", version="7"))


def test_the_agent_is_the_only_model(client: TestClient):
    models = client.get("/v1/models").json()
    assert models["object"] == "list"
    [model] = models["data"]
    assert (model["id"], model["object"], type(model["created"])) == ("weather", "model", int)
    assert client.get("/v1/models/weather").json() == model


def test_another_model_is_not_found(client: TestClient):
    answer = client.get("/v1/models/gpt")
    assert answer.status_code == 404
    assert answer.json()["error"] == {
        "type": "not_found",
        "code": "not_found",
        "message": "The server has no model 'gpt'; the only one is 'weather'.",
        "param": "model",
    }


def test_the_agent_s_description(client: TestClient):
    info = client.get("/agent/info").json()
    assert (info["name"], info["version"], info["agent_api"]) == ("weather", "7", "responses")
    assert info["inputs"]["required"] == ["question"]
    assert info["inputs"]["properties"]["place"] == {"$ref": "#/$defs/Place"}
    assert info["outputs"]["properties"]["degrees"] == {"anyOf": [{"type": "number"}, {"type": "null"}]}
    [tool] = info["tools"]
    assert (tool["name"], tool["description"]) == ("measure", "Measure the temperature.")
    assert tool["parameters"]["properties"]["town"] == {"type": "string"}


def test_a_module_s_tools_are_listed_without_the_one_that_ends_its_loop():
    module = dspy.ReAct("question -> answer", tools=[measure])
    module.set_lm(ScriptedLM())
    info = TestClient(application(oneturn.ResponsesAdapter(module))).get("/agent/info").json()
    assert [tool["name"] for tool in info["tools"]] == ["measure"]


class Other(ResponsesAgent):
    """An agent of somebody else."""

    def predict(self, request: Any) -> Any:
        raise NotImplementedError


def test_another_agent_has_no_schemas():
    info = TestClient(application(Other())).get("/agent/info").json()
    assert "inputs" not in info
    assert TestClient(application(Other())).get("/openapi.json").status_code == 200


def test_readiness_is_that_the_program_can_be_built(client: TestClient):
    assert client.get("/ready").json() == {"status": "ready"}

    def build() -> Any:
        raise oneturn.errors.ProgramError("no such file: /srv/secret.json")

    broken = TestClient(application(oneturn.ResponsesAdapter(build))).get("/ready")
    assert broken.status_code == 503
    assert broken.json()["error"]["code"] == "server_error"
    assert "/srv" not in broken.text
    assert broken.headers["retry-after"] == "1"


REQUESTS = {
    "a text": ({"input": "?"}, True),
    "all fields": (
        {
            "input": [{"role": "user", "content": [{"type": "input_text", "text": "?"}]}],
            "custom_inputs": {"place": {"town": "Thun", "kind": "village"}},
            "stream": False,
            "store": False,
            "temperature": 0.5,
            "metadata": {"a": "b"},
            "text": {"format": {"type": "json_object"}},
            "tools": [],
        },
        True,
    ),
    "an approval": (
        {"input": [{"type": "mcp_approval_response", "approval_request_id": "x", "approve": True}]},
        True,
    ),
    "a stored response": ({"input": "?", "store": True}, False),
    "another field": ({"input": "?", "colour": "red"}, False),
    "another input": ({"input": "?", "custom_inputs": {"colour": "red"}}, False),
    "another kind of place": ({"input": "?", "custom_inputs": {"place": {"town": "Thun", "kind": "lake"}}}, False),
    "no input": ({}, False),
    "an item without a role": ({"input": [{"content": "?"}]}, False),
    "a temperature out of range": ({"input": "?", "temperature": 3}, False),
}


@pytest.mark.parametrize("case", REQUESTS)
def test_the_openapi_document_has_the_schema_of_requests(client: TestClient, case: str):
    request, valid = REQUESTS[case]
    document = client.get("/openapi.json").json()
    for path in ("/v1/responses", "/responses", "/invocations"):
        content = document["paths"][path]["post"]["requestBody"]["content"]["application/json"]
        schema = {**content["schema"], "components": document["components"]}
        jsonschema.Draft202012Validator.check_schema(schema)
        assert jsonschema.Draft202012Validator(schema).is_valid(request) == valid
    if not valid:
        assert client.post("/v1/responses", json=request).status_code == 400


def test_the_openapi_document_names_every_path(client: TestClient):
    paths = client.get("/openapi.json").json()["paths"]
    for path, operations in paths.items():
        if "get" in operations:
            assert client.get(path.format(id="weather")).status_code == 200
    assert set(paths) == {
        "/v1/responses", "/responses", "/invocations", "/v1/models", "/v1/models/{id}", "/health", "/ready",
        "/agent/info", "/openapi.json",
    }  # fmt: skip


def test_every_response_has_the_request_s_id(client: TestClient):
    assert client.get("/health", headers={"x-request-id": "mine-1"}).headers["x-request-id"] == "mine-1"
    first, second = (client.get("/nothing").headers["x-request-id"] for _ in range(2))
    assert first.startswith("req_")
    assert first != second
    assert client.get("/health", headers={"x-request-id": "two words"}).headers["x-request-id"].startswith("req_")
    stream = client.post("/v1/responses", json={"input": "?", "stream": True}, headers={"x-request-id": "mine-2"})
    assert stream.headers["x-request-id"] == "mine-2"


@pytest.mark.usefixtures("traced")
def test_the_trace_has_the_request_s_id(client: TestClient):
    headers = {"x-request-id": "mine-3", "x-mlflow-return-trace-id": "true"}
    response = client.post("/v1/responses", json={"input": "?"}, headers=headers).json()
    trace = mlflow.get_trace(response["metadata"]["trace_id"])
    assert trace is not None
    assert trace.info.client_request_id == "mine-3"


@pytest.mark.usefixtures("traced")
@pytest.mark.parametrize("path", ["/v1/responses", "/responses"])
@pytest.mark.parametrize("stream", [False, True])
def test_databricks_options_ask_for_the_trace_s_id(client: TestClient, path: str, stream: bool):
    def trace_id(**options: Any) -> Any:
        answer = client.post(path, json={"input": "?", "stream": stream, "databricks_options": options})
        assert answer.status_code == 200, answer.text
        if not stream:
            return (answer.json().get("metadata") or {}).get("trace_id")
        data = [json.loads(line[6:]) for line in answer.text.splitlines() if line.startswith("data: {")]
        traced = (event.get("trace_id") or _trace_id_of(event) for event in data)
        return next((id for id in traced if id), None)

    trace = mlflow.get_trace(trace_id(return_trace=True, conversation_id="talk", user_id="me"))
    assert trace is not None
    assert trace.info.trace_metadata["mlflow.trace.session"] == "talk"
    assert trace.info.trace_metadata["mlflow.trace.user"] == "me"
    assert trace_id(return_trace=False) is None


def _trace_id_of(event: dict[str, Any]) -> Any:
    return ((event.get("response") or {}).get("metadata") or {}).get("trace_id")


@pytest.mark.usefixtures("traced")
def test_a_stream_of_open_responses_has_the_trace_s_id_in_its_metadata(client: TestClient):
    headers = {"x-mlflow-return-trace-id": "true"}
    sent = {"input": "?", "stream": True, "metadata": {"a": "b"}}
    events = read_events(client.post("/v1/responses", json=sent, headers=headers).text)
    metadata = events[-1]["response"]["metadata"]
    assert metadata["a"] == "b"
    assert mlflow.get_trace(metadata["trace_id"]) is not None


@pytest.mark.parametrize("path", ["/v1/responses", "/responses"])
@pytest.mark.parametrize("stream", [False, True])
def test_an_error_says_when_to_ask_again(path: str, stream: bool):
    client = TestClient(application(weather(RateLimitError("slow down", retry_after=2.5))))
    sent = client.post(path, json={"input": "?", "stream": stream})
    error = _error(sent.text) if stream else sent.json()["error"]
    assert (error["type"], error["code"]) == ("too_many_requests", "rate_limit_exceeded")
    headers = error["headers"] if stream else {name.title(): value for name, value in sent.headers.items()}
    assert headers["Retry-After"] == "3"
    assert "x-should-retry" not in {name.lower() for name in headers}


@pytest.mark.parametrize("stream", [False, True])
def test_an_error_says_that_asking_again_does_not_help(stream: bool):
    client = TestClient(application(weather(*[finish(answer="Mild.", degrees="many")] * 2)))
    sent = client.post("/v1/responses", json={"input": "?", "stream": stream})
    error = _error(sent.text) if stream else sent.json()["error"]
    assert (error["type"], error["code"]) == ("model_error", "invalid_output")
    headers = error["headers"] if stream else sent.headers
    assert headers["x-should-retry"] == "false"
    assert "retry-after" not in {name.lower() for name in headers}
    assert sent.status_code in (200, 424)


def test_a_refused_stream_is_an_error_that_is_not_to_be_repeated(client: TestClient):
    sent = client.post("/v1/responses", json={"input": "?", "stream": True, "previous_response_id": "resp_1"})
    assert (sent.status_code, sent.headers["x-should-retry"]) == (400, "false")
    assert sent.json()["error"]["param"] == "previous_response_id"


def test_a_failed_stream_has_its_usage():
    client = TestClient(application(weather(*[finish(answer="Mild.", degrees="many")] * 2)))
    text = client.post("/v1/responses", json={"input": "?", "stream": True}).text
    error, failed = read_events(text)[-2:]
    assert failed["type"] == "response.failed"
    assert failed["response"]["error"]["code"] == error["code"] == "invalid_output"
    assert failed["response"]["usage"]["output_tokens"] > 0


def _error(text: str) -> dict[str, Any]:
    data = [json.loads(line[6:]) for line in text.splitlines() if line.startswith("data: {")]
    event = next(event for event in data if event["type"] == "error")
    assert {name: event[name] for name in ("code", "message", "param")} == {
        name: event["error"][name] for name in ("code", "message", "param")
    }
    error: dict[str, Any] = event["error"]
    return error


def test_an_agent_without_a_fingerprint_is_described(monkeypatch: pytest.MonkeyPatch):
    def broken(self: Any, json_mode: bool = True) -> Any:
        raise TypeError("can't dump")

    monkeypatch.setattr(dspy.Predict, "dump_state", broken)
    with TestClient(application(oneturn.ResponsesAdapter(oneturn.ReAct("question -> answer", tools=[])))) as client:
        answer = client.get("/agent/info")
    assert answer.status_code == 200
    assert answer.json().get("fingerprint") is None
