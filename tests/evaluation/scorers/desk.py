"""A small agent with a retriever and citations, and a script for its LM; ``MODEL`` logs it."""

from __future__ import annotations

from typing import Any

import dspy
from mlflow.entities import Document

import oneturn
from oneturn.retrieval import Bm25Retriever
from oneturn.testing import ScriptedLM, call, finish

PASSAGES = {"fees": "The monthly fee is 4 euros.", "hours": "We open at 9.", "fines": "A late fee is a fine."}
RETRIEVER = Bm25Retriever(
    [
        Document(page_content=text, id=name, metadata={"title": name.title(), "doc_uri": f"docs/{name}.md"})
        for name, text in PASSAGES.items()
    ],
    k=2,
)


class Answer(dspy.Signature):
    """Answer from the handbook."""

    question: str = dspy.InputField()
    answer: str = dspy.OutputField()
    citations: list[oneturn.Citation] = dspy.OutputField()


def search(query: str) -> list[Document]:
    """Find passages."""
    return RETRIEVER.search(query)


def add(left: int, right: int) -> int:
    """Add two numbers."""
    return left + right


SCRIPT = (
    call("search", query="monthly fee"),
    call("add", left=4, right=4),
    finish(answer="8 euros", citations=["fees"]),
    finish(answer="I don't know.", citations=[]),
)
ROWS: list[dict[str, Any]] = [
    {
        "question": "What do two months cost?",
        "answer": "8 euros",
        "citations": ["fees"],
        "expected_tools": ["search", "add"],
        "expected_tool_calls": [{"name": "add", "arguments": {"left": 4, "right": 4}}],
        "expected_sources": ["docs/fees.md"],
    },
    {
        "question": "When do you open?",
        "answer": "at 9",
        "citations": ["hours"],
        "expected_tools": ["search"],
        "expected_tool_calls": [{"name": "search", "arguments": {"query": "open"}}],
        "expected_sources": ["hours"],
    },
]
MODEL = """
import mlflow, oneturn
from tests.evaluation.scorers.desk import desk
mlflow.models.set_model(oneturn.ResponsesAdapter(desk))
"""


def desk() -> oneturn.ReAct:
    """The agent with its scripted LM."""
    made = oneturn.ReAct(Answer, tools=[search, add])
    made.set_lm(ScriptedLM(*SCRIPT))
    return made
