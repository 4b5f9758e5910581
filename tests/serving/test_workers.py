"""``oneturn serve --workers`` and ``--reload``, in processes of their own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

ROOT = Path(__file__).resolve().parents[2]
SERVE = "from oneturn.cli import app; app()"

AGENT = """
import os
import pathlib

import dspy
import mlflow

import oneturn
from oneturn.config import AgentConfig

mlflow.tracing.disable()
CONFIG = AgentConfig.read()


@oneturn.tool(approval=True)
def pay(amount: int) -> str:
    \"\"\"Pay.\"\"\"
    return "paid"


class Process(dspy.Module):
    signature = dspy.Signature("question -> answer")

    def forward(self, question: str) -> dspy.Prediction:
        return dspy.Prediction(answer=f"FIRST {os.getpid()} {CONFIG.serve.deadline}")


AGENT = oneturn.Agent(
    name="processes",
    config=CONFIG,
    build=lambda: oneturn.ReAct("question -> answer", tools=[pay]) if CONFIG.max_iters == 1 else Process(),
    metric=lambda *arguments, **options: 1.0,
    examples=lambda split: [],
    recipes={},
    root=pathlib.Path(__file__).parent,
    code_paths=["agent.py"],
    example_questions=["?"],
)
"""


@contextmanager
def serving(folder: Path, *options: str, settings: str = "") -> Iterator[subprocess.Popen[str]]:
    """Start ``oneturn serve`` in a folder with an agent."""
    (folder / "agent.py").write_text(AGENT)
    config = f"lm: {{model: openai/x}}\nmlflow: {{tracking_uri: 'sqlite:///{folder}/mlflow.db'}}\n{settings}"
    (folder / "here.yaml").write_text(config)
    command = [sys.executable, "-c", SERVE, "serve", "--port", "0", "--config", "here.yaml", *options]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(command, cwd=folder, env=environment, stderr=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            if process.poll() is None:  # its processes end with it
                process.send_signal(signal.SIGINT)
                try:
                    process.communicate(timeout=120)
                except subprocess.TimeoutExpired:
                    process.kill()


def url_of(process: subprocess.Popen[str]) -> str:
    assert process.stderr is not None
    line = next(line for line in process.stderr if line.startswith("Serving at "))
    return line.split()[2]


def ask(url: str) -> list[str]:
    body = {"input": [{"role": "user", "content": "?"}]}
    response = httpx.post(f"{url}/v1/responses", json=body, timeout=300)
    assert response.status_code == 200, response.text
    text: str = response.json()["output"][0]["content"][0]["text"]
    return text.split()


def test_workers_share_the_requests(tmp_path: Path):
    with serving(tmp_path, "--workers", "2", settings="serve: {deadline: 77}") as process:
        url = url_of(process)
        answers = [ask(url)]
        while len({answer[1] for answer in answers}) < 2 and len(answers) < 500:
            answers.append(ask(url))
        process.send_signal(signal.SIGINT)
        _, rest = process.communicate(timeout=120)
    assert process.returncode == 0
    assert len({answer[1] for answer in answers}) == 2
    assert {answer[2] for answer in answers} == {"77.0"}
    assert str(process.pid) not in {answer[1] for answer in answers}
    assert "Traceback" not in rest


def test_the_server_restarts_when_the_code_changes(tmp_path: Path):
    with serving(tmp_path, "--reload") as process:
        url = url_of(process)
        assert ask(url)[0] == "FIRST"
        (tmp_path / "agent.py").write_text(AGENT.replace("FIRST", "SECOND"))
        assert process.stderr is not None
        assert next(line for line in process.stderr if "detected changes in 'agent.py'" in line)
        answers = [ask(url)[0]]
        while answers[-1] == "FIRST" and len(answers) < 500:
            answers.append(ask(url)[0])
        assert answers[-1] == "SECOND"


def test_a_process_that_cannot_start_ends_the_server(tmp_path: Path):
    with serving(tmp_path, "--workers", "2", settings="max_iters: 1") as process:
        _, rest = process.communicate(timeout=300)
    assert process.returncode == 1
    assert "pay may need a person's approval, and approvals.key_env isn't set" in rest
    assert "The server didn't start" in rest
    assert "Traceback" not in rest


@pytest.mark.parametrize("options", [("--workers", "2", "--reload"), ("--workers", "0")])
def test_impossible_options_are_refused(options: tuple[str, ...], tmp_path: Path):
    with serving(tmp_path, *options) as process:
        _, rest = process.communicate(timeout=300)
    assert process.returncode == 2
    assert "--workers" in rest
