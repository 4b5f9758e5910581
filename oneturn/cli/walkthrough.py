"""The whole way in a few minutes: measure, log, serve, ask. What has not changed since isn't done again."""

from __future__ import annotations

import hashlib
import json
from importlib.metadata import version
from pathlib import Path
from typing import Any

import mlflow
from mlflow.exceptions import MlflowException
from openai import OpenAI
from openai.types.responses import ResponseStreamEvent
from rich.console import Console
from rich.table import Table

from oneturn.agent import Agent
from oneturn.config.tracking import use_tracking
from oneturn.datasets.rows import dataset_hash, spread
from oneturn.deployment.model_logging import log_model
from oneturn.evaluation import evaluate
from oneturn.lm import local
from oneturn.serving.server import load_logged, running_server, warm_up

DEV_ROWS = 4
_STATE = Path(".oneturn/demo.json")
_CODE_AND_DATA = {".py", ".json", ".jsonl", ".md", ".csv"}


def demo(agent: Agent) -> None:
    """Show what ``agent`` does, end to end, on this machine; leaves a logged model and its traces behind.

    Args:
        agent: the agent; its compiled program must be there.
    """
    console = Console()
    state = _unchanged(agent)
    _stage(console, 1, "Evaluate the uncompiled and the compiled program on a slice of dev")
    if "scores" not in state:
        _keep({"scores": _scores(agent)}, state)
    _show_scores(console, state["scores"])
    _stage(console, 2, "Log the compiled agent as an MLflow model")
    use_tracking(agent.config.mlflow)
    if not _is_logged(state.get("model_uri")):
        _keep({"model_uri": log_model(agent, register=True).model_uri}, state)
    console.print(f"  {state['model_uri']} in {agent.config.mlflow.tracking_uri}")
    _stage(console, 3, "Serve the logged model, and ask it through the official openai client")
    served = load_logged(state["model_uri"])
    warm_up(served)
    with running_server(served) as url:
        console.print(f"  {url}/responses")
        client = OpenAI(base_url=url, api_key="none-needed", timeout=300, max_retries=0)
        for question in agent.example_questions:
            _ask(console, client, question)
    _where_next(console, agent, state["model_uri"])


def _scores(agent: Agent) -> dict[str, dict[str, float]]:
    examples = spread(agent.examples("dev"), "category")[:DEV_ROWS]
    lm = agent.lm()
    programs = {"uncompiled": agent.program(compiled=False), "compiled": agent.program()}
    found = {}
    for name, program in programs.items():
        if agent.config.lm.is_local:
            local.warm_up(program, lm)
        found[name] = evaluate(program, examples, agent.metric, lm=lm).summary()
    return found


def _show_scores(console: Console, scores: dict[str, dict[str, float]]) -> None:
    table = Table("program", "score", "95% interval", "LM calls a question", "seconds a question")
    for name, found in scores.items():
        span = f"{found['score_low']:.0%} to {found['score_high']:.0%}"
        calls, seconds = found["lm_calls_per_row"], found["seconds_per_row"]
        table.add_row(name, f"{found['score']:.0%}", span, f"{calls:.1f}", f"{seconds:.1f}")
    console.print(table)
    told = f"  {DEV_ROWS} questions show the direction only; docs/quality.md has the test split."
    console.print(told, style="dim")


def _ask(console: Console, client: OpenAI, question: str) -> None:
    console.print(f"\n  [bold]{question}[/bold]")
    with client.responses.create(model="agent", input=[{"role": "user", "content": question}], stream=True) as events:
        for event in events:
            _show(console, event)


def _show(console: Console, event: ResponseStreamEvent) -> None:
    told: Any = event.model_dump()
    kind = told["type"]
    item = told.get("item") or {}
    if kind == "response.output_item.done" and item.get("type") == "function_call":
        console.print(f"  → {item['name']} {item['arguments']}", style="dim")
    elif kind == "response.output_text.delta":
        console.print(told["delta"], end="", style="green")
    elif kind == "response.output_item.done" and item.get("type") == "message":
        console.print()
        for annotation in item["content"][0]["annotations"]:
            console.print(f"  source: {annotation['title']} ({annotation['url']})", style="dim")
    elif kind == "error":
        console.print(f"  failed: {told['code']}: {told['message']}", style="red")


def _where_next(console: Console, agent: Agent, model_uri: str) -> None:
    console.print("\nWhere to look next:")
    console.print('  oneturn ask "…"              ask it yourself, tool calls and sources shown')
    console.print(f"  oneturn serve --model {model_uri}")
    console.print(f"  mlflow ui --backend-store-uri {agent.config.mlflow.tracking_uri}   its traces, scores and model")
    console.print("  signatures/ modules/ optimizers/ data/   the agent's own declaration: make it yours")


def _stage(console: Console, number: int, title: str) -> None:
    console.print(f"\n[bold]{number}/3 {title}[/bold]")


def _is_logged(model_uri: str | None) -> bool:
    if model_uri is None:
        return False
    try:
        mlflow.models.get_model_info(model_uri)
    except (MlflowException, OSError):
        return False
    return True


def _unchanged(agent: Agent) -> dict[str, Any]:
    """What the last demo found, if nothing it depends on has changed since; otherwise a new beginning."""
    key = _key(agent)
    try:
        state: dict[str, Any] = json.loads(_STATE.read_text(encoding="utf-8"))
    except (FileNotFoundError, json.JSONDecodeError):
        return {"key": key}
    return state if state.get("key") == key else {"key": key}


def _keep(found: dict[str, Any], state: dict[str, Any]) -> None:
    state.update(found)
    _STATE.parent.mkdir(parents=True, exist_ok=True)
    _STATE.write_text(json.dumps(state, indent=2), encoding="utf-8")


def _key(agent: Agent) -> str:
    digest = hashlib.sha256(agent.config.model_dump_json().encode())
    digest.update(dataset_hash(agent.examples("dev")).encode())
    for package in ("dspy", "mlflow", "oneturn"):
        digest.update(version(package).encode())
    folders = [Path(__file__).parents[1], *(agent.root / name for name in agent.code_paths)]
    files = (file for folder in folders for file in folder.rglob("*") if file.suffix in _CODE_AND_DATA)
    for path in sorted(files):
        digest.update(path.read_bytes())
    return digest.hexdigest()
