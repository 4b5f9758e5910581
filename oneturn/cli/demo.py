"""``oneturn demo``: evaluate, log, serve and query the agent on this machine."""

from __future__ import annotations

from itertools import chain
from typing import TYPE_CHECKING, Any

from oneturn.cli.options import AGENT_FILE, AgentFile, ConfigFile, build_console, load

if TYPE_CHECKING:
    from openai import OpenAI
    from rich.console import Console

    from oneturn.agent import Agent
    from oneturn.evaluation import Evaluation

DEV_ROWS = 4


def demo(agent: AgentFile = AGENT_FILE, config: ConfigFile = None) -> None:
    """Run the complete workflow on this machine: evaluate, log, serve, query. Leaves a logged model and its traces.

    Examples:

        oneturn demo
    """
    loaded = load(agent, config)

    import mlflow
    from openai import OpenAI

    from oneturn.cli.tables import score_table
    from oneturn.deployment.model_logging import log_model
    from oneturn.serving.server import load_logged, running_server, warm_up

    console = build_console()
    _show_stage(console, 1, "Evaluate the uncompiled and the compiled program on a slice of dev")
    console.print(score_table(_evaluate_programs(loaded), console.width))
    note = f"  {DEV_ROWS} questions show the direction only; docs/quality.md has the test split."
    console.print(note, style="dim")
    _show_stage(console, 2, "Log the compiled agent as an MLflow model")
    model_uri = log_model(loaded, register=True).model_uri
    console.print(f"  {model_uri} in {mlflow.get_tracking_uri()}")
    _show_stage(console, 3, "Serve the logged model, and query it with the official openai client")
    served = load_logged(model_uri)
    warm_up(served)
    with running_server(served) as url:
        console.print(f"  {url}/responses")
        client = OpenAI(base_url=url, api_key="none-needed", timeout=300, max_retries=0)
        for question in loaded.example_questions:
            _ask(console, client, {"input": [{"role": "user", "content": question}]})
        if not loaded.example_questions:
            _ask(console, client, loaded.example_request())
    _show_next_steps(console, loaded, model_uri)


def _evaluate_programs(agent: Agent) -> dict[str, Evaluation]:
    from oneturn.datasets import interleave
    from oneturn.evaluation import evaluate
    from oneturn.lm import local

    examples = interleave(agent.examples("dev"), "category")[:DEV_ROWS]
    lm = agent.lm()
    programs = {"uncompiled": agent.program(compiled=False), "compiled": agent.program()}
    evaluations = {}
    for name, program in programs.items():
        if agent.config.lm.is_local:
            local.warm_up(program, lm)
        evaluations[name] = evaluate(program, examples, agent.metric, lm=lm)
    return evaluations


def _ask(console: Console, client: OpenAI, request: dict[str, Any]) -> None:
    from rich.markup import escape

    from oneturn.responses.event_stream import DONE
    from oneturn.responses.reply import read_reply
    from oneturn.serving.terminal import Renderer

    custom_inputs = request.get("custom_inputs")
    shown = [item["content"] for item in request["input"]] or [str(custom_inputs)]
    console.print(f"\n[bold]{escape(shown[0])}[/bold]")
    renderer = Renderer(console)
    extra = {"custom_inputs": custom_inputs} if custom_inputs else None
    with client.responses.create(model="agent", input=request["input"], extra_body=extra, stream=True) as events:
        renderer.finish(read_reply(chain((event.to_dict() for event in events), [DONE]), renderer))


def _show_next_steps(console: Console, agent: Agent, model_uri: str) -> None:
    import mlflow

    console.print("\nNext steps:")
    console.print('  oneturn ask "…"              ask a question; prints tool calls and sources')
    console.print(f"  oneturn serve --model {model_uri}")
    console.print(f"  mlflow ui --backend-store-uri {mlflow.get_tracking_uri()}   its traces, scores and model")
    console.print("  signatures/ modules/ optimizers/ data/   the agent's declaration; edit it for your agent")


def _show_stage(console: Console, number: int, title: str) -> None:
    console.print(f"\n[bold]{number}/3 {title}[/bold]")
