"""Derive the tool calls that answer a labelled question of the support desk."""

import re

import dspy

from oneturn.programs.react import Demonstration

REFUSAL = "That is not in the handbook."
_ORDER = re.compile(r"M-\d{4}")


def solve(example: dspy.Example) -> Demonstration:
    """Return the calls that lead to the gold answer: first orders, then the handbook, then the sum."""
    orders = [source for source in example.citations if _ORDER.fullmatch(source)]
    orders = orders or _ORDER.findall(example.question)
    calls = [("lookup_order", {"order_id": order}) for order in orders]
    if not orders or len(example.citations) > len(orders):
        calls.append(("search_handbook", {"query": example.question}))
    if example.expression:
        calls.append(("calculate", {"expression": example.expression}))
    answer = example.answer if example.answerable else REFUSAL
    outputs = {"answer": answer, "citations": list(example.citations), "answerable": example.answerable}
    return Demonstration(outputs, calls)
