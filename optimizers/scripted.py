"""Derive the steps that answer a labelled question of the support desk: tool calls, each with a thought of a few words.

The thoughts name what is looked for before it is looked for. Without them a small LM calculates with any two numbers
that it has read, and reads on after an order's record has the answer.
"""

import re

import dspy

from oneturn.programs.react import Demonstration

REFUSAL = "That is not in the handbook."
_ORDER = re.compile(r"M-\d{4}")


def solve(example: dspy.Example) -> Demonstration:
    """Return the steps that lead to the gold answer: first orders, then the handbook, then the sum."""
    orders = [source for source in example.citations if _ORDER.fullmatch(source)]
    orders = orders or _ORDER.findall(example.question)
    calls = [("lookup_order", {"order_id": order}) for order in orders]
    if not orders or len(example.citations) > len(orders):
        calls.append(("search_handbook", {"query": example.question}))
    if example.expression:
        calls.append(("calculate", {"expression": example.expression}))
    answer = example.answer if example.answerable else REFUSAL
    outputs = {"answer": answer, "citations": list(example.citations), "answerable": example.answerable}
    names = [name for name, _ in calls]
    thoughts = [_before(name, names, example) for name in names]
    return Demonstration(outputs, calls, [*thoughts, _at_the_end(names, example)])


def _before(call: str, calls: list[str], example: dspy.Example) -> str:
    if call == "calculate":
        return "; ".join(example.facts)
    if call == "lookup_order":
        return "The order's record may say it." if len(calls) == 1 else "First the order."
    if "lookup_order" in calls:
        return "Then the rule for it."
    return "A sum: first the prices." if example.expression else "A fact of the handbook."


def _at_the_end(calls: list[str], example: dspy.Example) -> str:
    if not example.answerable:
        return "It isn't there."
    if "calculate" in calls:
        return "That is the sum."
    return "The record says it." if calls == ["lookup_order"] else "A passage says it."
