"""What each recipe brings: the program uncompiled and compiled, measured on the test split, ours and ``dspy.ReAct``.

    python -m benchmarks.recipes --report docs/recipes.md            # the support desk; many hours on two cores
    python -m benchmarks.recipes --recipes labelled,gepa --rows 30
    python -m benchmarks.recipes --data benchmarks/samples/sums.jsonl --signature "question -> answer" \\
        --tools modules.tools:calculate --metric number --lm openai/gpt-4o-mini

``--data`` takes any JSONL of questions and answers: each row has the signature's fields, and may say its ``split``.
``benchmarks.outside_sets`` writes such files of questions that nobody here wrote.
Compiles and rows are journalled: a measurement that was stopped goes on where it was.
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
from benchmarks.journalled import measured
from benchmarks.machine import ran_on
from benchmarks.outside import outside_agent
from benchmarks.plain_react import as_plain_react
from benchmarks.report import between_marks
from oneturn import Agent, load_agent
from oneturn.compilation import SpendBar, compile
from oneturn.datasets import dataset_hash, spread
from oneturn.evaluation import interval
from oneturn.programs.state import Manifest
from optimizers.recipes import RECIPES

PEER_TOKENS = 400
"""Tokens that a step of ``dspy.ReAct`` may have: it writes more than ours."""

_HEAD = (
    "| program | recipe | rows | score | 95% interval | over uncompiled | LM calls a question | tokens a question "
    "| to compile: LM calls (estimated) | tokens (estimated) | minutes (estimated) |\n"
    "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |"
)


@dataclass(frozen=True)
class Result:
    """One line: a program as one recipe has left it."""

    program: str
    recipe: str
    rows: pd.DataFrame
    manifest: Manifest | None = None

    def line(self, uncompiled: pd.DataFrame) -> str:
        """The line of the table."""
        low, high = interval(self.rows["score"])
        tokens = (self.rows["prompt_tokens"] + self.rows["completion_tokens"]).mean()
        compiled = self.manifest is not None
        return (
            f"| {self.program} | {self.recipe} | {len(self.rows)} | {self.rows['score'].mean():.1%} "
            f"| {low:.1%} to {high:.1%} | {_difference(self.rows, uncompiled) if compiled else '–'} "
            f"| {self.rows['lm_calls'].mean():.2f} | {tokens:,.0f} | {_cost(self.manifest)} |"
        )


def _cost(manifest: Manifest | None) -> str:
    """LM calls, tokens and minutes of a compile, each with what had been estimated before."""
    if manifest is None:
        return "– | – | –"
    expected = manifest.estimate or {}
    spend = manifest.spend
    cells = [
        ("lm_calls", spend["lm_calls"], 1.0, ""),
        ("tokens", (spend["prompt_tokens"] + spend["completion_tokens"]), 1000.0, "k"),
        ("minutes", spend["seconds"] / 60, 1.0, ""),
    ]
    return " | ".join(_beside(value / unit, expected.get(name), unit, mark) for name, value, unit, mark in cells)


def _beside(value: float, expected: list[float] | None, unit: float, mark: str) -> str:
    told = f"{value:,.0f}{mark}"
    return f"{told} ({expected[0] / unit:,.0f} to {expected[1] / unit:,.0f})" if expected else told


def main() -> None:
    """Measure, print each line as it is known, and write the report if asked to."""
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
    examples = spread(agent.examples("test"), "category")[: options.rows]
    for name, program in _programs(agent, options.only).items():
        uncompiled = _measured(name, "uncompiled", program, program.build(), examples, folder)
        yield Result(name, "uncompiled", uncompiled).line(uncompiled)
        for recipe in options.recipes.split(",") if options.recipes else program.recipes:
            try:
                yield _compiled(name, recipe, program, examples, folder).line(uncompiled)
            except Exception as error:  # a recipe that doesn't fit this program: the others are measured all the same
                reason = " ".join(f"{type(error).__name__}: {error}".split())[:160]
                yield f"| {name} | {recipe} | – | {reason} | – | – | – | – | – | – | – |"


def _compiled(name: str, recipe: str, agent: Agent, examples: list[dspy.Example], folder: Path) -> Result:
    path = folder / f"{name}-{recipe}.json"
    done = compile(agent, recipe=recipe, save_to=path, listeners=[SpendBar()])
    return Result(name, recipe, _measured(name, recipe, agent, done.program, examples, folder), done.manifest)


def _measured(
    name: str, recipe: str, agent: Agent, program: dspy.Module, examples: list[dspy.Example], folder: Path
) -> pd.DataFrame:
    data = [dataset_hash([example.toDict() for example in agent.examples("test")])]
    settings = [agent.config.retriever.k, agent.config.max_iters, data]
    lm: Any = agent.lm()
    return measured(f"{name}-{recipe}-test", program, examples, agent.metric, lm, folder, settings)


def _difference(rows: pd.DataFrame, uncompiled: pd.DataFrame) -> str:
    pair = rows.merge(uncompiled, on="id", suffixes=("", "_before"))
    points = pair["score"] - pair["score_before"]
    low, high = interval(points)
    return f"{100 * points.mean():+.1f} ({100 * low:+.1f} to {100 * high:+.1f})"


def _programs(agent: Agent, only: str | None) -> dict[str, Agent]:
    """The agent on ``oneturn.ReAct``, and the same on ``dspy.ReAct``."""
    lm = agent.config.lm.model_copy(update={"max_tokens": max(agent.config.lm.max_tokens or 0, PEER_TOKENS)})
    peer = replace(agent, build=_peer(agent), config=agent.config.model_copy(update={"lm": lm}))
    programs = {"oneturn.ReAct": agent, "dspy.ReAct": peer}
    return {name: program for name, program in programs.items() if only in (None, name)}


def _peer(agent: Agent) -> Callable[[], dspy.Module]:
    return lambda: as_plain_react(agent.build(), agent.config.max_iters)


def _agent(options: argparse.Namespace) -> Agent:
    if options.data is None:
        agent = load_agent("agent.py", options.config)
    else:
        config = oneturn.AgentConfig.read(options.config or "configs/dev.yaml")
        agent = outside_agent(Path(options.data), options.signature, options.tools, options.metric, config)
        agent = replace(agent, recipes=RECIPES)
    if options.lm:
        lm = agent.config.lm.model_copy(update={"model": options.lm})
        agent = replace(agent, config=agent.config.model_copy(update={"lm": lm}))
    return _with_fewer(agent, {"train": options.train, "dev": options.dev})


def _with_fewer(agent: Agent, sizes: Mapping[str, int | None]) -> Agent:
    """The agent with so many examples of a split, of every category in turn."""

    def examples(split: str) -> list[dspy.Example]:
        found, size = agent.examples(split), sizes.get(split)
        return found if size is None else spread(found, "category")[:size]

    return replace(agent, examples=examples)


def _about(agent: Agent) -> str:
    """What was measured, with how many examples a compile has, and on what."""
    dev = agent.examples("dev")[: agent.config.compile.dev_examples]
    sizes = f"{len(agent.examples('train'))} train, {len(dev)} dev, {len(agent.examples('test'))} test"
    return f"- LM: {agent.config.lm.model}\n- data: {agent.name}, {sizes}\n{ran_on('dspy', 'mlflow')}"


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipes", help="their names, with commas between (default: all)")
    parser.add_argument("--only", choices=("oneturn.ReAct", "dspy.ReAct"), help="one of the two programs")
    parser.add_argument("--rows", type=int, default=None, help="test rows, of every category (default: all)")
    parser.add_argument("--train", type=int, default=None, help="training examples, of every category (default: all)")
    parser.add_argument("--dev", type=int, default=None, help="development examples, likewise (default: as configured)")
    parser.add_argument("--data", help="a JSONL file of your own")
    parser.add_argument("--signature", default="question -> answer", help="of the program over --data")
    parser.add_argument("--tools", nargs="*", default=[], metavar="MODULE:NAME", help="its tools")
    parser.add_argument("--metric", default="exact", help="exact, contains, number, or MODULE:NAME")
    parser.add_argument("--lm", help="another LM, such as local/0.5B")
    parser.add_argument("--config", help="another configuration")
    parser.add_argument("--journal", default=".oneturn/recipes", help="where rows and programs are kept")
    parser.add_argument("--report", help="a Markdown file to write")
    parser.add_argument("--section", default="measured", help="the marks in it between which the table stands")
    return parser.parse_args()


if __name__ == "__main__":
    main()
