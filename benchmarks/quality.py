"""Measure the support desk on the test split, uncompiled and compiled, compared with ``dspy.ReAct``.

    python -m benchmarks.quality                    # everything; many hours on two cores
    python -m benchmarks.quality --rows 20 --peer-rows 10
    python -m benchmarks.quality --only "oneturn.ReAct, compiled"

Each row is written to a journal when it is finished, in one file per program, LM and data: an interrupted run resumes.
``--rows`` takes rows from each style and category in turn. Plain and natural examples are reported apart;
``--style natural`` measures these alone. ``--report docs/quality.md`` writes the tables. Nothing is tuned on this
split.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import dspy
import pandas as pd

from benchmarks.journal import evaluate_with_journal
from benchmarks.machine import machine, versions
from benchmarks.plain_react import compiled_plain_react, demo_examples, plain_react
from benchmarks.report import write_report
from data.support import style_of
from oneturn import Agent, load_agent
from oneturn.config import AgentConfig, RetrieverConfig
from oneturn.datasets import dataset_hash, interleave
from optimizers.scripted import solve

Build = Callable[[], dspy.Module]


def main() -> None:
    """Measure, print the table and, with ``--report``, write it."""
    options = _options()
    agent = load_agent("agent.py", options.config)
    if options.lm:
        config = agent.config.model_copy(update={"lm": agent.config.lm.model_copy(update={"model": options.lm})})
        agent = _with(agent, config)
    examples = ordered_examples(agent, options.split, options.style)
    styles = {example.id: style_of(example) for example in examples}
    journal = Path(options.journal)
    programs = {name: build for name, build in _programs(agent).items() if not options.only or name in options.only}
    results = {}
    for name, build in programs.items():
        number = options.peer_rows if "dspy.ReAct" in name else options.rows
        selected = [] if options.journalled else examples[:number]
        rows = _evaluate(agent, Program(name, build()), selected, journal, options.split)
        results[name] = rows.assign(style=rows["id"].map(styles)).dropna(subset="style")
    write_report(results, _about(agent, options.split), Path(options.report) if options.report else None, by="style")


def ordered_examples(agent: Agent, split: str, style: str | None = None) -> list[dspy.Example]:
    """Return the examples of a split, of one style or of both, ordered so that any prefix is representative."""
    examples = agent.examples(split)
    by_style = [
        interleave([example for example in examples if style_of(example) == each], "category")
        for each in ("plain", "natural")
        if style in (None, each)
    ]
    return interleave([example for group in by_style for example in group], "style")


@dataclass(frozen=True)
class Program:
    """A program to measure, with its name in the report."""

    name: str
    module: dspy.Module

    @property
    def is_peer(self) -> bool:
        """Whether it is a ``dspy.ReAct`` rather than a ``oneturn.ReAct``."""
        return "dspy.ReAct" in self.name


def _programs(agent: Agent) -> dict[str, Build]:
    def peer() -> dspy.ReAct:
        return plain_react(agent.config)

    def compiled_peer() -> dspy.Module:
        return compiled_plain_react(
            peer(), demo_examples(agent.program(), agent.examples("train")), agent.metric, solve
        )

    return {
        "oneturn.ReAct, uncompiled": lambda: agent.program(compiled=False),
        "oneturn.ReAct, compiled": agent.program,
        "dspy.ReAct, uncompiled": peer,
        "dspy.ReAct, compiled": compiled_peer,
    }


def _evaluate(agent: Agent, program: Program, examples: list[dspy.Example], journal: Path, split: str) -> pd.DataFrame:
    # dspy.ReAct's steps are longer: oneturn's token limit would truncate them.
    lm = agent.lm().copy(max_tokens=400) if program.is_peer else agent.lm()
    data = [dataset_hash(agent.examples(name)) for name in ("train", "dev", "test")]
    settings = [agent.config.retriever.model_dump(exclude_none=True), agent.config.max_iters, data]
    name = f"{program.name}-{split}"
    return evaluate_with_journal(name, program.module, examples, agent.metric, lm, journal, settings)


def _about(agent: Agent, split: str) -> dict[str, str]:
    return {
        "LM": agent.lm().model,
        "split": split,
        "machine": machine(),
        "versions": versions("dspy", "mlflow", "xllamacpp"),
        "program": f"{_settings(agent.config.retriever)}, max_iters={agent.config.max_iters}",
    }


def _settings(retriever: RetrieverConfig) -> str:
    set_keys = retriever.model_dump(include={"k", "stemmer", "min_score"}, exclude_none=True)
    return ", ".join(f"{name}={value}" for name, value in set_keys.items())


def _with(agent: Agent, config: AgentConfig) -> Agent:
    return replace(agent, config=config)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=None, help="number of rows for oneturn.ReAct (default: all)")
    parser.add_argument("--peer-rows", type=int, default=None, help="number of rows for dspy.ReAct, which is slower")
    parser.add_argument("--only", action="append", help="name of a program; can be repeated")
    parser.add_argument("--split", default="test", choices=("dev", "test"))
    parser.add_argument("--style", choices=("plain", "natural"), help="only examples of this style (default: both)")
    parser.add_argument("--lm", help="LM instead of the configured one, such as local/1.5B")
    parser.add_argument("--config", help="configuration file")
    parser.add_argument("--journalled", action="store_true", help="report the rows in the journal; evaluate none")
    parser.add_argument("--journal", default=".oneturn/benchmarks", help="folder of the journal")
    parser.add_argument("--report", help="Markdown file to write")
    return parser.parse_args()


if __name__ == "__main__":
    main()
