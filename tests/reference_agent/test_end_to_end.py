"""The logged agent, loaded outside the checkout, gives the same answer through every client."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from oneturn import load_agent, log_model

ROOT = Path(__file__).resolve().parents[2]
QUERY_WITH_EVERY_CLIENT = """
import json, sys
import httpx, mlflow, openai, oneturn

uri, request = sys.argv[1], json.loads(sys.argv[2])
model = mlflow.pyfunc.load_model(uri)
import data  # from the logged model
pyfunc = model.predict(request)
texts = lambda output: [c["text"] for item in output if item["type"] == "message" for c in item["content"]]
with oneturn.running_server(model.get_raw_model()) as url:
    client = openai.OpenAI(base_url=url, api_key="none", timeout=300)
    plain = client.responses.create(model="agent", input=request["input"])
    with client.responses.create(model="agent", input=request["input"], stream=True) as events:
        deltas = [event.delta for event in events if event.type == "response.output_text.delta"]
    http = httpx.post(url + "/invocations", json=request, timeout=300).json()
    ours = oneturn.query(url, request["input"][0]["content"])
answers = {
    "pyfunc": texts(pyfunc["output"]),
    "openai": [plain.output_text],
    "openai, streaming": ["".join(deltas)],
    "http": texts(http["output"]),
    "oneturn.query": [ours.text],
}
print(json.dumps({"answers": answers, "code": data.__file__, "outputs": pyfunc["custom_outputs"]}))
"""


@pytest.mark.local_lm
def test_every_client_gets_the_same_answer_from_the_logged_agent(tmp_path, monkeypatch):
    config = yaml.safe_load((ROOT / "configs" / "dev.yaml").read_text())
    config["lm"]["model"] = "local/0.5B"
    config["mlflow"]["tracking_uri"] = f"sqlite:///{tmp_path}/mlflow.db"
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ONETURN_CONFIG", str(tmp_path / "config.yaml"))
    agent = load_agent(ROOT / "agent.py")
    logged = log_model(agent)

    request = {"input": [{"role": "user", "content": agent.example_questions[0]}]}
    environment = {"MLFLOW_TRACKING_URI": config["mlflow"]["tracking_uri"], "MLFLOW_DISABLE_TELEMETRY": "true"}
    result = _run(tmp_path, [logged.model_uri, json.dumps(request)], environment)

    answers = list(result["answers"].values())
    assert answers[0] != [""]
    assert all(answer == answers[0] for answer in answers), result["answers"]
    assert not Path(result["code"]).is_relative_to(ROOT), "the model uses its own code"
    assert set(result["outputs"]) == {"citations", "answerable"}


def _run(folder: Path, arguments: list[str], environment: dict[str, str]) -> dict:
    inherited = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "ONETURN_CONFIG")}
    done = subprocess.run(
        [sys.executable, "-c", QUERY_WITH_EVERY_CLIENT, *arguments],
        cwd=folder,
        env=inherited | environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.strip().splitlines()[-1])
