"""What a stub LM answers to the agents of new projects, and a ``dspy.Module`` for ``oneturn new --from``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml

FACTS = {"supplier": "Stahl AG", "total": 1250.0, "currency": "EUR", "due": "2025-09-30", "items": ["shelves"]}
QUESTIONS = {"react": "What is the daily rate in Paris?", "extract": "Stahl AG, shelves, EUR 1,250.00, by 2025-09-30."}
ANSWERS = {"react": "48 euros", "extract": '"supplier": "Stahl AG"'}

MODULE = """
import dspy


class Faq(dspy.Module):
    def __init__(self):
        super().__init__()
        self.answer = dspy.Predict("question, language: str -> answer, sure: bool")

    def forward(self, question, language):
        return self.answer(question=question, language=language)


program = Faq()
"""
ROW = {"question": "Why?", "language": "en", "answer": "So.", "sure": True}
"""An example for :data:`MODULE`."""


def step(messages: str) -> dict[str, Any]:
    """Return the reply to a request: look the rate in Paris up and answer with it; or the facts of one invoice."""
    if "invoice" in messages:
        call: dict[str, Any] = {"name": "finish", "args": {"invoice": FACTS}}
    elif "language" in messages:
        return {"answer": ROW["answer"], "sure": ROW["sure"]}
    elif "The daily rate in Paris is" in messages.rpartition("question: ")[2]:
        call = {"name": "finish", "args": {"answer": "48 euros", "citations": ["rate-paris"]}}
    else:
        call = {"name": "daily_rate", "args": {"city": "Paris"}}
    return {"tool_call": call}


def use_stub(folder: Path, url: str) -> None:
    """Make the stub the LM of a project."""
    path = folder / "configs" / "dev.yaml"
    config = yaml.safe_load(path.read_text(encoding="utf-8"))
    config["lm"] |= {"model": "openai/stub", "api_base": url, "cache": False}
    path.write_text(yaml.safe_dump(config), encoding="utf-8")


def use_compiled(folder: Path, name: str) -> None:
    """Set the compiled program in the configuration, as ``oneturn compile`` says."""
    path = folder / "configs" / "dev.yaml"
    text = path.read_text(encoding="utf-8").replace("compiled: null", f"compiled: data/compiled/{name}.json")
    path.write_text(text, encoding="utf-8")


def write_examples(folder: Path) -> None:
    """Write examples for :data:`MODULE`."""
    for number, split in enumerate(("train", "dev", "test")):
        rows = [ROW | {"id": f"{split}-{each}", "question": f"Why {number}{each}?"} for each in "abc"]
        path = folder / "data" / "examples" / f"{split}.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
