"""Measure each recipe on the test split: ``oneturn.ReAct`` and ``dspy.ReAct``, uncompiled and compiled.

    python -m benchmarks.recipes --report docs/recipes.md            # the support desk; many hours on two cores
    python -m benchmarks.recipes --recipes labelled,gepa --rows 30
    python -m benchmarks.recipes --data benchmarks/samples/sums.jsonl --signature "question -> answer" \\
        --tools modules.tools:calculate --metric number --lm openai/gpt-4o-mini

``--data`` takes any JSONL of questions and answers: each row has the signature's fields, and optionally a ``split``.
``benchmarks.question_sets`` writes such files from third-party question sets.
Compiles and rows are written to a journal: an interrupted measurement resumes.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import dspy
import pandas as pd

import oneturn
from benchmarks.journal import evaluate_with_journal
from benchmarks.jsonl_agent import jsonl_agent
from benchmarks.machine import ran_on
from benchmarks.plain_react import as_plain_react
from benchmarks.report import between_marks
from oneturn import Agent, load_agent
from oneturn.compilation import SpendBar, compile
from oneturn.compilation.recipes import RECIPES
from oneturn.datasets import dataset_hash, interleave
from oneturn.evaluation import interval
from oneturn.programs.state import Manifest

PEER_TOKENS = 400
"""Maximum tokens of a ``dspy.ReAct`` step, which is longer than a step of ``oneturn.ReAct``."""

_HEAD = (
    "| program | recipe | rows | score | 95% interval | over uncompiled | LM calls a question | tokens a question "
    "| to compile: LM calls (estimated) | tokens (estimated) | minutes (estimated) |\n"
    "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |"
)


@dataclass(frozen=True)
class Result:
    """One line of the table: a program compiled with one recipe."""

    program: str
    recipe: str
    rows: pd.DataFrame
    manifest: Manifest | None = None

    def line(self, uncompiled: pd.DataFrame) -> str:
        """Format the line of the table."""
        low, high = interval(self.rows["score"])
        tokens = (self.rows["prompt_tokens"] + self.rows["completion_tokens"]).mean()
        compiled = self.manifest is not None
        return (
            f"| {self.program} | {self.recipe} | {len(self.rows)} | {self.rows['score'].mean():.1%} "
            f"| {low:.1%} to {high:.1%} | {_difference(self.rows, uncompiled) if compiled else '–'} "
            f"| {self.rows['lm_calls'].mean():.2f} | {tokens:,.0f} | {_cost(self.manifest)} |"
        )


def _cost(manifest: Manifest | None) -> str:
    """Format the LM calls, tokens and minutes of a compile, each with its estimate."""
    if manifest is None:
        return "– | – | –"
    estimate = manifest.estimate or {}
    spend = manifest.spend
    cells = [
        ("lm_calls", spend["lm_calls"], 1.0, ""),
        ("tokens", (spend["prompt_tokens"] + spend["completion_tokens"]), 1000.0, "k"),
        ("minutes", spend["seconds"] / 60, 1.0, ""),
    ]
    return " | ".join(_with_estimate(value / unit, estimate.get(name), unit, mark) for name, value, unit, mark in cells)


def _with_estimate(value: float, estimate: list[float] | None, unit: float, mark: str) -> str:
    text = f"{value:,.0f}{mark}"
    return f"{text} ({estimate[0] / unit:,.0f} to {estimate[1] / unit:,.0f})" if estimate else text


def main() -> None:
    """Measure, print each line when it is finished and, with ``--report``, write the table."""
    options = _options()
    agent = _agent(options)
    folder = Path(options.journal)
    lines = [_about(agent), "", _HEAD]
    print("\n".join(lines))
    for line in _lines(agent, options, folder):
        lines.append(line)
        print(line, flush=True)
    if options.report:
        path = Path(options.report)
        path.write_text(between_marks(path, "\n".join(lines) + "\n", options.section), encoding="utf-8")


def _lines(agent: Agent, options: argparse.Namespace, folder: Path) -> Iterator[str]:
    examples = interleave(agent.examples("test"), "category")[: options.rows]
    for name, program in _programs(agent, options.only).items():
        uncompiled = _evaluate(name, "uncompiled", program, program.build(), examples, folder)
        yield Result(name, "uncompiled", uncompiled).line(uncompiled)
        for recipe in options.recipes.split(",") if options.recipes else program.recipes or {}:
            try:
                yield _compile(name, recipe, program, examples, folder).line(uncompiled)
            except Exception as error:  # a recipe may not support this program; measure the others
                reason = " ".join(f"{type(error).__name__}: {error}".split())[:160]
                yield f"| {name} | {recipe} | – | {reason} | – | – | – | – | – | – | – |"


def _compile(name: str, recipe: str, agent: Agent, examples: list[dspy.Example], folder: Path) -> Result:
    path = folder / f"{name}-{recipe}.json"
    compilation = compile(agent, recipe=recipe, save_to=path, callbacks=[SpendBar()])
    rows = _evaluate(name, recipe, agent, compilation.program, examples, folder)
    return Result(name, recipe, rows, compilation.manifest)


def _evaluate(
    name: str, recipe: str, agent: Agent, program: dspy.Module, examples: list[dspy.Example], folder: Path
) -> pd.DataFrame:
    data = [dataset_hash([example.toDict() for example in agent.examples("test")])]
    settings = [agent.config.retriever.k, agent.config.max_iters, data]
    lm: Any = agent.lm()
    return evaluate_with_journal(f"{name}-{recipe}-test", program, examples, agent.metric, lm, folder, settings)


def _difference(rows: pd.DataFrame, uncompiled: pd.DataFrame) -> str:
    pair = rows.merge(uncompiled, on="id", suffixes=("", "_before"))
    points = pair["score"] - pair["score_before"]
    low, high = interval(points)
    return f"{100 * points.mean():+.1f} ({100 * low:+.1f} to {100 * high:+.1f})"


def _programs(agent: Agent, only: str | None) -> dict[str, Agent]:
    """Return the agent with ``oneturn.ReAct``, and the same agent with ``dspy.ReAct``."""
    lm = agent.config.lm.model_copy(update={"max_tokens": max(agent.config.lm.max_tokens or 0, PEER_TOKENS)})
    peer = replace(agent, build=_build_peer(agent), config=agent.config.model_copy(update={"lm": lm}))
    programs = {"oneturn.ReAct": agent, "dspy.ReAct": peer}
    return {name: program for name, program in programs.items() if only in (None, name)}


def _build_peer(agent: Agent) -> Callable[[], dspy.Module]:
    return lambda: as_plain_react(agent.build(), agent.config.max_iters)


def _agent(options: argparse.Namespace) -> Agent:
    if options.data is None:
        agent = load_agent("agent.py", options.config)
    else:
        config = oneturn.AgentConfig.read(options.config or "configs/dev.yaml")
        agent = jsonl_agent(Path(options.data), options.signature, options.tools, options.metric, config)
        agent = replace(agent, recipes=RECIPES)
    if options.lm:
        lm = agent.config.lm.model_copy(update={"model": options.lm})
        agent = replace(agent, config=agent.config.model_copy(update={"lm": lm}))
    return _with_fewer(agent, {"train": options.train, "dev": options.dev})


def _with_fewer(agent: Agent, sizes: Mapping[str, int | None]) -> Agent:
    """Limit the number of examples per split, taking them from each category in turn."""

    def examples(split: str) -> list[dspy.Example]:
        rows, size = agent.examples(split), sizes.get(split)
        return rows if size is None else interleave(rows, "category")[:size]

    return replace(agent, examples=examples)


def _about(agent: Agent) -> str:
    """Describe the measurement: LM, data, number of examples, machine and versions."""
    dev = agent.examples("dev")[: agent.config.compile.dev_examples]
    sizes = f"{len(agent.examples('train'))} train, {len(dev)} dev, {len(agent.examples('test'))} test"
    return f"- LM: {agent.config.lm.model}\n- data: {agent.name}, {sizes}\n{ran_on('dspy', 'mlflow')}"


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipes", help="comma-separated names (default: all)")
    parser.add_argument("--only", choices=("oneturn.ReAct", "dspy.ReAct"), help="measure one of the two programs")
    parser.add_argument("--rows", type=int, default=None, help="number of test rows, from each category (default: all)")
    parser.add_argument("--train", type=int, default=None, help="number of training examples, likewise (default: all)")
    parser.add_argument(
        "--dev", type=int, default=None, help="number of development examples, likewise (default: configured)"
    )
    parser.add_argument("--data", help="JSONL file of questions and answers")
    parser.add_argument("--signature", default="question -> answer", help="signature of the program for --data")
    parser.add_argument("--tools", nargs="*", default=[], metavar="MODULE:NAME", help="tools of the program for --data")
    parser.add_argument("--metric", default="exact", help="metric for --data: exact, contains, number, or MODULE:NAME")
    parser.add_argument("--lm", help="LM instead of the configured one, such as local/0.5B")
    parser.add_argument("--config", help="configuration file")
    parser.add_argument("--journal", default=".oneturn/recipes", help="folder of the journal and the compiled programs")
    parser.add_argument("--report", help="Markdown file to write")
    parser.add_argument("--section", default="measured", help="name of the markers in the file around the table")
    return parser.parse_args()


if __name__ == "__main__":
    main()
