"""How good the support desk is on the test split, compiled and not, beside ``dspy.ReAct``.

    python -m benchmarks.quality                    # everything; many hours on two cores
    python -m benchmarks.quality --rows 20 --peer-rows 10
    python -m benchmarks.quality --only "oneturn.ReAct, compiled"

Rows are journalled as they come, in a file for each program, LM and data: a run that was stopped goes on where it was.
Fewer rows than all are taken from every category in turn. ``--report docs/quality.md`` writes the table. Nothing is
tuned on this split.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import dspy
import pandas as pd

from benchmarks.journalled import measured
from benchmarks.machine import machine, versions
from benchmarks.plain_react import compiled_plain_react, plain_react, shown
from benchmarks.report import write_report
from oneturn import Agent, load_agent
from oneturn.config import AgentConfig
from oneturn.datasets import dataset_hash, spread
from optimizers.scripted import solve

Build = Callable[[], dspy.Module]


def main() -> None:
    """Measure, print the table and, if asked to, write it."""
    options = _options()
    agent = load_agent("agent.py", options.config)
    if options.lm:
        config = agent.config.model_copy(update={"lm": agent.config.lm.model_copy(update={"model": options.lm})})
        agent = _with(agent, config)
    examples = spread(agent.examples(options.split), "category")
    journal = Path(options.journal)
    wanted = {name: build for name, build in _programs(agent).items() if not options.only or name in options.only}
    results = {}
    for name, build in wanted.items():
        rows = options.peer_rows if "dspy.ReAct" in name else options.rows
        wanted_rows = [] if options.journalled else examples[:rows]
        results[name] = _measured(agent, Program(name, build()), wanted_rows, journal, options.split)
    write_report(results, _about(agent, options.split), Path(options.report) if options.report else None)


@dataclass(frozen=True)
class Program:
    """A program to measure, by the name that the report gives it."""

    name: str
    module: dspy.Module

    @property
    def is_peer(self) -> bool:
        """Whether it is ``dspy.ReAct`` rather than ours."""
        return "dspy.ReAct" in self.name


def _programs(agent: Agent) -> dict[str, Build]:
    def peer() -> dspy.ReAct:
        return plain_react(agent.config.retriever.k, agent.config.max_iters)

    def compiled_peer() -> dspy.Module:
        return compiled_plain_react(peer(), shown(agent.program(), agent.examples("train")), agent.metric, solve)

    return {
        "oneturn.ReAct, uncompiled": lambda: agent.program(compiled=False),
        "oneturn.ReAct, compiled": agent.program,
        "dspy.ReAct, uncompiled": peer,
        "dspy.ReAct, compiled": compiled_peer,
    }


def _measured(agent: Agent, program: Program, examples: list[dspy.Example], journal: Path, split: str) -> pd.DataFrame:
    # dspy.ReAct's steps are longer: the limit that fits ours would cut them off.
    lm = agent.lm().copy(max_tokens=400) if program.is_peer else agent.lm()
    data = [dataset_hash(agent.examples(name)) for name in ("train", "dev", "test")]
    settings = [agent.config.retriever.k, agent.config.max_iters, data]
    return measured(f"{program.name}-{split}", program.module, examples, agent.metric, lm, journal, settings)


def _about(agent: Agent, split: str) -> dict[str, str]:
    return {
        "LM": agent.lm().model,
        "split": split,
        "machine": machine(),
        "versions": versions("dspy", "mlflow", "xllamacpp"),
        "program": f"k={agent.config.retriever.k}, max_iters={agent.config.max_iters}",
    }


def _with(agent: Agent, config: AgentConfig) -> Agent:
    return replace(agent, config=config)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=None, help="rows for oneturn's programs (default: all)")
    parser.add_argument("--peer-rows", type=int, default=None, help="rows for dspy.ReAct, which is slower")
    parser.add_argument("--only", action="append", help="a program's name; may be given again")
    parser.add_argument("--split", default="test", choices=("dev", "test"))
    parser.add_argument("--lm", help="another LM, such as local/1.5B")
    parser.add_argument("--config", help="another configuration")
    parser.add_argument("--journalled", action="store_true", help="measure nothing: report what is there")
    parser.add_argument("--journal", default=".oneturn/benchmarks", help="where rows are kept")
    parser.add_argument("--report", help="a Markdown file to write")
    return parser.parse_args()


if __name__ == "__main__":
    main()
