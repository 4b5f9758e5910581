"""How good the support desk is on the test split, compiled and not, beside ``dspy.ReAct``.

    python -m benchmarks.quality                    # everything; about an hour on two cores
    python -m benchmarks.quality --rows 20 --peer-rows 10
    python -m benchmarks.quality --only compiled    # one program

Rows are journalled as they come, in a folder that names LM, data and compiled program: a run that was stopped goes on
where it was. ``--report docs/quality.md`` writes the table. Nothing is tuned on this split.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import platform
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import dspy
import pandas as pd

from benchmarks.plain_react import compiled_plain_react, plain_react
from benchmarks.report import write_report
from oneturn.agent import Agent, load_agent
from oneturn.datasets import dataset_hash
from oneturn.evaluation import evaluate
from optimizers.worked import solve

Build = Callable[[], dspy.Module]


def main() -> None:
    """Measure, print the table and, if asked to, write it."""
    options = _options()
    agent = load_agent("agent.py", options.config)
    if options.lm:
        config = agent.config.model_copy(update={"lm": agent.config.lm.model_copy(update={"model": options.lm})})
        agent = _with(agent, config)
    examples = agent.examples(options.split)
    folder = Path(options.journal) / _key(agent, examples)
    for name, build in _programs(agent).items():
        if not options.only or name in options.only:
            wanted = examples[: options.peer_rows if "dspy.ReAct" in name else options.rows]
            _measure(agent, name, build, wanted, folder)
    results = {name: _read(folder, name) for name in _programs(agent)}
    measured = {name: rows for name, rows in results.items() if not rows.empty}
    write_report(measured, _about(agent, options.split), Path(options.report) if options.report else None)


def _programs(agent: Agent) -> dict[str, Build]:
    k, max_iters = agent.config.retriever.k, agent.config.max_iters
    trainset = agent.examples("train")

    def worked() -> dspy.Module:
        student = agent.program(compiled=False)
        recipe = agent.recipes["worked"]
        return recipe(student, trainset=trainset, valset=[], metric=agent.metric, seed=0, threads=1)

    return {
        "oneturn.ReAct, uncompiled": lambda: agent.program(compiled=False),
        "oneturn.ReAct, compiled (worked)": worked,
        "oneturn.ReAct, compiled (shipped)": agent.program,
        "dspy.ReAct, uncompiled": lambda: plain_react(k, max_iters),
        "dspy.ReAct, compiled (worked)": lambda: compiled_plain_react(
            plain_react(k, max_iters), trainset, agent.metric, solve
        ),
    }


def _measure(agent: Agent, name: str, build: Build, examples: list[dspy.Example], folder: Path) -> None:
    done = _read(folder, name)
    finished = set() if done.empty else set(done["id"])
    missing = [example for example in examples if example.id not in finished]
    if not missing:
        return
    print(f"{name}: {len(examples) - len(missing)} of {len(examples)} rows are there, {len(missing)} to go", flush=True)
    program = build()
    lm = agent.lm()
    if "dspy.ReAct" in name:
        lm = lm.copy(max_tokens=400)  # its steps are longer; the limit that fits ours would cut them off
    path = _path(folder, name)
    path.parent.mkdir(parents=True, exist_ok=True)
    for start in range(0, len(missing), 4):
        rows = evaluate(program, missing[start : start + 4], agent.metric, lm=lm).rows
        with path.open("a", encoding="utf-8") as file:
            rows.drop(columns="pred_trajectory", errors="ignore").to_json(file, orient="records", lines=True)


def _read(folder: Path, name: str) -> pd.DataFrame:
    path = _path(folder, name)
    return pd.read_json(path, lines=True) if path.exists() else pd.DataFrame()


def _path(folder: Path, name: str) -> Path:
    return folder / (name.replace(", ", "-").replace(" ", "-").replace("(", "").replace(")", "") + ".jsonl")


def _key(agent: Agent, examples: list[dspy.Example]) -> str:
    compiled = agent.compiled_path.read_bytes() if agent.compiled_path.exists() else b""
    data = dataset_hash(examples)
    digest = hashlib.sha256(compiled + data.encode() + agent.config.model_dump_json().encode()).hexdigest()
    return digest[:12]


def _about(agent: Agent, split: str) -> dict[str, str]:
    packages = ", ".join(f"{name} {version(name)}" for name in ("dspy", "mlflow", "xllamacpp"))
    return {
        "LM": agent.lm().model,
        "split": split,
        "machine": f"{platform.machine()}, {len(os.sched_getaffinity(0))} cores, Python {platform.python_version()}",
        "versions": packages,
        "program": f"k={agent.config.retriever.k}, max_iters={agent.config.max_iters}",
    }


def _with(agent: Agent, config: object) -> Agent:
    from dataclasses import replace

    return replace(agent, config=config)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=None, help="rows for oneturn's programs (default: all)")
    parser.add_argument("--peer-rows", type=int, default=None, help="rows for dspy.ReAct, which is slower")
    parser.add_argument("--only", action="append", help="a program's name; may be given again")
    parser.add_argument("--split", default="test", choices=("dev", "test"))
    parser.add_argument("--lm", help="another LM, such as local/1.5B")
    parser.add_argument("--config", help="another configuration")
    parser.add_argument("--journal", default=".oneturn/benchmarks", help="where rows are kept")
    parser.add_argument("--report", help="a Markdown file to write")
    return parser.parse_args()


if __name__ == "__main__":
    main()
