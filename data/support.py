"""The support desk's data: the handbook's passages, the orders, and the labelled examples.

Plain examples share words with the passages that answer them. Natural examples are written from a customer's situation,
without looking at the passages; each has ``"style": "natural"`` and follows the plain ones of its split.

After a change of the models, ``python -m data.support`` writes the JSON schema of the examples again.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

import dspy
from pydantic import BaseModel, ConfigDict, Field, model_validator

from oneturn.datasets import SPLITS, load_rows, split_files, to_examples
from oneturn.errors import DataError

HERE = Path(__file__).resolve().parent
CORPUS = HERE / "corpus"
ORDERS = HERE / "records" / "orders.csv"
EXAMPLES = HERE / "examples"
SCHEMA = EXAMPLES / "schema.json"

Category = Literal["lookup", "sum", "two_hop", "record", "paraphrase", "unanswerable"]
Style = Literal["plain", "natural"]
PLAIN: Style = "plain"


class Evidence(BaseModel):
    """A fact that the answer is based on, with its source."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    source: str = Field(description="The id of a passage or an order.")
    fact: str = Field(description="Literal text of the passage, or `column: value` of the order.")


class SupportExample(BaseModel):
    """A customer's question with the expected answer and its evidence."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    id: str
    category: Category
    style: Style = Field(
        default=PLAIN, description="Whether the question is worded like the handbook or by a customer."
    )
    question: str = Field(min_length=1)
    answer: str = Field(default="", description="As short as possible; empty if there is none.")
    answerable: bool = Field(description="Whether the handbook or the orders contain the answer.")
    evidence: list[Evidence] = []
    expression: str | None = Field(default=None, description="For sums only: the arithmetic expression of the answer.")

    @model_validator(mode="after")
    def _check_consistency(self) -> SupportExample:
        if self.answerable != bool(self.answer) or self.answerable != bool(self.evidence):
            raise ValueError("an answerable question has an answer and evidence, an unanswerable one has neither")
        if (self.category == "unanswerable") == self.answerable:
            raise ValueError(f"category {self.category!r} contradicts answerable={self.answerable}")
        if (self.category == "sum") != (self.expression is not None):
            raise ValueError("a sum has an expression, other categories have none")
        return self

    @property
    def citations(self) -> list[str]:
        """The distinct sources of the evidence, in order."""
        return list(dict.fromkeys(evidence.source for evidence in self.evidence))


def load_split(split: str, folder: Path = EXAMPLES) -> list[dspy.Example]:
    """Return the examples of ``"train"``, ``"dev"`` or ``"test"`` in a folder. Their input is ``question``.

    ``facts`` are the texts of an example's evidence. A plain example has no field ``style``.

    Raises:
        DataError: the split doesn't exist, or a row isn't a valid ``SupportExample``.
    """
    if split not in SPLITS:
        raise DataError(f"unknown split {split!r}; the splits are {', '.join(SPLITS)}")
    if (path := split_files(folder).get(split)) is None:
        raise DataError(f"{folder} has no {split} examples. Add {split}.jsonl.")
    return to_examples(map(_fields, load_rows(path, SupportExample)))


def style_of(example: dspy.Example) -> str:
    """Return the style of an example: ``"plain"`` or ``"natural"``."""
    return str(example.get("style", PLAIN))


def _fields(row: SupportExample) -> dict[str, Any]:
    labels = {"id", "category", "question", "answer", "answerable", "expression"}
    style = {} if row.style == PLAIN else {"style": row.style}
    facts = [evidence.fact for evidence in row.evidence]
    return row.model_dump(include=labels) | {"citations": row.citations, "facts": facts} | style


def schema_text() -> str:
    """Return the content of ``schema.json``."""
    return json.dumps(SupportExample.model_json_schema(), indent=2) + "\n"


if __name__ == "__main__":
    SCHEMA.write_text(schema_text(), encoding="utf-8")
