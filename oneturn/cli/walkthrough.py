"""The complete workflow in a few minutes: evaluate, log, serve, query. Results of unchanged inputs are reused."""

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
    """Evaluate, log, serve and query ``agent`` on this machine. Leaves a logged model and its traces.

    Args:
        agent: the agent; its compiled program must exist.
    """
    console = Console()
    state = _load_state(agent)
    _show_stage(console, 1, "Evaluate the uncompiled and the compiled program on a slice of dev")
    if "scores" not in state:
        _save({"scores": _evaluate_programs(agent)}, state)
    _show_scores(console, state["scores"])
    _show_stage(console, 2, "Log the compiled agent as an MLflow model")
    use_tracking(agent.config.mlflow)
    if not _is_logged(state.get("model_uri")):
        _save({"model_uri": log_model(agent, register=True).model_uri}, state)
    console.print(f"  {state['model_uri']} in {agent.config.mlflow.tracking_uri}")
    _show_stage(console, 3, "Serve the logged model, and query it with the official openai client")
    served = load_logged(state["model_uri"])
    warm_up(served)
    with running_server(served) as url:
        console.print(f"  {url}/responses")
        client = OpenAI(base_url=url, api_key="none-needed", timeout=300, max_retries=0)
        for question in agent.example_questions:
            _ask(console, client, question)
    _show_next_steps(console, agent, state["model_uri"])


def _evaluate_programs(agent: Agent) -> dict[str, dict[str, float]]:
    examples = spread(agent.examples("dev"), "category")[:DEV_ROWS]
    lm = agent.lm()
    programs = {"uncompiled": agent.program(compiled=False), "compiled": agent.program()}
    summaries = {}
    for name, program in programs.items():
        if agent.config.lm.is_local:
            local.warm_up(program, lm)
        summaries[name] = evaluate(program, examples, agent.metric, lm=lm).summary()
    return summaries


def _show_scores(console: Console, scores: dict[str, dict[str, float]]) -> None:
    table = Table("program", "score", "95% interval", "LM calls per question", "seconds per question")
    for name, summary in scores.items():
        interval = f"{summary['score_low']:.0%} to {summary['score_high']:.0%}"
        calls, seconds = summary["lm_calls_per_row"], summary["seconds_per_row"]
        table.add_row(name, f"{summary['score']:.0%}", interval, f"{calls:.1f}", f"{seconds:.1f}")
    console.print(table)
    note = f"  {DEV_ROWS} questions show the direction only; docs/quality.md has the test split."
    console.print(note, style="dim")


def _ask(console: Console, client: OpenAI, question: str) -> None:
    console.print(f"\n  [bold]{question}[/bold]")
    with client.responses.create(model="agent", input=[{"role": "user", "content": question}], stream=True) as events:
        for event in events:
            _show(console, event)


def _show(console: Console, event: ResponseStreamEvent) -> None:
    fields: Any = event.model_dump()
    kind = fields["type"]
    item = fields.get("item") or {}
    if kind == "response.output_item.done" and item.get("type") == "function_call":
        console.print(f"  → {item['name']} {item['arguments']}", style="dim")
    elif kind == "response.output_text.delta":
        console.print(fields["delta"], end="", style="green")
    elif kind == "response.output_item.done" and item.get("type") == "message":
        console.print()
        for annotation in item["content"][0]["annotations"]:
            console.print(f"  source: {annotation['title']} ({annotation['url']})", style="dim")
    elif kind == "error":
        console.print(f"  failed: {fields['code']}: {fields['message']}", style="red")


def _show_next_steps(console: Console, agent: Agent, model_uri: str) -> None:
    console.print("\nNext steps:")
    console.print('  oneturn ask "…"              ask a question; prints tool calls and sources')
    console.print(f"  oneturn serve --model {model_uri}")
    console.print(f"  mlflow ui --backend-store-uri {agent.config.mlflow.tracking_uri}   its traces, scores and model")
    console.print("  signatures/ modules/ optimizers/ data/   the agent's declaration; edit it for your agent")


def _show_stage(console: Console, number: int, title: str) -> None:
    console.print(f"\n[bold]{number}/3 {title}[/bold]")


def _is_logged(model_uri: str | None) -> bool:
    if model_uri is None:
        return False
    try:
        mlflow.models.get_model_info(model_uri)
    except (MlflowException, OSError):
        return False
    return True


def _load_state(agent: Agent) -> dict[str, Any]:
    """Return the state of the last demo if its inputs are unchanged; else an empty state."""
    key = _key(agent)
    try:
        state: dict[str, Any] = json.loads(_STATE.read_text(encoding="utf-8"))
    except (FileNotFoundError, json.JSONDecodeError):
        return {"key": key}
    return state if state.get("key") == key else {"key": key}


def _save(results: dict[str, Any], state: dict[str, Any]) -> None:
    state.update(results)
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
