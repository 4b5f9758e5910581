"""A logged agent in a virtual environment with its pinned requirements and nothing else, as Model Serving makes one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import mlflow
import pytest

import oneturn
from tests.databricks.conftest import forget
from tests.databricks.stub_lm import stub_lm

ANSWER = "Until six."
ASK = """
import json, sys
from importlib.metadata import PackageNotFoundError, version
import mlflow

model = mlflow.pyfunc.load_model(sys.argv[1])
request = {"input": [{"role": "user", "content": "Is it open?"}]}
whole = model.predict(request)
deltas = [event["delta"] for event in model.predict_stream(request) if event["type"] == "response.output_text.delta"]
try:
    installed = version("oneturn")
except PackageNotFoundError:
    installed = None
import oneturn
found = {"text": whole["output"][-1]["content"][0]["text"], "streamed": "".join(deltas), "oneturn": installed}
print(json.dumps(found | {"code": oneturn.__file__}))
"""


@pytest.mark.fresh_env
def test_the_logged_agent_answers_with_exactly_its_pinned_requirements(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "agent.py").write_text((Path(__file__).parent / "desk" / "agent.py").read_text())
    parts = tmp_path / "desk_parts"
    parts.mkdir()
    (parts / "__init__.py").write_text('GREETING = ""\n')
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    monkeypatch.setattr("mlflow.tracking.fluent._active_experiment_id", None)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    with stub_lm(ANSWER) as url:
        lm = {"model": "openai/stub", "api_base": url, "api_key_env": "STUB_API_KEY", "cache": False}
        settings = {"tracking_uri": f"sqlite:///{tmp_path}/mlflow.db", "experiment": "fresh", "model_name": "desk"}
        (tmp_path / "config.json").write_text(json.dumps({"lm": lm, "mlflow": settings}))
        monkeypatch.setenv("STUB_API_KEY", "none")
        forget()
        agent = oneturn.load_agent(tmp_path / "agent.py", tmp_path / "config.json")
        logged = oneturn.log_model(agent)
        folder = mlflow.artifacts.download_artifacts(logged.model_uri, dst_path=str(tmp_path / "model"))
        python = environment(tmp_path / "venv", Path(folder) / "requirements.txt")
        found = ask(python, folder, tmp_path)
    assert (found["text"], found["streamed"], found["oneturn"]) == (ANSWER, ANSWER, None)
    assert Path(found["code"]).is_relative_to(folder), "oneturn has come with the model"


def environment(folder: Path, requirements: Path) -> Path:
    """A virtual environment with exactly these requirements; gives its Python."""
    subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    python = folder / "bin" / "python"
    command = [str(python), "-m", "pip", "install", "-q", "--disable-pip-version-check", "-r", str(requirements)]
    subprocess.run(command, check=True)
    return python


def ask(python: Path, model: str, folder: Path) -> dict[str, str]:
    """Ask the model in a process that knows nothing of this checkout."""
    kept = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "MLFLOW_TRACKING_URI")}
    done = subprocess.run(
        [str(python), "-c", ASK, model], cwd=folder, env=kept, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout.strip().splitlines()[-1]))
