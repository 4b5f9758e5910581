"""Measure programs uncompiled and compiled with each recipe: ``oneturn.ReAct``, ``dspy.ReAct`` and simpler ones.

    python -m benchmarks.recipes --report docs/recipes.md            # the support desk; many hours on two cores
    python -m benchmarks.recipes --recipes labelled,gepa --rows 30
    python -m benchmarks.recipes --data benchmarks/samples/sums.jsonl --signature "question -> answer" \\
        --tools benchmarks.calculator:calculate --metric number --lm openai/gpt-4o-mini

    python -m benchmarks.recipes --set gsm_symbolic --recipes none            # four programs, uncompiled
    python -m benchmarks.recipes --set gsm_symbolic --split dev --recipes bootstrap,miprov2 --only oneturn.ReAct

``--set`` takes a third-party set of ``benchmarks.question_sets``, on which plain chat and ``dspy.ChainOfThought`` stand
beside the two agents. ``--data`` takes any JSONL of questions and answers: each row has the signature's fields, and
optionally a ``split``. Compiles and rows are written to a journal: an interrupted measurement resumes.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import dspy
import pandas as pd

import oneturn
from benchmarks.journal import evaluate_with_journal
from benchmarks.jsonl_agent import jsonl_agent, rows_agent
from benchmarks.machine import ran_on
from benchmarks.plain_chat import PlainChat
from benchmarks.plain_react import as_plain_react
from benchmarks.question_sets import SETS, SIZES
from benchmarks.report import between_marks
from oneturn import Agent, load_agent
from oneturn.compilation import SpendBar, compile, with_options
from oneturn.compilation.recipes import RECIPES, Work, random_search
from oneturn.compilation.recipes import recipe as declared
from oneturn.datasets import dataset_hash, interleave, spread
from oneturn.evaluation import interval, interval_of_differences
from oneturn.programs.state import Manifest

PEER_TOKENS = 400
"""Maximum tokens of a ``dspy.ReAct`` step, which is longer than a step of ``oneturn.ReAct``."""
SET_TOKENS = 512
"""Maximum tokens of a reply on a third-party set, the same for every program."""
LABELLED_SEARCH = declared(lambda train, dev: Work(runs=(8 * dev, 8 * dev), prompt_growth=(2, 6)))(
    with_options(random_search, draws=8, demos=8)
)
"""For a program without tools: the best of eight random sets of eight labelled examples as demos."""
OURS, PEER, THOUGHT, CHAT = "oneturn.ReAct", "dspy.ReAct", "dspy.ChainOfThought", "plain chat"

_COLUMNS = (
    "program",
    "recipe",
    "rows",
    "score",
    "95% interval",
    "over uncompiled",
    "LM calls a question",
    "tokens a question",
    "s a question",
    "failed",
    "to compile: LM calls (estimated)",
    "tokens (estimated)",
    "minutes (estimated)",
)
_HEAD = f"| {' | '.join(_COLUMNS)} |\n{'| --- ' * len(_COLUMNS)}|"


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
            f"| {self.rows['lm_calls'].mean():.2f} | {tokens:,.0f} | {self.rows['seconds'].mean():.1f} "
            f"| {self.rows['error'].notna().sum()} | {_cost(self.manifest)} |"
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
    examples = interleave(agent.examples(options.split), "category")[: options.rows]
    measure = partial(_evaluate, examples=examples, folder=folder, split=options.split)
    uncompiled: dict[str, pd.DataFrame] = {}
    for name, program in _programs(agent, options).items():
        uncompiled[name] = measure(name, "uncompiled", program, program.build())
        yield Result(name, "uncompiled", uncompiled[name]).line(uncompiled[name])
        for recipe in _recipes(name, program, options.recipes):
            path = folder / f"{name}-{recipe}.json"
            try:
                compilation = compile(program, recipe=recipe, save_to=path, callbacks=[SpendBar()])
                rows = measure(name, recipe, program, compilation.program)
                yield Result(name, recipe, rows, compilation.manifest).line(uncompiled[name])
            except Exception as error:  # a recipe may not support this program; measure the others
                reason = " ".join(f"{type(error).__name__}: {error}".split())[:160]
                yield f"| {name} | {recipe} | – | {reason} |{' – |' * (len(_COLUMNS) - 4)}"
    others = [name for name in uncompiled if name != OURS]
    if OURS in uncompiled and others:
        yield "\nPaired differences, question by question, all uncompiled:\n"
        for name in others:
            yield f"- {OURS} − {name}: {_difference(uncompiled[OURS], uncompiled[name])} points"


def _recipes(name: str, program: Agent, names: str | None) -> list[str]:
    if names == "none" or name == CHAT:  # plain chat has no prompt to compile
        return []
    return names.split(",") if names else list(program.recipes or {})


def _evaluate(
    name: str,
    recipe: str,
    agent: Agent,
    program: dspy.Module,
    *,
    examples: list[dspy.Example],
    folder: Path,
    split: str,
) -> pd.DataFrame:
    data = [dataset_hash([example.toDict() for example in agent.examples(split)])]
    settings = [agent.config.retriever.k, agent.config.max_iters, data]
    lm: Any = agent.lm()
    return evaluate_with_journal(f"{name}-{recipe}-{split}", program, examples, agent.metric, lm, folder, settings)


def _difference(rows: pd.DataFrame, uncompiled: pd.DataFrame) -> str:
    pair = rows.merge(uncompiled, on="id", suffixes=("", "_before"))
    points = pair["score"] - pair["score_before"]
    low, high = interval_of_differences(points)
    return f"{100 * points.mean():+.1f} ({100 * low:+.1f} to {100 * high:+.1f})"


def _programs(agent: Agent, options: argparse.Namespace) -> dict[str, Agent]:
    """Return the agent with each program to measure; on a third-party set, four with the same token limit."""
    peer = replace(agent, build=lambda: as_plain_react(agent.build(), agent.config.max_iters))
    if options.set is None:
        programs = {OURS: agent, PEER: with_lm(peer, max_tokens=max(agent.config.lm.max_tokens or 0, PEER_TOKENS))}
    else:
        task = SETS[options.set].task()
        chat = replace(agent, build=lambda: PlainChat(task))
        programs = {
            CHAT: chat,
            THOUGHT: replace(agent, build=lambda: dspy.ChainOfThought(task)),
            PEER: peer,
            OURS: agent,
        }
    return {name: program for name, program in programs.items() if not options.only or name in options.only}


def set_agent(name: str, config: oneturn.AgentConfig) -> Agent:
    """Build the agent of a third-party set; a compile uses all of its development examples."""
    each = SETS[name]
    compile_config = config.compile.model_copy(update={"dev_examples": SIZES["dev"]})
    config = config.model_copy(update={"compile": compile_config})
    rows = [(row["id"], row) for row in each.rows()]
    agent = rows_agent(name, lambda: rows, each.task(), each.tools, each.metric, config)
    return with_lm(replace(agent, recipes={**RECIPES, "labelled_search": LABELLED_SEARCH}), max_tokens=SET_TOKENS)


def with_lm(agent: Agent, **settings: Any) -> Agent:
    """Return the agent with other settings of its LM."""
    lm = agent.config.lm.model_copy(update=settings)
    return replace(agent, config=agent.config.model_copy(update={"lm": lm}))


def _agent(options: argparse.Namespace) -> Agent:
    if options.set is not None:
        agent = set_agent(options.set, _config(options))
    elif options.data is None:
        agent = load_agent("agent.py", options.config)
    else:
        agent = jsonl_agent(Path(options.data), options.signature, options.tools, options.metric, _config(options))
        agent = replace(agent, recipes=RECIPES)
    if options.lm:
        agent = with_lm(agent, model=options.lm)
    return _with_fewer(agent, {"train": options.train, "dev": options.dev})


def _config(options: argparse.Namespace) -> oneturn.AgentConfig:
    return oneturn.AgentConfig.read(options.config or "configs/dev.yaml")


def _with_fewer(agent: Agent, sizes: Mapping[str, int | None]) -> Agent:
    """Limit the number of examples per split, taking them from each category in turn."""

    def examples(split: str) -> list[dspy.Example]:
        rows, size = agent.examples(split), sizes.get(split)
        return rows if size is None else interleave(rows, "category")[:size]

    return replace(agent, examples=examples)


def _about(agent: Agent) -> str:
    """Describe the measurement: LM, data, number of examples, machine and versions."""
    dev = spread(agent.examples("dev"), agent.config.compile.dev_examples)
    sizes = f"{len(agent.examples('train'))} train, {len(dev)} dev, {len(agent.examples('test'))} test"
    return f"- LM: {agent.config.lm.model}\n- data: {agent.name}, {sizes}\n{ran_on('dspy', 'mlflow')}"


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--set", choices=sorted(SETS), help="third-party question set")
    parser.add_argument("--recipes", help="comma-separated names, or none (default: all)")
    parser.add_argument("--only", action="append", choices=(OURS, PEER, THOUGHT, CHAT), help="program; can be repeated")
    parser.add_argument("--split", default="test", choices=("dev", "test"), help="split to measure (default: test)")
    parser.add_argument(
        "--rows", type=int, default=None, help="number of rows to measure, of each category (default: all)"
    )
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
