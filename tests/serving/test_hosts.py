"""The adapter is a plain ``ResponsesAgent``: MLflow's own servers host it too."""

from __future__ import annotations

import json
import os
import threading
from pathlib import Path
from typing import Any

import mlflow
import pytest
from mlflow.genai.agent_server import AgentServer, invoke, stream
from mlflow.pyfunc import scoring_server
from starlette.testclient import TestClient

import oneturn
from oneturn.responses.request_fields import ACCEPTED_VALUES, RequestFields
from oneturn.testing import ScriptedLM, ScriptedRequest, call, finish

QUESTION = {"input": [{"role": "user", "content": "What is a tide?"}]}
KINDS = ["reasoning", "function_call", "function_call_output", "message"]

MODEL = """
import mlflow, oneturn
from tests.serving.test_hosts import adapter

mlflow.models.set_model(oneturn.ResponsesAdapter(lambda: adapter(9).program))
"""


def look_up(word: str) -> str:
    """Look a word up."""
    return f"meaning of {word}"


def reply(request: ScriptedRequest) -> dict[str, Any]:
    if "meaning of" in request.text:
        return finish(answer="The tide turns.", sure=True)
    return call("look_up", "I look it up", word="tide")


def adapter(runs: int = 2) -> oneturn.ResponsesAdapter:
    program = oneturn.ReAct("question -> answer, sure: bool", tools=[look_up])
    program.set_lm(ScriptedLM(*[reply] * 2 * runs))
    return oneturn.ResponsesAdapter(program)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The folder of a logged model."""
    folder = tmp_path_factory.mktemp("hosts")
    (folder / "agent.py").write_text(MODEL)
    mlflow.pyfunc.save_model(str(folder / "model"), python_model=str(folder / "agent.py"), pip_requirements=["oneturn"])
    return str(folder / "model")


def kinds(output: list[dict[str, Any]]) -> list[str]:
    return [item["type"] for item in output]


@pytest.fixture
def agent_server(monkeypatch: pytest.MonkeyPatch) -> TestClient:
    """MLflow's ``AgentServer`` with the adapter's methods, as its documentation has it."""
    for name in ("_invoke_function", "_stream_function"):
        monkeypatch.setattr(f"mlflow.genai.agent_server.server.{name}", None)
    agent = adapter()
    invoke()(agent.predict)
    stream()(agent.predict_stream)
    return TestClient(AgentServer("ResponsesAgent").app)


@pytest.mark.parametrize("path", ["/responses", "/invocations"])
def test_agent_server(agent_server: TestClient, path: str):
    response = agent_server.post(path, json=QUESTION).json()
    assert kinds(response["output"]) == KINDS
    assert response["custom_outputs"] == {"sure": True}
    streamed = agent_server.post(path, json={**QUESTION, "stream": True}).text
    events = [json.loads(line.removeprefix("data: ")) for line in streamed.splitlines() if line.startswith("data: {")]
    assert events[-1]["type"] == "response.completed"
    assert kinds(events[-1]["response"]["output"]) == KINDS


def test_the_server_of_mlflow_models_serve(model: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(os, "environ", os.environ.copy())  # MLflow sets a variable
    client = TestClient(scoring_server.init(mlflow.pyfunc.load_model(model)))
    assert client.get("/ping").status_code == 200
    response = client.post("/invocations", json=QUESTION)
    assert response.status_code == 200
    assert kinds(response.json()["output"]) == KINDS


def test_as_model_serving_calls_it(model: str):
    """It calls a loaded model from several threads, with dicts, and gets dicts."""
    loaded = mlflow.pyfunc.load_model(model)
    context = {"context": {"conversation_id": "c1", "user_id": "u1"}, "custom_inputs": {}, "temperature": 0.5}
    results: list[Any] = []
    threads = [
        threading.Thread(target=lambda: results.append(loaded.predict({**QUESTION, **context}))),
        threading.Thread(target=lambda: results.append(list(loaded.predict_stream({**QUESTION, **context})))),
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    response = next(result for result in results if isinstance(result, dict))
    events = next(result for result in results if isinstance(result, list))
    assert events[-1]["response"]["status"] == response["status"] == "completed"
    assert kinds(response["output"]) == kinds(events[-1]["response"]["output"]) == KINDS


DROPPED = {
    "instructions": "Be brief.",
    "max_tool_calls": 1,
    "previous_response_id": "resp_1",
    "conversation": "conv_1",
    "include": ["message.output_text.logprobs"],
    "prompt": {"id": "pmpt_1"},
    "service_tier": "priority",
    "top_logprobs": 3,
}
"""What MLflow drops before the agent sees it."""


def test_what_model_serving_drops_itself(model: str):
    loaded = mlflow.pyfunc.load_model(model)
    assert loaded.predict({**QUESTION, **DROPPED})["status"] == "completed"
    with pytest.raises(oneturn.errors.RequestError, match="store"):
        loaded.predict({**QUESTION, "store": True})


def test_the_documentation_has_every_field():
    page = (Path(__file__).resolve().parents[2] / "docs" / "request-fields.md").read_text(encoding="utf-8")
    fields, dropped = page.split("## What Model Serving drops")
    assert [name for name in {**RequestFields.model_fields, **ACCEPTED_VALUES} if f"`{name}" not in fields] == []
    assert [name for name in DROPPED if f"`{name}`" not in dropped] == []
