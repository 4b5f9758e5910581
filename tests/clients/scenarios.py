"""The scenarios of the client matrix: what is asked, and how it is seen that a client shows the right thing."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

from tests.clients.scripted_lm import Call

CITED_URL = "https://example.org/ports"
_SUM = "What is 2 + 3?"
_LEAVE_SECONDS = 10.0  # for the server to close its connection to the LM, on a busy machine


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What one cell gave.

    Attributes:
        turns: what the client showed of each response, as ``drivers/cells.py`` describes.
        error: the error that the client raised: type, message, status and the text shown before; ``None`` without.
        left: whether the client left on purpose.
        calls: the LM's calls.
    """

    turns: list[dict[str, Any]]
    error: dict[str, Any] | None
    left: bool
    calls: list[Call]


Check = Callable[[Outcome, bool], "list[str]"]


@dataclasses.dataclass(frozen=True)
class Scenario:
    """One column of the matrix.

    Attributes:
        title: its name in the table.
        questions: the questions of the user, in order.
        check: returns what is wrong with an outcome, given whether the answer was streamed.
        custom_inputs: the request's custom inputs.
        structured: whether the answer is asked for as ``{answer, sure}``.
        approve: the user's decision about the approval request of the last response.
        leave: whether the client leaves in the middle of the answer.
        without_lm: whether the agent's LM can't be reached.
        client_tool: whether the client offers its function ``clock(city)``, and runs it.
    """

    title: str
    questions: tuple[str, ...]
    check: Check
    custom_inputs: dict[str, Any] | None = None
    structured: bool = False
    approve: bool | None = None
    leave: bool = False
    without_lm: bool = False
    client_tool: bool = False


def _answers(text: str, calls: int) -> Check:
    """The last turn shows ``text``, in pieces if streamed; nothing is left for the client to run."""

    def check(outcome: Outcome, stream: bool) -> list[str]:
        if outcome.error is not None:
            return [f"raises {outcome.error['type']}: {outcome.error['message']}"]
        problems = []
        if outcome.turns[-1]["text"] != text:
            problems.append(f"shows {outcome.turns[-1]['text']!r}, not {text!r}")
        if stream and outcome.turns[-1]["deltas"] < 2:
            problems.append("doesn't show the text in pieces")
        if stream and not all(call.streamed for call in outcome.calls):
            problems.append("doesn't ask for a stream")
        if to_run := [name for turn in outcome.turns for name in turn["to_run"]]:
            problems.append(f"wants to run the server's {', '.join(to_run)}")
        if len(outcome.calls) != calls:
            problems.append(f"made the LM be called {len(outcome.calls)} times, not {calls}")
        return problems

    return check


def _also(check: Check, title: str, value: Any, read: Callable[[Outcome], Any]) -> Check:
    def both(outcome: Outcome, stream: bool) -> list[str]:
        problems = check(outcome, stream)
        if outcome.error is None and (shown := read(outcome)) != value:
            problems.append(f"shows {title} {shown!r}, not {value!r}")
        return problems

    return both


def _runs_its_tool(outcome: Outcome, stream: bool) -> list[str]:
    """The client ran its own function once, and shows the answer that follows from the output."""
    if outcome.error is not None:
        return [f"raises {outcome.error['type']}: {outcome.error['message']}"]
    problems = []
    if (text := outcome.turns[-1]["text"]) != "It is noon in Rome.":
        problems.append(f"shows {text!r}, not 'It is noon in Rome.'")
    if (ran := outcome.turns[-1].get("ran")) != [["clock", {"city": "Rome"}]]:
        problems.append(f"ran {ran!r}")
    if len(outcome.calls) != 2:
        problems.append(f"made the LM be called {len(outcome.calls)} times, not 2")
    return problems


def _fails(outcome: Outcome, stream: bool) -> list[str]:
    if outcome.error is None:
        return [f"raises nothing; shows {outcome.turns[-1]['text']!r}"]
    if "LM" not in outcome.error["message"] and "language model" not in outcome.error["message"].lower():
        return [f"doesn't say that the LM failed: {outcome.error['type']}: {outcome.error['message']}"]
    return []


def _leaves(outcome: Outcome, stream: bool) -> list[str]:
    if not outcome.left and outcome.error is None:
        return ["doesn't leave"]
    if len(outcome.calls) != 1:
        return [f"made the LM be called {len(outcome.calls)} times, not 1: {outcome.error}"]
    if not outcome.calls[0].done.wait(_LEAVE_SECONDS):
        return ["leaves, and the LM goes on"]
    return [] if outcome.calls[0].abandoned else ["leaves after the end"]


SCENARIOS = {
    "plain": Scenario("plain", ("Say hello.",), _answers("Hello there.", 1)),
    "tool": Scenario(
        "own tool",
        (_SUM,),
        _also(_answers("The sum is 5.", 2), "tools", [["add", "5"]], lambda outcome: outcome.turns[-1]["tools"]),
    ),
    "citations": Scenario(
        "citations",
        ("Which port?",),
        _also(
            _answers("Open port 443 [ports].", 2),
            "citations",
            [CITED_URL],
            lambda outcome: outcome.turns[-1]["citations"],
        ),
    ),
    "custom_inputs": Scenario(
        "custom inputs",
        ("Say hello.",),
        _answers("Good day to you.", 1),
        custom_inputs={"tone": "formal"},
    ),
    "second_turn": Scenario(
        "second turn",
        (_SUM, "What did I ask?"),
        _answers("You asked for a sum.", 3),
    ),
    "approval_yes": Scenario(
        "approval: yes",
        ("I want my money back.",),
        _also(
            _answers("The refund is on its way.", 2),
            "approvals",
            [["refund", {"euros": 150}]],
            lambda outcome: outcome.turns[0]["approvals"],
        ),
        approve=True,
    ),
    "approval_no": Scenario(
        "approval: no",
        ("I want my money back.",),
        _also(
            _answers("There is no refund.", 2),
            "approvals",
            [["refund", {"euros": 150}]],
            lambda outcome: outcome.turns[0]["approvals"],
        ),
        approve=False,
    ),
    "structured": Scenario(
        "structured output",
        ("Say hello.",),
        _also(
            lambda outcome, stream: [] if outcome.error is None else [f"raises {outcome.error}"],
            "structured output",
            {"answer": "Hello there.", "sure": True},
            lambda outcome: outcome.turns[-1].get("parsed"),
        ),
        structured=True,
    ),
    "interrupted": Scenario("LM dies in the answer", ("Say a lot.",), _fails),
    "no_lm": Scenario("LM gone", ("Say hello.",), _fails, without_lm=True),
    "leave": Scenario("client leaves", ("Say a lot.",), _leaves, leave=True),
    "client_tool": Scenario("client tool", ("What time is it in Rome?",), _runs_its_tool, client_tool=True),
}
"""By name, in the order of the table."""
