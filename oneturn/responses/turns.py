"""Where the last turn of a conversation begins."""

from __future__ import annotations

from collections.abc import Sequence

from oneturn.responses.content import Item, text_in


def is_answer(item: Item) -> bool:
    """Return whether an item is an assistant's message with text that wasn't cut."""
    if item.get("role") != "assistant" or item.get("status") == "incomplete":
        return False
    content = item.get("content")
    return bool(content if isinstance(content, str) else any(text_in(part) for part in content or []))


def turn_start(items: Sequence[Item]) -> int:
    """Return the position at which the last turn begins: the first user message that has no answer yet.

    An agent without a question has none: its turn begins behind its last answer, or at 0.
    """
    users = [index for index, item in enumerate(items) if item.get("role") == "user"]
    if not users:
        answers = [index for index, item in enumerate(items) if item.get("role") == "assistant"]
        return answers[-1] + 1 if answers else 0
    start = users.pop()
    while users and not _is_answered(items[users[-1] : start]):
        start = users.pop()
    return start


def _is_answered(items: Sequence[Item]) -> bool:
    """Whether items have an answer, after which no output of an earlier call comes."""
    calls, answers = set(), 0
    for item in items:
        if item.get("type") == "function_call" and not answers:
            calls.add(item.get("call_id"))
        elif item.get("type") == "function_call_output" and item.get("call_id") in calls:
            answers = 0
        elif is_answer(item):
            answers += 1
    return answers > 0
