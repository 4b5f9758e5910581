"""Agents with scripted LMs for the tests of the page."""

from __future__ import annotations

from typing import Any

import dspy
from mlflow.entities import Document

import oneturn
from oneturn.serving.server import open_approvals
from oneturn.testing import ScriptedLM

PASSAGES = {
    "fees": ("Fees", "The basic plan costs 4 euros a month. It can be cancelled at any time."),
    "limits": ("Limits", "A plan has at most five machines."),
}


def search(query: str) -> list[Document]:
    """Find passages of the handbook."""
    return [
        Document(text, metadata={"title": title, "doc_uri": f"https://handbook.example/{id}"}, id=id)
        for id, (title, text) in PASSAGES.items()
    ]


def refund(order: str, amount: float) -> str:
    """Pay an order back."""
    return f"{amount} euros of {order} are paid back"


class AnswerWithSources(dspy.Signature):
    """Answer from the handbook."""

    question: str = dspy.InputField()
    history: dspy.History = dspy.InputField(default=dspy.History(messages=[]))
    answer: str = dspy.OutputField()
    citations: list[oneturn.Citation] = dspy.OutputField()
    answerable: bool = dspy.OutputField()


def handbook_agent(*replies: Any, signature: Any = AnswerWithSources, **options: Any) -> oneturn.ResponsesAdapter:
    """Return an agent with a search and a refund that needs approval."""
    tools = [search, oneturn.tool(refund, approval=True)]
    program = oneturn.ReAct(signature, tools=tools, **options)
    program.set_lm(ScriptedLM(*replies))
    adapter = oneturn.ResponsesAdapter(program)
    open_approvals(adapter, "127.0.0.1")
    return adapter
