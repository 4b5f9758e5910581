"""An agent with a folder of examples, for the tests in this folder."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import dspy
from pydantic import BaseModel

import oneturn
from oneturn.core.splits import Row, split_files, split_rows
from oneturn.datasets.rows import load_rows, to_examples

Rows = Sequence[Mapping[str, Any]]


class Example(BaseModel):
    """A row of the agent's examples."""

    id: str
    question: str
    answer: str = ""
    category: str = "easy"


SCHEMA = {
    "type": "object",
    "properties": {
        "id": {"type": "string"},
        "question": {"type": "string", "minLength": 1},
        "answer": {"type": "string"},
        "category": {"enum": ["easy", "hard"]},
    },
    "required": ["id", "question", "category"],
    "additionalProperties": False,
}


def write(folder: Path, split: str, rows: Rows) -> None:
    """Write a split's file."""
    folder.mkdir(parents=True, exist_ok=True)
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    (folder / f"{split}.jsonl").write_text(text, encoding="utf-8")


def rows_of(folder: Path, split: str) -> list[Mapping[str, Any]]:
    """Return the rows of a split's file."""
    return [row.values for row in split_rows(split, split_files(folder)[split], None) if isinstance(row, Row)]


def agent_with(
    root: Path, *, schema: Mapping[str, Any] | None = SCHEMA, config: Mapping[str, Any] | None = None, **splits: Rows
) -> oneturn.Agent:
    """Create an agent whose examples are in ``root``/data/examples."""
    folder = root / "data" / "examples"
    folder.mkdir(parents=True, exist_ok=True)
    for split, rows in splits.items():
        write(folder, split, rows)
    if schema is not None:
        (folder / "schema.json").write_text(json.dumps(schema))

    def examples(split: str) -> list[dspy.Example]:
        return to_examples(load_rows(folder / f"{split}.jsonl", Example))

    return oneturn.Agent(
        name="tiny",
        config=oneturn.AgentConfig.read(config or {}),
        build=lambda: oneturn.ReAct("question -> answer", tools=[]),
        metric=lambda example, prediction, trace=None: prediction.answer == example.answer,
        examples=examples,
        recipes={},
        root=root,
        code_paths=(),
        example_questions=("Is it?",),
    )


def row(ident: str, question: str, answer: str = "yes", category: str = "easy") -> dict[str, Any]:
    """Return a valid row."""
    return {"id": ident, "question": question, "answer": answer, "category": category}
